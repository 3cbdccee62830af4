"""The sample is honest: test parts are independent of train, dev and the pre-finetuning sample."""

import json
import re
from collections import Counter

import pytest

from tagged import spans_to_bio
from trunkline.samples import FOLDER
from trunkline.text.examples import NerExample
from trunkline_lab.data.cards import load_card

TASKS = ("sample_events", "sample_orders", "sample_intents", "sample_triage")
NAMES = {"person", "place", "merchant", "transport"}
# Months and a flower are in the test part as names on purpose; numbered places carry no name.
HOMOGRAPHS = {"april", "may", "august", "rose", "will"}


def words(text):
    return " ".join(re.findall(r"\w+", text.lower()))


def surfaces(name, split, kinds):
    return {
        example.text[span.start : span.end].lower()
        for example in load_card(name).load(split)
        for span in example.spans
        if span.label in kinds
    }


def named(found):
    return {surface for surface in found if surface not in HOMOGRAPHS and not re.search(r"\b\w?\d+$", surface)}


@pytest.mark.parametrize("name", TASKS)
def test_sizes_and_labels(name):
    parts = {split: load_card(name).load(split) for split in ("train", "dev", "test")}
    assert len(parts["train"]) >= 200
    assert len(parts["dev"]) >= 100
    assert len(parts["test"]) >= 200
    for examples in parts.values():
        if isinstance(examples[0], NerExample):
            labels = Counter(span.label for example in examples for span in example.spans)
            assert all(spans_to_bio(example)[1] == 0 for example in examples), "entities end at word borders"
        else:
            labels = Counter(example.label for example in examples)
        assert labels.keys() == load_card(name).labels.keys()
        assert min(labels.values()) >= 8


def test_no_text_occurs_twice_in_any_part():
    texts = [words(e.text) for name in TASKS for split in ("train", "dev", "test") for e in load_card(name).load(split)]
    assert len(texts) == len(set(texts))


@pytest.mark.parametrize("name", ["sample_events", "sample_orders"])
def test_names_in_test_are_new(name):
    test = named(surfaces(name, "test", NAMES))
    assert len(test) > 100
    assert not test & (surfaces(name, "train", NAMES) | surfaces(name, "dev", NAMES))


def test_pre_finetuning_sample_is_apart_from_the_test_parts():
    sentences = [json.loads(line) for line in (FOLDER / "prefinetune/sentences.jsonl").read_text("utf-8").splitlines()]
    pairs = [json.loads(line) for line in (FOLDER / "prefinetune/pairs.jsonl").read_text("utf-8").splitlines()]
    made = {words(row["text"]) for row in sentences} | {words(row[side]) for row in pairs for side in ("left", "right")}
    assert not made & {words(example.text) for name in TASKS for example in load_card(name).load("test")}
    values = {row["text"][e["start"] : e["end"]].lower() for row in sentences for e in row["entities"]}
    for name, kinds in (("sample_events", NAMES | {"event"}), ("sample_orders", NAMES | {"product"})):
        assert not named(surfaces(name, "test", kinds)) & values
