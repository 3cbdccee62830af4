"""The gate: weights that cost nothing pass, and what spoils a task is refused, by the score of what is predicted."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tiny_models
from trunkline.bundle.files import open_bundle
from trunkline.data.load import load_examples
from trunkline.encoder.bundle_files import Loaded, save_bundle
from trunkline.encoder.storage import backbone_hash
from trunkline.engine.base import Predictor
from trunkline.engine.onnx import OnnxEngine
from trunkline.errors import TrunklineError
from trunkline.export.bundle import ExportOptions, Source, export_bundle, load_source, make_graphs
from trunkline.export.parity import QualityError, quality_gate, task_line
from trunkline.export.weights import PLANS, Plan, calibrate, quantised, take_weights
from trunkline.model import load

COARSE = Plan(alpha=0.0, per_token=())
"""Without anything against outliers."""

OPTIONS = ExportOptions(texts=tuple(tiny_models.SENTENCES))


@pytest.fixture
def examples(tmp_path: Path) -> list[Any]:
    path = tiny_models.write_jsonl(tmp_path / "ner.jsonl", tiny_models.ner_rows(90))
    return load_examples(path, "ner")[1]


def fitted(start: Loaded, folder: Path, examples: list[Any]) -> Source:
    """A bundle with a task that was fitted on the first 50 examples."""
    save_bundle(dataclasses.replace(start, backbone=backbone_hash(start.encoder)), folder)
    model = load(folder)
    model.fit("names", examples[:50])
    model.save(folder)
    return load_source(folder, OPTIONS)


def rounded(source: Source, plan: Plan) -> Predictor:
    """The tasks on graphs of this plan."""
    loras = [adapter.lora for adapter in source.adapters.values() if adapter.lora is not None]
    calibration = calibrate(source.encoder, source.tokenizer, source.texts, loras, moments=True)
    graphs = make_graphs(source, OPTIONS, quantised(take_weights(source.encoder), plan, calibration))
    return source.predictor(OnnxEngine(graphs, source.manifest.shapes, source.encoder.config.pad_id))


def with_outlier(start: Loaded, layer: int) -> Loaded:
    """One unit of a feed-forward block a thousand times as large, and read a thousand times less."""
    with torch.no_grad():
        block = start.encoder.layers[layer]
        block.up.weight[5] = 0
        block.up.bias[5] = 1000
        block.down.bias -= block.down.weight[:, 5] * 0.001 * 1000
        block.down.weight[:, 5] *= 0.001
    return start


def test_weights_that_cost_nothing_pass(tiny: Loaded, examples: list[Any], tmp_path: Path) -> None:
    source = fitted(tiny, tmp_path / "bundle", examples)
    report = quality_gate(source.predictor(), rounded(source, PLANS["int8"]), {"names": examples[50:]}, 3.0)
    task = report["tasks"]["names"]
    assert task["float32"] > 0.7 and abs(task["float32"] - task["rounded"]) <= 0.03
    assert task["examples"] == 40 and task["agreement"] > 0.9
    assert "names: f1" in task_line("names", task)


def test_the_scores_are_those_that_evaluation_prints(tiny: Loaded, examples: list[Any], tmp_path: Path) -> None:
    fitted(tiny, tmp_path / "bundle", examples)
    options = dataclasses.replace(OPTIONS, weights="int8", examples={"names": examples[50:]}, max_drop=50.0)
    report = export_bundle(tmp_path / "bundle", tmp_path / "out", options)
    task = report["gate"]["tasks"]["names"]
    for folder, score in ((tmp_path / "bundle", task["float32"]), (tmp_path / "out", task["rounded"])):
        assert load(folder).evaluate("names", examples[50:]).scores[task["metric"]] == score
    assert open_bundle(tmp_path / "out").manifest.weights["gate"] == report["gate"]


def test_float32_graphs_are_scored_like_torch(tiny: Loaded, examples: list[Any], tmp_path: Path) -> None:
    source = fitted(tiny, tmp_path / "bundle", examples)
    after = rounded(source, PLANS["float32"])
    report = quality_gate(source.predictor(), after, {"names": examples[50:]}, 0.0)
    task = report["tasks"]["names"]
    assert task["float32"] == task["rounded"] and task["agreement"] == 1


def test_what_spoils_a_task_is_refused_and_smoothing_mends_it(
    tiny: Loaded, examples: list[Any], tmp_path: Path
) -> None:
    source = fitted(with_outlier(tiny, 2), tmp_path / "bundle", examples)
    judged = {"names": examples[50:]}
    with pytest.raises(QualityError, match=r"1 of 1 tasks lose too much: names: f1.*at most 5 points") as caught:
        quality_gate(source.predictor(), rounded(source, COARSE), judged, 5.0)
    lost = re.search(r"\((-[0-9.]+) points", str(caught.value))
    assert lost is not None and float(lost[1]) < -5.0
    assert "One example of" not in str(caught.value)
    quality_gate(source.predictor(), rounded(source, PLANS["int8"]), judged, 5.0)


def test_a_gate_on_few_examples_says_what_one_of_them_weighs(tiny: Loaded, examples: list[Any], tmp_path: Path) -> None:
    source = fitted(with_outlier(tiny, 2), tmp_path / "bundle", examples)
    with pytest.raises(QualityError, match=r"One example of 10 is 10\.0 points"):
        quality_gate(source.predictor(), rounded(source, COARSE), {"names": examples[50:60]}, 0.5)


def test_scores_that_are_no_numbers_are_refused(
    tiny: Loaded, examples: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = fitted(tiny, tmp_path / "bundle", examples)
    from trunkline.tasks import FAMILIES

    family = FAMILIES["ner"]
    monkeypatch.setattr(type(family), "score", lambda *parts: {family.main_score: np.nan})
    with pytest.raises(QualityError, match="lose too much"):
        quality_gate(source.predictor(), source.predictor(), {"names": examples[50:]}, 100.0)


def test_a_task_without_examples_is_no_task_that_passed(tiny: Loaded, examples: list[Any], tmp_path: Path) -> None:
    source = fitted(tiny, tmp_path / "bundle", examples)
    with pytest.raises(TrunklineError, match="names has no examples"):
        quality_gate(source.predictor(), source.predictor(), {"names": []}, 1.0)
