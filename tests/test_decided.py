"""Decisions from the first door to the last: fit, task file, predict, evaluate, commands."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import deployed
import tiny_models
import trunkline
from trunkline.cli import app
from trunkline.encoder.bundle_files import Loaded
from trunkline.errors import TrunklineError
from trunkline.model import Model

KINDS = {"place": tiny_models.PLACES, "name": tiny_models.NAMES, "org": tiny_models.ORGS}
ASKED = {"top_k": 1, "min_score": 0.6, "coverage": 0.8}


def texts_of(kinds: str, count: int, seed: int = 0) -> tuple[list[str], list[str]]:
    rng = random.Random(seed)
    drawn = [rng.choice(kinds.split()) for _ in range(count)]
    return [" ".join(rng.choices(KINDS[kind], k=2)) for kind in drawn], drawn


@pytest.fixture
def folder(tiny: Loaded, tmp_path: Path) -> Path:
    return deployed.deploy(tiny, tmp_path / "bundle")


@pytest.fixture
def model(folder: Path) -> Model:
    return trunkline.load(folder)


def test_what_is_asked_of_predict_is_done_and_nothing_else_changes(model: Model, tmp_path: Path) -> None:
    model.fit("kind", *texts_of("place name", 60))
    rows = tiny_models.ner_rows(40, 1)
    model.fit("names", [row["text"] for row in rows], [[tuple(one) for one in row["entities"]] for row in rows])
    fresh = [*texts_of("place name", 40, 1)[0], *(row["text"] for row in tiny_models.ner_rows(20, 2))]
    plain, asked = model.predict(fresh), model.predict(fresh, **ASKED)
    assert {row["kind"]["label"] for row in plain} == {"place", "name"}
    for before, after in zip(plain, asked, strict=True):
        kind, entities = before["kind"], before["names"]
        said = kind["label"] if kind["score"] >= 0.6 else None
        assert after["kind"] | {"label": said, "score": kind["score"]} == after["kind"]
        assert list(after["kind"]["probabilities"].items()) == list(kind["probabilities"].items())[:1]
        assert after["kind"]["set"] == list(kind["probabilities"])[: len(after["kind"]["set"])]
        assert after["names"] == [entity for entity in entities if entity["score"] >= 0.6]
    assert any(row["kind"]["label"] is None for row in asked)
    assert sum(len(row["names"]) for row in asked) < sum(len(row["names"]) for row in plain)
    opened = trunkline.load(model.save(tmp_path / "saved"))
    assert opened.predict(fresh, **ASKED) == asked
    assert list(opened.predict_iter(iter(fresh), ["kind"], batch=7, coverage=0.8)) == [
        {"kind": row["kind"]} for row in opened.predict(fresh, coverage=0.8)
    ]


def test_a_threshold_of_a_task_is_that_of_all_that_predicts(model: Model, folder: Path) -> None:
    texts, labels = texts_of("place name", 60)
    report = model.fit("kind", texts, labels, precision=0.99)
    chosen = report.cross_validation["decisions"]
    assert not chosen["promised"]
    assert chosen["answers"] < 230 == chosen["needed"]
    assert any("a precision of 99.0% cannot be promised" in warning for warning in report.warnings)
    fresh, gold = texts_of("place name", 200, 1)
    found = [row["kind"] for row in model.predict(fresh)]
    assert [one["label"] is None for one in found] == [one["score"] < chosen["min_score"] for one in found]
    assert model.predict_mixed([(text, "kind") for text in fresh]) == found
    right = sum(one["label"] == label for one, label in zip(found, gold, strict=True))
    assert model.evaluate("kind", fresh, gold).scores["accuracy"] == right / len(fresh)
    model.save(folder)
    assert [row["kind"] for row in trunkline.load(folder).predict(fresh)] == found
    assert all(row["kind"]["label"] for row in model.predict(fresh, min_score={"kind": 0}))
    easier = model.fit("easier", texts, labels, precision=0.7).cross_validation["decisions"]
    assert easier["promised"]
    assert easier["at_least"] >= 0.7
    assert easier["answers"] >= chosen["answers"]


def test_texts_of_none_of_the_labels_are_learnt_from_unlabelled_ones(model: Model, folder: Path) -> None:
    texts, labels = texts_of("place org", 100)
    unlabelled = texts_of("place name org", 300, 1)[0]
    report = model.fit("kind", texts, labels, unlabelled=iter(unlabelled))
    taken = report.cross_validation["decisions"]["taken"]
    assert report.labels == ["org", "place"]
    assert report.examples["train"] == len(texts)
    assert taken
    assert any(f"{taken} of 300 unlabelled texts are learnt as 'none of these'" in one for one in report.warnings)
    fresh, gold = texts_of("place name org", 200, 2)
    found = [row["kind"] for row in model.predict(fresh, coverage=0.9)]
    none = [one["label"] is None for one in found]
    hits = sum(own and kind == "name" for own, kind in zip(none, gold, strict=True))
    assert hits / max(sum(none), 1) > 0.9
    assert hits / gold.count("name") > 0.5
    assert not any("none of these" in one["set"] for one in found)
    plain = model.fit("plain", texts, labels, other=0.1).cross_validation["decisions"]
    assert plain["other"] == 0.1
    assert 0.5 < plain["min_score"] < 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"precision": 95}, "precision=95. Expected a number from 0 to 1"),
        ({"other": -0.1}, "other=-0.1"),
        ({"unlabelled": "a text"}, "text"),
    ],
)
def test_what_cannot_be_decided_is_refused(model: Model, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(TrunklineError, match=message):
        model.fit("kind", *texts_of("place name", 20), **settings)
    rows = tiny_models.ner_rows(20, 1)
    with pytest.raises(TrunklineError, match=r"unlabelled for ner\. Expected a task of classification"):
        model.fit("n", [row["text"] for row in rows], [[tuple(e) for e in row["entities"]] for row in rows], other=0.1)
    with pytest.raises(TrunklineError, match="the label 'none of these'"):
        model.fit("kind", ["ann", "rome"] * 4, ["a", "none of these"] * 4, unlabelled=["x"])


def test_the_commands_say_the_same(folder: Path, tmp_path: Path) -> None:
    texts, labels = texts_of("place org", 100)
    train, more = tmp_path / "train.csv", tmp_path / "more.txt"
    train.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in zip(texts, labels, strict=True)))
    more.write_text("\n".join(texts_of("place name org", 300, 1)[0]))
    run = CliRunner().invoke
    decided = ["--precision", "0.7", "--unlabelled", str(more)]
    done = run(app, ["fit", "kind", "--train", str(train), "--model", str(folder), *decided, "--json"])
    report = json.loads(done.stdout)
    assert report["cross_validation"]["decisions"]["precision"] == 0.7
    assert report["cross_validation"]["decisions"]["taken"]
    fresh = texts_of("place name org", 8, 3)[0]
    options = ["--top-k", "1", "--coverage", "0.8", "--min-score", "kind=0.6"]
    lines = run(app, ["predict", str(folder), *fresh, *options, "--json"]).stdout.splitlines()
    expected = trunkline.load(folder).predict(fresh, top_k=1, coverage=0.8, min_score={"kind": 0.6})
    assert [json.loads(line)["tasks"] for line in lines] == expected
    shown = run(app, ["predict", str(folder), *fresh, "--min-score", "1", "--coverage", "0.8"]).stdout
    assert shown.count("none of these (") == len(fresh)
    wrong = run(app, ["predict", str(folder), *fresh, "--min-score", "kind:1"])
    assert "Expected a number, or TASK=NUMBER" in str(wrong.exception)
