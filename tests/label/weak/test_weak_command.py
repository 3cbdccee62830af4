"""The whole way: options, output, card, and that pre-finetuning takes it as it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from trunkline.label.weak.command import weak_label
from trunkline.label.weak.config import METHODS, GazetteerConfig, TeacherConfig, WeakLabelConfig, parse_weak_label
from trunkline.label.weak.output import open_atomic

from tiny_models import NAMES, PLACES, recipe_of, write_jsonl
from trunkline.config import FamilySection, parse_recipe
from trunkline.data.load import stream_source
from trunkline.errors import DataError, RecipeError, TrunklineError
from trunkline.prefinetune import prefinetune
from trunkline.prefinetune.sources import load_sources, open_sources
from trunkline.text.examples import NerExample, Span
from trunkline_lab.data.cards import load_card

TEXTS = ["The Nile is long. Nobody knows why.", "She saw Jordan and the Nile."]


@pytest.fixture
def gazetteer(tmp_path: Path) -> Path:
    path = tmp_path / "g.tsv"
    path.write_text("Nile\triver\nJordan\tcountry\nJordan\triver\n")
    return path


def config_of(path: Path, **options: Any) -> GazetteerConfig:
    return GazetteerConfig(gazetteer=path, **options)


def test_files_and_report(gazetteer: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "My Labels-1.jsonl"
    said: list[str] = []
    report = weak_label(config_of(gazetteer, licence="CC0"), TEXTS, out, say=said.append)
    assert [json.loads(line) for line in out.read_text().splitlines()] == [
        {"text": "The Nile is long.", "spans": [[4, 8, "river"]]},
        {"text": "She saw Jordan and the Nile.", "spans": [[8, 14, "country"], [8, 14, "river"], [23, 27, "river"]]},
    ]
    card = load_card(out.with_suffix(".yaml"))
    assert (card.name, card.coverage, card.licence, card.counts) == ("my_labels_1", "open", "CC0", {"train": 2})
    assert card.quirks[1] == "Method gazetteer: gazetteer g.tsv."
    assert card.load("train")[1].spans == (Span(8, 14, "country"), Span(8, 14, "river"), Span(23, 27, "river"))
    numbers = {key: report[key] for key in ("sentences", "labelled", "spans", "concepts", "top", "surfaces")}
    assert numbers == {
        "sentences": 3, "labelled": 2, "spans": 4, "concepts": 2, "top": [("river", 3), ("country", 1)], "surfaces": 2,
    }  # fmt: skip
    assert (report["file"], report["card"]) == (str(out), str(out.with_suffix(".yaml")))
    assert sorted(path.name for path in out.parent.iterdir()) == ["My Labels-1.jsonl", "My Labels-1.yaml"]


def test_options_of_every_way(gazetteer: Path, tmp_path: Path) -> None:
    out = tmp_path / "w.jsonl"
    assert weak_label(config_of(gazetteer, limit=1), TEXTS, out)["sentences"] == 1
    assert weak_label(config_of(gazetteer, drop=("River",)), TEXTS, out)["top"] == [("country", 1)]
    weak_label(config_of(gazetteer, keep_unlabelled=True, name="mine"), TEXTS, out)
    card = load_card(out.with_suffix(".yaml"))
    assert (card.name, len(card.load("train"))) == ("mine", 3)


def test_prefinetuning_takes_the_card_as_an_open_source(gazetteer: Path, tmp_path: Path) -> None:
    out = tmp_path / "w.jsonl"
    weak_label(config_of(gazetteer), TEXTS * 20, out)
    section = parse_recipe({"sources": {str(out.with_suffix(".yaml")): {}}, "held_out": 2}, FamilySection, "test")
    (source,) = load_sources("ner", section, 0, open_sources("ner", section))
    assert not source.closed
    assert source.concepts == {"river": "river", "country": "country"}
    assert (len(source.train), len(source.held_out)) == (38, 2)
    assert all(isinstance(example, NerExample) for example in source.train)
    assert len(list(stream_source(out, "ner"))) == 40


@pytest.mark.slow
def test_prefinetuning_runs_on_the_card(tiny_folder: Callable[[str], Path], tmp_path: Path) -> None:
    table = tmp_path / "g.tsv"
    table.write_text("".join(f"{name}\tperson\n" for name in NAMES) + "".join(f"{name}\tplace\n" for name in PLACES))
    out = tmp_path / "w.jsonl"
    weak_label(config_of(table), [f"{name} lives in {place} ." for name in NAMES for place in PLACES[:4]], out)
    families = {"ner": {"sources": {str(out.with_suffix(".yaml")): {}}, "tokens": 64, "held_out": 4}}
    recipe = recipe_of(tiny_folder("bert"), tmp_path, families=families, optimizer={"steps": 2})
    bundle = prefinetune(recipe, tmp_path / "run")
    assert (bundle / "backbone").is_dir()


def test_links(tmp_path: Path) -> None:
    text = "The Nile flows. It is long near Cairo."
    links = [[4, 8, "Nile"], [32, 37, "Cairo"]]
    paragraphs = write_jsonl(tmp_path / "p.jsonl", [{"title": "x", "p": [{"t": text, "l": links}]}])
    table = tmp_path / "t.tsv"
    table.write_text("River\tNile\tNile\t3\nCity\tCairo\tCairo\t2\nVenue\tCairo\tCairo\t1\n")
    raw = {"method": "links", "paragraphs": paragraphs, "gazetteer": table}
    report = weak_label(parse_weak_label(raw), (), tmp_path / "w.jsonl")
    assert (report["sentences"], report["top"]) == (2, [("city", 1), ("river", 1)])
    assert load_card(tmp_path / "w.yaml").load("train")[1].spans == (Span(16, 21, "city"),)


def test_nothing_to_label(gazetteer: Path, tmp_path: Path) -> None:
    out = tmp_path / "w.jsonl"
    with pytest.raises(TrunklineError, match="there is no sentence to label"):
        weak_label(config_of(gazetteer), ["12 !"], out)
    with pytest.raises(TrunklineError, match="none of 1 sentences got a label"):
        weak_label(config_of(gazetteer), ["Nothing."], out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["g.tsv"]


def test_an_error_leaves_the_old_output(gazetteer: Path, tmp_path: Path) -> None:
    out = tmp_path / "w.jsonl"
    weak_label(config_of(gazetteer), TEXTS, out)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def texts() -> Any:
        yield TEXTS[0]
        raise DataError("a bad line", path="x")

    with pytest.raises(DataError, match="a bad line"):
        weak_label(config_of(gazetteer), texts(), out)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_outputs_that_would_do_harm(gazetteer: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"ends in '\.json'"):
        weak_label(config_of(gazetteer), TEXTS, tmp_path / "w.json")
    (tmp_path / "d.jsonl").mkdir()
    with pytest.raises(DataError, match="the output is a folder"):
        weak_label(config_of(gazetteer), TEXTS, tmp_path / "d.jsonl")
    (tmp_path / "w.yaml").write_text("name: mine\n")
    with pytest.raises(DataError, match=r"w\.yaml: this file is not ours"):
        weak_label(config_of(gazetteer), TEXTS, tmp_path / "w.jsonl")
    own = write_jsonl(tmp_path / "own.jsonl", [{"surface": "Nile", "concept": "river"}])
    with pytest.raises(DataError, match="would overwrite an input"):
        weak_label(config_of(own), TEXTS, own)
    with pytest.raises(DataError, match="cannot be written"), open_atomic(gazetteer / "below.jsonl"):
        pass


def test_options_are_checked_all_at_once() -> None:
    with pytest.raises(RecipeError) as caught:
        parse_weak_label(
            {"method": "gazetteer", "gazetteer": "g.tsv", "columns": "surface,conzept", "min_share": 2, "price_in": 1}
        )
    assert len(caught.value.problems) == 3
    assert "did you mean 'concept'" in str(caught.value)
    assert "options of gazetteer" in str(caught.value)
    with pytest.raises(RecipeError, match="no way 'gazeteer'; did you mean 'gazetteer'"):
        parse_weak_label({"method": "gazeteer"})
    with pytest.raises(RecipeError, match="give both price_in and price_out"):
        parse_weak_label({"method": "chat", "base_url": "http://x/v1", "model": "m", "price_in": 1})
    for columns in ("surface", "surface,surface,concept", ""):
        with pytest.raises(RecipeError, match="columns"):
            parse_weak_label({"method": "gazetteer", "gazetteer": "g.tsv", "columns": columns})


@pytest.mark.parametrize(
    "url",
    [
        "ftp://x/v1",
        "file:///etc/passwd",
        "x",
        "http://",
        "http://u:p@x/v1",
        "http://x/v1?k=1",
        "http://x/ v1",
        "http://[x",
    ],
)
def test_urls(url: str) -> None:
    with pytest.raises(RecipeError, match="base_url") as caught:
        parse_weak_label({"method": "chat", "base_url": url, "model": "m"})
    assert len(caught.value.problems) == 1


def test_names_of_labels() -> None:
    raw = {"method": "teacher", "teacher": "x", "names": ["PER=person", "MISC="]}
    config = parse_weak_label(raw)
    assert isinstance(config, TeacherConfig)
    assert config.names == {"PER": "person", "MISC": ""}
    with pytest.raises(RecipeError, match="'PER' is no LABEL=concept"):
        parse_weak_label(raw | {"names": ["PER"]})


def test_none_counts_as_not_given() -> None:
    config = parse_weak_label({"method": "chat", "base_url": "http://x/v1/", "model": "m", "cache": None, "name": None})
    assert config == METHODS["chat"](base_url="http://x/v1", model="m")  # type: ignore[call-arg]
    assert isinstance(config, WeakLabelConfig)
