"""Cards as sources of pre-finetuning: names, views, held-out texts, and a run on them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import tiny_models
from trunkline.config import PrefinetuneRecipe, parse_recipe
from trunkline.errors import TrunklineError
from trunkline.text.examples import NerExample, PairExample, PlainExample
from trunkline_lab.data import finder as finder_module
from trunkline_lab.data.cards import load_card
from trunkline_lab.data.finder import CardFinder


def test_a_card_is_a_source_with_its_concepts_and_coverage() -> None:
    found = CardFinder().open("sample_sentences", NerExample)
    card = load_card("sample_sentences")
    assert found.card.name == card.name and found.card.licence == card.licence and found.card.coverage == "closed"
    assert list(found.examples()) == card.load("train")
    dev = CardFinder().open("sample_events@dev", NerExample)
    assert dev.card.name == "sample_events@dev" and len(list(dev.examples())) == card_count("sample_events", "dev")
    assert dev.card.concept("person") == load_card("sample_events").concept("person")
    assert found.state != dev.state


def card_count(name: str, split: str) -> int:
    return load_card(name).counts[split]


def test_all_kinds_are_plain_text_too_and_others_are_refused() -> None:
    texts = list(CardFinder().open("sample_pairs", PlainExample).examples())
    assert texts and all(isinstance(text, PlainExample) for text in texts)
    with pytest.raises(TrunklineError, match="sample_pairs yields PairExample"):
        CardFinder().open("sample_pairs", NerExample)
    with pytest.raises(TrunklineError, match=r"no split 'tset'.*train, dev, test"):
        CardFinder().open("sample_events@tset", NerExample)
    with pytest.raises(TrunklineError, match="no card 'sample_pears'; did you mean 'sample_pairs'"):
        CardFinder().open("sample_pears", PairExample)


def test_files_are_found_beside_cards(tmp_path: Path) -> None:
    path = tiny_models.write_jsonl(tmp_path / "mine.jsonl", tiny_models.pair_rows(5))
    assert len(list(CardFinder().open(str(path), PairExample).examples())) == 5


def test_a_source_is_another_one_as_another_kind_or_of_another_card() -> None:
    finder = CardFinder()
    pairs, plain = (finder.open("sample_pairs", kind).state for kind in (PairExample, PlainExample))
    assert pairs.removesuffix("PairExample") == plain.removesuffix("PlainExample") != pairs
    assert load_card("sample_pairs").fingerprint("train") in pairs


def test_held_out_are_the_parts_that_nothing_may_be_learnt_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finder_module, "tasks_here", lambda: ["sample_events"])
    found = CardFinder().held_out(["tasks"])
    owners = [owner for owner, _ in found.texts()]
    assert found.names == ["sample_events"] and set(owners) == {"sample_events@dev", "sample_events@test"}
    assert len(owners) == card_count("sample_events", "dev") + card_count("sample_events", "test")
    one = CardFinder().held_out(["sample_intents"])
    assert one.state != found.state and {owner for owner, _ in one.texts()} == {
        "sample_intents@dev",
        "sample_intents@test",
    }


def test_a_run_learns_from_cards(tiny_folder: Callable[[str], Path], tmp_path: Path) -> None:
    from trunkline.prefinetune import prefinetune

    raw = {
        "name": "cards",
        "encoder": str(tiny_folder("bert")),
        "fork": 2,
        "max_length": 32,
        "families": {
            "ner": {"sources": {"sample_sentences": {"cap": 40}}, "tokens": 64, "held_out": 4},
            "classification": {"sources": {"sample_pairs": {"cap": 40}}, "tokens": 64, "held_out": 4},
        },
        "adapter": {"rank": 2},
        "decontaminate": {"against": "sample_intents"},
        "optimizer": {"steps": 2},
        "monitor": {"every": 0},
        "precision": "fp32",
    }
    bundle = prefinetune(parse_recipe(raw, PrefinetuneRecipe, "r"), tmp_path, finder=CardFinder())
    assert (bundle / "manifest.json").is_file()
    content = json.dumps(json.loads((tmp_path / "experiment.json").read_text("utf-8")))
    assert "sample_sentences" in content
