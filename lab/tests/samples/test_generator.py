"""Tests of the seeded sample generator and of the files that ship with the package."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from trunkline.samples import folder
from trunkline_lab.samples.generator import concepts, generate_pairs, generate_sentences, write_sample
from trunkline_lab.samples.shapes import Grammar, load_grammar

FILES = ("sentences.jsonl", "pairs.jsonl", "concepts.json")
SIZE_LIMIT = 3_000_000


@pytest.fixture(scope="module")
def grammar() -> Grammar:
    return load_grammar()


@pytest.fixture(scope="module")
def sentences() -> list[dict]:
    return list(generate_sentences(7, 2000))


@pytest.fixture(scope="module")
def pairs() -> list[dict[str, str]]:
    return list(generate_pairs(7, 2000))


def write_grammar(path: Path, sentence: str, values: str = "[Rome, Bath]") -> Path:
    (path / "concepts.yaml").write_text(f"- name: city\n  description: A city.\n  values: {values}\n", encoding="utf-8")
    (path / "sentences.yaml").write_text(f"mail: |\n  {sentence}\n", encoding="utf-8")
    return path


def test_grammar_is_large_enough(grammar: Grammar) -> None:
    assert len(grammar.concepts) >= 95
    assert len({shape.text for shape in grammar.sentences}) == len(grammar.sentences) >= 330
    assert len(grammar.situations) >= 60
    assert all(len(item.left) >= 4 and len(item.right) >= 4 for item in grammar.situations)


def test_every_concept_has_twenty_values_or_a_pattern(grammar: Grammar) -> None:
    for concept in grammar.concepts.values():
        assert concept.patterns or 20 <= len(set(concept.values)) <= 80, concept.name
        assert len(set(concept.values)) == len(concept.values), concept.name
        assert concept.description.endswith("."), concept.name


def test_every_concept_is_in_three_shapes(grammar: Grammar) -> None:
    uses = Counter(name for shape in grammar.sentences for name in set(shape.slots))
    assert [name for name in grammar.concepts if uses[name] < 3] == []


def test_offsets_match_surfaces(sentences: list[dict]) -> None:
    known = concepts()
    for item in sentences:
        end = 0
        for entity in item["entities"]:
            assert entity["label"] in known
            assert end <= entity["start"] < entity["end"] <= len(item["text"])
            surface = item["text"][entity["start"] : entity["end"]]
            assert surface == surface.strip() != ""
            end = entity["end"]


def test_surfaces_come_from_the_word_lists(grammar: Grammar, sentences: list[dict]) -> None:
    for item in sentences:
        for entity in item["entities"]:
            concept = grammar.concepts[entity["label"]]
            if concept.patterns or concept.groups:
                continue
            surface = item["text"][entity["start"] : entity["end"]].lower()
            values = {value.lower() for value in concept.values}
            # An article of the value is dropped where the shape already has one.
            bare = {value.split(" ", 1)[1] for value in values if value.startswith(("the ", "a ", "an "))}
            assert surface in values | bare, (concept.name, surface)


def test_texts_are_clean(sentences: list[dict], pairs: list[dict[str, str]]) -> None:
    texts = [item["text"] for item in sentences] + [pair[side] for pair in pairs for side in ("left", "right")]
    for text in texts:
        assert text == text.strip() and "  " not in text and "\n" not in text
        assert not set("{}|") & set(text), text
        assert " a a" not in text and " the the " not in text.lower(), text


def test_no_duplicates(sentences: list[dict], pairs: list[dict[str, str]]) -> None:
    for texts in (
        [item["text"] for item in sentences],
        *([pair[side] for pair in pairs] for side in ("left", "right")),
    ):
        assert len({text.lower().rstrip(".!?") for text in texts}) == len(texts)


def test_shapes_are_used_about_equally(grammar: Grammar, pairs: list[dict[str, str]]) -> None:
    kinds = Counter(pair["group"] for pair in pairs)
    assert set(kinds) == {item.name for item in grammar.situations}
    assert max(kinds.values()) <= 2 * min(kinds.values())
    skeletons = {_skeleton(item) for item in generate_sentences(3, len(grammar.sentences))}
    assert len(skeletons) == len(grammar.sentences)


def _skeleton(item: dict) -> str:
    text = item["text"]
    for entity in reversed(item["entities"]):
        text = text[: entity["start"]] + "{" + entity["label"] + "}" + text[entity["end"] :]
    return text.lower().rstrip(".!?")


def test_couples_share_a_slot(grammar: Grammar) -> None:
    couples = [couple for item in grammar.situations for couple in item.couples]
    assert len(couples) >= 4 * len(grammar.situations)
    assert all(left.bound & right.bound for left, right in couples)


def test_pair_without_a_shared_slot_is_refused(tmp_path: Path) -> None:
    write_grammar(tmp_path, "We met in {city}.")
    (tmp_path / "pairs.yaml").write_text(
        "- name: trip\n  left: |\n    Off to {city}!\n  right: |\n    Have fun.\n", encoding="utf-8"
    )
    with pytest.raises(ValueError, match=r"pairs\.yaml: in 'trip' the shape 'Have fun\.' shares no slot"):
        load_grammar(tmp_path)


def test_noise_is_small(sentences: list[dict]) -> None:
    lower = sum(item["text"] == item["text"].lower() for item in sentences) / len(sentences)
    assert 0.05 < lower < 0.2


@pytest.mark.parametrize("generate", [generate_sentences, generate_pairs])
def test_seed_decides_the_output(generate: Callable[[int, int], Iterator[dict]]) -> None:
    assert list(generate(1, 300)) == list(generate(1, 300))
    assert list(generate(1, 300)) != list(generate(2, 300))


@pytest.mark.parametrize("generate", [generate_sentences, generate_pairs])
def test_nothing_asked_gives_nothing(generate: Callable[[int, int], Iterator[dict]]) -> None:
    assert list(generate(1, 0)) == []


def test_shipped_files_equal_a_fresh_generation(tmp_path: Path) -> None:
    write_sample(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FILES)
    for name in FILES:
        assert (tmp_path / name).read_bytes() == (folder() / "prefinetune" / name).read_bytes(), name


def test_shipped_files_hold_every_concept_and_stay_small() -> None:
    shipped = folder() / "prefinetune"
    lines = (shipped / "sentences.jsonl").read_text(encoding="utf-8").splitlines()
    labels = {entity["label"] for line in lines for entity in json.loads(line)["entities"]}
    assert labels == set(concepts()) == set(json.loads((shipped / "concepts.json").read_text(encoding="utf-8")))
    assert sum((shipped / name).stat().st_size for name in FILES) <= SIZE_LIMIT


def test_unknown_concept_is_named_with_file_and_shape(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"sentences\.yaml.*We met in \{town\}.*unknown concept 'town'"):
        load_grammar(write_grammar(tmp_path, "We met in {town}."))


def test_unknown_group_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown group city/old"):
        load_grammar(write_grammar(tmp_path, "We met in {city/old}."))


def test_value_that_yaml_reads_as_another_type_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not text"):
        load_grammar(write_grammar(tmp_path, "We met in {city}.", "[Rome, no]"))


def test_too_many_sentences_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = load_grammar(write_grammar(tmp_path, "We met in {city}."))
    monkeypatch.setattr("trunkline_lab.samples.generator.load_grammar", lambda: small)
    assert len(list(generate_sentences(1, 2))) == 2
    with pytest.raises(ValueError, match="only 2 different sentences"):
        list(generate_sentences(1, 3))


def test_failed_write_leaves_the_old_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_sample(tmp_path, n_sentences=5, n_pairs=5)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def fail(seed: int, n: int) -> Iterator[dict]:
        yield {"text": "half a file", "entities": []}
        raise ValueError("stopped")

    monkeypatch.setattr("trunkline_lab.samples.generator.generate_sentences", fail)
    with pytest.raises(ValueError, match="stopped"):
        write_sample(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
