"""Any number of labels a text, from the fit to the file: one branch with classification, both engines, LoRA, export."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import deployed
import tiny_models
import trunkline
from trunkline.bundle.files import open_bundle
from trunkline.cli import tasks as commands
from trunkline.encoder.bundle_files import load_any
from trunkline.engine import onnx
from trunkline.errors import MismatchError, TrunklineError
from trunkline.export.bundle import ExportOptions, export_bundle
from trunkline.model import Model
from trunkline.ui import print_predictions

KINDS = {"place": tiny_models.PLACES, "name": tiny_models.NAMES, "org": tiny_models.ORGS}
PLAIN = [word for word in tiny_models.WORDS if not any(word in words for words in KINDS.values())]


def labelled(count: int, seed: int = 0) -> tuple[list[str], list[list[str]]]:
    """Texts with a word of each of some kinds, of none in a quarter, and the kinds."""
    rng = random.Random(seed)
    texts, labels = [], []
    for _ in range(count):
        own = [kind for kind in KINDS if rng.random() < 0.37]
        words = [rng.choice(KINDS[kind]) for kind in own] + rng.choices(PLAIN, k=1)
        rng.shuffle(words)
        texts.append(" ".join(words))
        labels.append(own)
    return texts, labels


@pytest.fixture(scope="module")
def _bundle(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Callable[[str], Path]) -> Path:
    loaded = deployed.whole(load_any(str(tiny_folder("bert")), fork=2, max_length=40))
    return deployed.with_both(loaded, tmp_path_factory.mktemp("several"))


@pytest.fixture
def model(_bundle: Path) -> Model:
    return trunkline.load(_bundle, engine="onnx")


def test_what_is_fitted_is_what_predicts_and_what_is_saved(model: Model, tmp_path: Path) -> None:
    report = model.fit("kinds", *labelled(120), test=labelled(60, 1))
    assert (report.family, report.labels) == ("multilabel", ["name", "org", "place"])
    assert list(report.test) == ["micro_f1", "macro_f1", "exact_match", "average_precision"]
    assert report.test["micro_f1"] > 0.6
    found = model.evaluate("kinds", *labelled(60, 1))
    assert found.scores == report.test
    assert {name: row["support"] for name, row in found.labels.items()} == {
        name: sum(name in own for own in labelled(60, 1)[1]) for name in KINDS
    }
    assert found.n_wrong == round(60 * (1 - found.scores["exact_match"]))
    assert set(found.confusion) <= {"", *KINDS}
    texts = labelled(20, 2)[0]
    again = trunkline.load(model.save(tmp_path / "saved"))
    assert again.predict(texts) == model.predict(texts)
    task = open_bundle(tmp_path / "saved").tasks["kinds"]
    assert set(task.decisions["thresholds"]) == set(KINDS)
    assert json.loads(json.dumps(report.to_dict()))["family"] == "multilabel"


def test_labels_are_said_from_the_threshold_on_that_the_file_has(model: Model) -> None:
    texts, labels = labelled(120)
    model.fit("kinds", texts, labels)
    thresholds = model._predictor.tasks["kinds"].decisions["thresholds"]
    said = [row["kinds"] for row in model.predict(texts)]
    for one in said:
        chances = one["probabilities"]
        # Six digits are shown.
        assert {n for n in KINDS if chances[n] > thresholds[n] + 1e-6} <= set(one["labels"])
        assert set(one["labels"]) <= {n for n in KINDS if chances[n] > thresholds[n] - 1e-6}
        assert one["labels"] == [name for name in chances if name in one["labels"]]
    assert any(not one["labels"] for one in said)
    assert any(len(one["labels"]) > 1 for one in said)
    assert all(abs(sum(one["probabilities"].values()) - 1) > 1e-3 for one in said[:5])


def test_both_engines_and_the_bank_say_the_same(_bundle: Path, tmp_path: Path) -> None:
    theirs = trunkline.load(_bundle, engine="torch")
    theirs.fit("kinds", *labelled(80))
    theirs.fit("kinds.tuned", *labelled(80), mode="lora", steps=2, rank=2)
    theirs.save(tmp_path / "both")
    ours, texts = trunkline.load(tmp_path / "both", engine="onnx"), [*labelled(40, 3)[0], *deployed.TEXTS]
    names = ["kinds", "kinds.tuned"]
    expected, found = theirs.predict(texts, names), ours.predict(texts, names)
    mixed = ours.predict_mixed([(text, name) for name in names for text in texts])
    for number, name in enumerate(names):
        rows = zip(expected, found, mixed[number * len(texts) :], strict=False)
        for wanted, *others in ((one[name], two[name], three) for one, two, three in rows):
            for other in others:
                assert other["labels"] == wanted["labels"]
                assert other["probabilities"] == pytest.approx(wanted["probabilities"], abs=1e-4)


def test_it_shares_the_branch_of_classification(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    model.fit("kinds", *labelled(60))
    calls: list[str] = []
    run = onnx.run_session
    monkeypatch.setattr(onnx, "run_session", lambda s, output, given: calls.append(output) or run(s, output, given))
    together = model.predict(["ann met bob in paris"], ["kinds", "tone", "topic"])[0]
    assert calls == ["hidden", "logits"]
    assert together["kinds"] == model.predict(["ann met bob in paris"], ["kinds"])[0]["kinds"]


def test_it_sits_on_the_primary_adapter_of_classification(
    model: Model, tiny_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    model.fit("kinds", *labelled(60))
    model.save(tmp_path / "saved")
    opened = open_bundle(tmp_path / "saved")
    assert any(name.startswith("lora.") for name in opened.inputs("kinds"))
    bare = deployed.deploy(load_any(str(tiny_folder("bert")), fork=2, max_length=40), tmp_path / "bare")
    other = trunkline.load(bare)
    with pytest.raises(MismatchError, match="sits on the adapter classification@"):
        other.add("kinds", opened.tasks["kinds"].content)


@pytest.mark.parametrize("mode", ["lora", "auto"])
def test_updates_are_trained_by_yes_and_no(mode: str, _bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from trunkline import adapt

    monkeypatch.setattr(adapt, "supervised_contrast", None)  # not used where a text has any number of labels
    model = trunkline.load(_bundle, engine="torch")
    settings = {"rank": 4, "steps": 20, "rate": 5e-3, "targets": ("query", "value")}
    report = model.fit("kinds", *labelled(80), mode=mode, test=labelled(60, 1), **settings)
    assert report.mode in ("head", "lora") if mode == "auto" else report.mode == "lora"
    assert report.test["micro_f1"] > 0.6
    assert set(report.cross_validation["lora"]["scores"]) == set(report.test)
    assert report.test == model.evaluate("kinds", *labelled(60, 1)).scores


def test_an_export_is_judged(_bundle: Path, tmp_path: Path) -> None:
    model = trunkline.load(_bundle, engine="torch")
    model.fit("kinds", *labelled(80))
    model.save(tmp_path / "saved")
    dev = dataclasses.replace(ExportOptions(), tasks=("kinds",), texts=tuple(tiny_models.SENTENCES), weights="int8",
                              examples={"kinds": _examples(40)}, max_drop=50.0)  # fmt: skip
    report = export_bundle(tmp_path / "saved", tmp_path / "out", dev)
    row = report["gate"]["tasks"]["kinds"]
    assert row["metric"] == "micro_f1"
    assert row["rounded"] == trunkline.load(tmp_path / "out").evaluate("kinds", *labelled(40, 5)).scores["micro_f1"]


def _examples(count: int) -> list[Any]:
    from trunkline.data.inputs import examples_from

    return examples_from(*labelled(count, 5))[1]


def test_the_commands_take_a_separator(_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts, labels = labelled(60)
    rows = [f"{text},{'|'.join(own)}" for text, own in zip(texts, labels, strict=True)]
    train = tmp_path / "train.csv"
    train.write_text("\n".join(["text,label", *rows]) + "\n")
    commands.fit("kinds", str(train), model=str(_bundle), out=tmp_path / "out", label_separator="|", as_json=True)
    assert json.loads(capsys.readouterr().out)["labels"] == ["name", "org", "place"]
    commands.evaluate(str(tmp_path / "out"), "kinds", str(train), label_separator="|")
    shown = capsys.readouterr().out
    assert "exact_match" in shown and "average_precision" in shown
    with pytest.raises(TrunklineError, match=r"the label is '.*--label-separator"):
        commands.evaluate(str(tmp_path / "out"), "kinds", str(train))
    commands.predict(str(tmp_path / "out"), texts, task=["kinds"])
    assert "name (" in capsys.readouterr().out
    print_predictions([{"text": "x", "tasks": {"kinds": {"labels": [], "probabilities": {"a": 0.1}}}}])
    assert "kinds: no label" in capsys.readouterr().out
    row = {"label": None, "score": 0.4, "probabilities": {"a": 0.4, "b": 0.3}, "set": ["a", "b"]}
    print_predictions([{"text": "x", "tasks": {"one": row}}], chances=True)
    assert "one: none of these (40%); one of a, b; most probable: a (40%), b (30%)" in capsys.readouterr().out


def test_labels_count_alike_where_they_are_balanced(model: Model) -> None:
    texts, labels = labelled(100)
    rare = [[name for name in own if name != "org" or number < 20] for number, own in enumerate(labels)]
    heads = []
    for weight in (None, "balanced"):
        model.fit("kinds", texts, rare, class_weight=weight, replace=True)
        heads.append(np.mean([row["kinds"]["probabilities"]["org"] for row in model.predict(texts)]))
    assert heads[1] > heads[0]
