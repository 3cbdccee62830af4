"""Sources and mixtures: cleaned, counted, weighted by size; a recipe takes them from a mixture's file."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from trunkline.config import PrefinetuneRecipe, load_recipe, parse_recipe
from trunkline.data.source_card import SourceCard, write_source_card
from trunkline.errors import RecipeError
from trunkline.prefinetune.sources import FileFinder, Found, HeldOutTexts, recipe_sources
from trunkline.text.examples import NerExample, PairExample, PlainExample, Span, TextExample
from trunkline.text.words import split_words

LEAK = "the meeting with Ana moved to the big room on Monday morning"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TRUNKLINE_CACHE", str(tmp_path / "cache"))


def write_lines(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def sentence(text: str, *spans) -> dict:
    return {"text": text, "entities": [{"start": a, "end": b, "label": label} for a, b, label in spans]}


@pytest.fixture
def files(tmp_path) -> dict[str, Path]:
    names = [f"Person{i} went to Town{i} by train number {i}" for i in range(40)]
    ner = [sentence(text, (0, text.index(" "), "per_son")) for text in names] + [sentence(LEAK, (17, 20, "per_son"))]
    pairs = [
        {"left": f"what is word {i} about", "right": f"it is about thing {i}", "group": str(i % 3)} for i in range(30)
    ]
    task = [{"text": LEAK.upper(), "label": "a"}, {"text": "something else entirely is said here", "label": "b"}]
    overlapping = [sentence("Ana Lima sang", (0, 8, "singer"), (0, 3, "first name"))] * 12
    return {
        "ner": write_lines(tmp_path / "ner.jsonl", ner),
        "pairs": write_lines(tmp_path / "pairs.jsonl", pairs),
        "overlapping": write_lines(tmp_path / "overlapping.jsonl", overlapping),
        "task": write_lines(tmp_path / "task.jsonl", task),
    }


def mixture(files, **more) -> dict:
    return {
        "name": "mine",
        "families": {
            "ner": {"sources": {str(files["ner"]): {}, str(files["overlapping"]): {"weight": 2}}},
            "classification": {"sources": {str(files["pairs"]): {"cap": 10}}},
        },
        **more,
    }


def test_a_recipe_is_cleaned_and_says_what_was_taken_out(files):
    raw = mixture(files, decontaminate={"against": [str(files["task"])]})
    for _ in range(2):  # worked out, then read from the cache
        facts = {s.name: s.facts for group in sources_of(raw).values() for s in group}
        assert (facts["ner"]["examples"], facts["ner"]["removed"]) == (41, 1)
        assert facts["ner"]["why"]["by_owner"] == {"task.jsonl": 1} and facts["pairs"]["removed"] == 0
    counts = {s.name: len(s.train) + len(s.held_out) for group in sources_of(mixture(files)).values() for s in group}
    assert (counts["ner"], counts["overlapping"]) == (41, 12) and counts["pairs"] == 13


def sources_of(raw: dict):
    return recipe_sources(parse_recipe(raw, PrefinetuneRecipe, "r"))


def test_what_leaks_is_neither_trained_on_nor_held_out(files):
    raw = mixture(files, decontaminate={"against": [str(files["task"])]})
    for source in recipe_sources(parse_recipe(raw, PrefinetuneRecipe, "r"))["ner"]:
        assert not any(example.text == LEAK for example in [*source.train, *source.held_out])


@pytest.mark.parametrize(("temperature", "share"), [(1.0, 40 / 52), (2.0, 40**0.5 / (40**0.5 + 12**0.5))])
def test_a_source_temperature_weighs_sources_by_their_size(files, temperature, share):
    raw = mixture(files)
    raw["families"]["ner"] |= {"source_temperature": temperature, "held_out": 1}
    raw["families"]["ner"]["sources"] = {str(files["ner"]): {"cap": 40}, str(files["overlapping"]): {}}
    recipe = parse_recipe(raw, PrefinetuneRecipe, "r")
    weights = np.array([source.weight for source in recipe_sources(recipe)["ner"]])
    sizes = np.array([40, 11]) ** (1 / temperature)
    assert weights / weights.sum() == pytest.approx(sizes / sizes.sum())


def test_bare_files_keep_overlapping_spans_and_groups(files):
    sources = recipe_sources(parse_recipe(mixture(files), PrefinetuneRecipe, "r"))
    assert sources["ner"][1].concepts == {"singer": "singer", "first name": "first name"}
    assert {len(example.spans) for example in sources["ner"][1].train} == {2}
    assert {pair.group for pair in sources["classification"][0].train} <= {"0", "1", "2"}


def test_a_changed_file_is_read_anew(files):
    recipe = parse_recipe(mixture(files), PrefinetuneRecipe, "r")
    before = len(recipe_sources(recipe)["classification"][0].held_out)
    rows = [{"left": f"left text {i}", "right": f"right text {i}"} for i in range(200)]
    write_lines(files["pairs"], rows)
    assert len(recipe_sources(recipe)["classification"][0].held_out) == 20 != before


def test_a_file_is_another_by_its_place_size_time_or_kind(files, tmp_path):
    finder, path = FileFinder(), files["pairs"]

    def state() -> str:
        return finder.open(str(path), PairExample).state

    before, content = state(), path.read_bytes()
    os.utime(path, ns=(time := path.stat().st_mtime_ns, time + 1))
    assert state() != before
    os.utime(path, ns=(time, time))
    assert state() == before
    assert finder.open(str(path), PlainExample).state != before
    path.write_bytes(content + b"\n")
    os.utime(path, ns=(time, time))
    assert state() != before
    path.write_bytes(content)
    os.utime(path, ns=(time, time))
    assert finder.open(str(shutil.copy2(path, tmp_path / "copied.jsonl")), PairExample).state != before


def test_other_held_out_texts_or_another_threshold_clean_a_source_anew(files):
    def left(**asked) -> int:
        source = sources_of(mixture(files, decontaminate={"against": [str(files["task"])], **asked}))["ner"][0]
        return len(source.train) + len(source.held_out)

    assert left() == 40
    write_lines(files["task"], [{"text": f"{LEAK} with all of us", "label": "a"}, {"text": "another", "label": "b"}])
    assert (left(threshold=1.0), left(threshold=0.5)) == (41, 40)
    write_lines(files["task"], [{"text": "nothing like it stands here", "label": "a"}])
    assert left(threshold=0.5) == 41


def test_a_recipe_takes_its_sources_from_a_mixture(files, tmp_path):
    import yaml

    (tmp_path / "mixtures").mkdir()
    (tmp_path / "mixtures" / "m.yaml").write_text(
        yaml.safe_dump(mixture(files, decontaminate={"against": "dev.jsonl"}))
    )
    own = {"name": "r", "extends": "mixtures/m.yaml", "families": {"ner": {"tokens": 4096}, "classification": None}}
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump(own), encoding="utf-8")
    recipe = load_recipe(path, PrefinetuneRecipe)
    assert set(recipe.families) == {"ner"} and recipe.families["ner"].tokens == 4096
    assert list(recipe.families["ner"].sources) == [str(files["ner"]), str(files["overlapping"])]
    assert recipe.decontaminate is not None and recipe.decontaminate.against == ("dev.jsonl",)


def test_all_problems_of_a_familys_sources_are_listed(files, tmp_path):
    raw = mixture(files)
    raw["families"]["ner"]["sources"] = {
        str(tmp_path / "nerr.jsonl"): {},
        str(tmp_path / "none" / "x.jsonl"): {},
        str(files["pairs"]): {},
    }
    with pytest.raises(RecipeError) as caught:
        recipe_sources(parse_recipe(raw, PrefinetuneRecipe, "r"))
    assert len(caught.value.problems) == 3 and "did you mean 'ner.jsonl'?" in caught.value.problems[0]
    assert "trunkline-lab" in caught.value.problems[1]


def test_a_source_card_says_what_labels_mean_and_what_is_known(files, tmp_path):
    concepts = {"per_son": "a human being"}
    write_source_card(
        SourceCard(name="travel", family="ner", licence="CC0-1.0", concepts=concepts), tmp_path / "ner.yaml"
    )
    names = (str(files["ner"]), str(tmp_path / "ner.yaml"))
    for name in names:  # the data or the card, both are the same source
        raw = {"name": "r", "families": {"ner": {"sources": {name: {}}}}}
        (source,) = recipe_sources(parse_recipe(raw, PrefinetuneRecipe, "r"))["ner"]
        assert (source.name, source.concepts, source.closed) == ("travel", concepts, False)
        assert source.facts["licence"] == "CC0-1.0"
    raw["families"]["ner"]["descriptions"] = False
    (bare,) = recipe_sources(parse_recipe(raw, PrefinetuneRecipe, "r"))["ner"]
    assert bare.concepts == {"per_son": "per son"}
    (tmp_path / "ner.yaml").unlink()
    raw["families"]["ner"]["sources"] = {names[0]: {}}
    (alone,) = recipe_sources(parse_recipe(raw, PrefinetuneRecipe, "r"))["ner"]
    assert (alone.name, alone.closed, alone.facts["licence"]) == ("ner", True, "unknown")
    write_source_card(SourceCard(name="x", family="qa"), tmp_path / "ner.yaml")
    with pytest.raises(RecipeError, match=r"ner\.yaml is of family qa"):
        recipe_sources(parse_recipe(raw, PrefinetuneRecipe, "r"))


class Shelf:
    """A finder that knows names of its own."""

    def __init__(self):
        self.asked = []

    def open(self, name, kind):
        self.asked.append((name, kind))
        if kind is PairExample:
            made = [PairExample(f"text {i}", f"answer {i}") for i in range(20)]
        else:
            made = [NerExample(LEAK, split_words(LEAK), (Span(17, 20, "who"),))] * 9
            made += [
                NerExample(f"Bo{i} left the house", split_words(f"Bo{i} left the house"), (Span(0, 3, "who"),))
                for i in range(9)
            ]
        return Found(SourceCard(name=name, family="ner", home="https://example.org"), f"{name} 1", lambda: made)

    def held_out(self, names):
        return HeldOutTexts([f"{name}@test" for name in names], "state", lambda: [("tasks@test", LEAK)])


def test_a_finder_says_what_names_mean():
    shelf = Shelf()
    raw = {
        "name": "m",
        "families": {"ner": {"sources": {"news": {}}}, "classification": {"sources": {"forum@train": {}}}},
        "decontaminate": {"against": "tasks"},
    }
    sources = recipe_sources(parse_recipe(raw, PrefinetuneRecipe, "r"), finder=shelf)
    assert shelf.asked == [("news", NerExample), ("forum@train", PairExample)]
    assert (sources["ner"][0].facts["home"], sources["ner"][0].facts["removed"]) == ("https://example.org", 9)
    assert not sources["ner"][0].closed and sources["ner"][0].concepts == {"who": "who"}


def test_held_out_files_are_of_any_family_and_names_begin_at_the_root(tmp_path):
    (tmp_path / "a.conll").write_text("Ana B-per\nleft O\n\n", encoding="utf-8")
    (tmp_path / "b.csv").write_text("text,label\none two,x\n", encoding="utf-8")
    write_lines(tmp_path / "c.jsonl", [{"text": "only a text"}])
    write_lines(tmp_path / "d.jsonl", [{"left": "left text", "right": "right text"}])
    found = FileFinder(tmp_path).held_out(["a.conll", "b.csv", "c.jsonl", "d.jsonl"])
    assert list(found.texts()) == [
        ("a.conll", "Ana left"),
        ("b.csv", "one two"),
        ("c.jsonl", "only a text"),
        ("d.jsonl", "left text"),
        ("d.jsonl", "right text"),
    ]
    task = FileFinder(tmp_path).open("b.csv", TextExample)
    assert list(task.examples()) == [TextExample("one two", "x")]
