"""The gate: a plan that costs nothing passes, one that spoils a task is refused, with the layer and the way out."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from trunkline.adapt.fit import TaskData, adapt
from trunkline.export.quantise.measure import Check, graph_features, plain, reference
from trunkline.export.quantise.simulate import quantised_encoder

import tiny_models
from trunkline.config import AdapterSection, AdaptSection
from trunkline.data.load import load_examples
from trunkline.encoder.bundle_files import Loaded
from trunkline.engine.session import open_session
from trunkline.errors import TrunklineError
from trunkline.export.graph import branch_graph, trunk_graph
from trunkline.export.quantise.gate import GateOptions, QualityError, _proposal, quality_gate
from trunkline.export.quantise.plan import Plan
from trunkline.export.quantise.smooth import Calibration, calibrate
from trunkline.export.weights import take_weights
from trunkline.tasks import get_family
from trunkline.text.examples import NerExample, TextExample
from trunkline_lab import fitting

COARSE = Plan(alpha=0.0, per_token=())
"""Without anything against outliers."""


@pytest.fixture
def examples(tmp_path) -> list[NerExample]:
    path = tiny_models.write_jsonl(tmp_path / "ner.jsonl", tiny_models.ner_rows(90))
    return [example for example in load_examples(path, "ner")[1] if isinstance(example, NerExample)]


def fitted(start: Loaded, examples, mode: str = "head") -> Check:
    section = AdaptSection(
        mode=mode, penalties=(0.1,), epochs=2, precision="fp32", adapter=AdapterSection(rank=2, alpha=4.0)
    )
    adapter = adapt(TaskData("names", "ner", examples[:50], examples[50:]), start, section).adapter
    return Check("names", adapter, examples[50:])


def seen(start: Loaded) -> Calibration:
    return calibrate(start.encoder, start.tokenizer, tiny_models.SENTENCES)


def with_outlier(start: Loaded, layer: int = 3) -> Loaded:
    """One unit of a feed-forward block a thousand times as large, and read a thousand times less."""
    with torch.no_grad():
        block = start.encoder.layers[layer]
        block.up.weight[5] = 0
        block.up.bias[5] = 1000
        block.down.bias -= block.down.weight[:, 5] * 0.001 * 1000
        block.down.weight[:, 5] *= 0.001
    return start


def test_a_plan_that_costs_nothing_passes(tiny: Loaded, examples) -> None:
    lines: list[str] = []
    report = quality_gate(
        tiny, [fitted(tiny, examples)], Plan(), seen(tiny), GateOptions(allowed=3.0), say=lines.append
    )
    (task,) = report.tasks
    assert task.before > 0.7 and abs(task.drop) <= 3.0 and report.failed == [] and report.drop == task.drop
    assert task.examples == 40 and task.agreement > 0.9 and 0.99 < task.cosine < 1
    assert lines == [str(task)] and "names: f1" in lines[0]


def test_float32_graphs_are_scored_like_torch(tiny: Loaded, examples) -> None:
    check = fitted(tiny, examples, "lora")
    report = quality_gate(tiny, [check], Plan("float32", "float32"), None, GateOptions(allowed=0.0))
    assert report.tasks[0].before == report.tasks[0].after == reference(tiny, check).score
    assert report.tasks[0].agreement == 1 and report.tasks[0].cosine > 0.99999


def test_a_plan_that_spoils_a_task_is_refused_with_the_layer_and_a_plan_that_passes(tiny: Loaded, examples) -> None:
    start = with_outlier(tiny)
    check, calibration = fitted(start, examples), seen(start)
    with pytest.raises(QualityError, match=r"1 of 1 tasks lose too much.*layers\.3\.down") as caught:
        quality_gate(start, [check], COARSE, calibration, GateOptions(allowed=5.0, texts=8))
    error = caught.value
    assert error.costs[0][0] == "layers.3.down" and error.costs[0][1] > 0.5
    assert error.report.drop > 5.0
    assert error.proposal is not None
    assert dict(error.proposal.layers) == {"layers.3.down": "float32"}
    assert "Keep layers.3.down in float32" in str(error)
    # The proposal passes, and smoothing alone mends it as well.
    quality_gate(start, [check], error.proposal, calibration, GateOptions(allowed=5.0))
    quality_gate(start, [check], dataclasses.replace(COARSE, alpha=0.8), calibration, GateOptions(allowed=5.0))


@pytest.mark.parametrize(
    ("passing", "proposed"),
    [
        ({"b": "int8"}, {"b": "int8"}),
        ({"b": "float32"}, {"b": "float32"}),
        ({"a": "int8", "b": "int8", "c": "int8"}, {"a": "int8", "b": "int8", "c": "int8", "d": "int8"}),
        ({"e": "int8"}, None),
    ],
)
def test_four_bits_become_eight_before_they_become_float32(passing: dict[str, str], proposed) -> None:
    class Trial:
        """Passes plans with these layers at least."""

        def report(self, plan: Plan, *rest: object) -> SimpleNamespace:
            return SimpleNamespace(failed=[] if passing.items() <= dict(plan.layers).items() else ["task"])

    plan = Plan("int4", "int4")
    found = _proposal(Trial(), [], [], plan, ["b", "a", "c", "d", "e"], GateOptions(most=4))  # type: ignore[arg-type]
    assert (dict(found.layers) if found else None) == proposed


def test_without_a_plan_that_passes_there_is_no_proposal(tiny: Loaded, examples) -> None:
    start = with_outlier(tiny)
    with pytest.raises(QualityError, match="allow a larger drop") as caught:
        quality_gate(start, [fitted(start, examples)], COARSE, seen(start), GateOptions(allowed=5.0, texts=4, most=0))
    assert caught.value.proposal is None
    assert "One example of" not in str(caught.value)


def test_a_gate_on_few_examples_says_what_one_of_them_weighs(tiny: Loaded, examples) -> None:
    start = with_outlier(tiny, layer=2)
    check = dataclasses.replace(fitted(start, examples), examples=examples[50:60])
    with pytest.raises(QualityError, match=r"One example of 10 is 10\.0 points"):
        quality_gate(start, [check], COARSE, seen(start), GateOptions(allowed=0.5, texts=4, most=0))


def test_a_task_adapted_on_the_rounded_backbone_is_compared_with_the_one_in_float32(tiny: Loaded, examples) -> None:
    start = with_outlier(tiny)
    calibration = seen(start)
    rounded = quantised_encoder(start, COARSE, calibration)
    check = fitted(start, examples)
    absorbed = dataclasses.replace(check, deployed=fitted(rounded, examples).adapter)
    assert absorbed.deployed is not None and absorbed.deployed.backbone == check.adapter.backbone
    options = GateOptions(allowed=100.0)
    drops = [quality_gate(start, [c], COARSE, calibration, options).drop for c in (check, absorbed)]
    assert drops[1] < drops[0] / 2


def test_features_of_windows_are_those_of_torch(tiny: Loaded) -> None:
    text = " ".join([*tiny_models.SENTENCES] * 5)
    examples = [TextExample(text, "a"), TextExample("the train", "b")]
    trunk, branch = (open_session(make(take_weights(tiny.encoder))) for make in (trunk_graph, branch_graph))
    for name in ("ner", "classification"):
        family = get_family(name)
        units = fitting.example_units(family, examples, tiny.tokenizer)
        assert len(units[0].sizes) > 1
        wanted = fitting.example_features(family, examples, tiny.encoder, tiny.tokenizer)
        for x, y in zip(wanted, graph_features(trunk, branch, units, {}), strict=True):
            np.testing.assert_allclose(x, y, atol=2e-5)


def test_scores_are_no_part_of_a_prediction() -> None:
    assert plain({"label": "a", "score": 0.5, "probabilities": {"a": 0.5}}) == {"label": "a"}
    assert plain([{"start": 1, "score": 0.2}]) == [{"start": 1}]


def test_nothing_to_judge_by_is_refused(tiny: Loaded, examples) -> None:
    check = fitted(tiny, examples)
    with pytest.raises(TrunklineError, match="no tasks"):
        quality_gate(tiny, [], Plan(), seen(tiny))
    with pytest.raises(TrunklineError, match="no examples"):
        quality_gate(tiny, [dataclasses.replace(check, examples=())], Plan(), seen(tiny))
    with pytest.raises(TrunklineError, match="no predictions"):
        adapter = dataclasses.replace(check.adapter, head=None)
        quality_gate(tiny, [dataclasses.replace(check, adapter=adapter)], Plan(), seen(tiny))
    with pytest.raises(TrunklineError, match="a gate with"):
        GateOptions(allowed=-1.0)
    with pytest.raises(TrunklineError, match="a gate with"):
        GateOptions(allowed=float("nan"))
