"""Export: a bundle with weights for torch becomes one with graphs, equal to torch, and made again byte for byte."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import onnx_graphs as graphs
import tiny_deployed
import tiny_models
from trunkline.bundle.files import open_bundle
from trunkline.bundle.parts import complete
from trunkline.encoder.bundle_files import Loaded, load_bundle, lora_of
from trunkline.encoder.encoder import Encoder
from trunkline.encoder.storage import backbone_hash
from trunkline.engine.onnx import open_session
from trunkline.errors import TrunklineError
from trunkline.export import bundle as bundle_module
from trunkline.export.bundle import ExportOptions, export_bundle
from trunkline.export.parity import QualityError, Tolerance
from trunkline.model import load
from trunkline.text.examples import TextExample

TEXTS = tuple(tiny_models.SENTENCES)
FAST = ExportOptions(texts=TEXTS)
ANY = Tolerance(np.inf, np.inf, 0.5)
LAST_BIAS = "layers.3.output_norm.bias"


@pytest.fixture
def source(tiny: Loaded, tmp_path: Path) -> str:
    return str(tiny_deployed.training_bundle(tiny, tmp_path / "training"))


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def logits(folder: Path, task: str, rows: dict[str, Any], graph: str = "branch") -> Any:
    """What a bundle's graphs say of whole rows for a task, from its files alone."""
    opened = open_bundle(folder)
    inputs = opened.inputs(task)
    if graph == "branch-required":
        inputs = complete(inputs, opened.manifest.shapes, opened.manifest.encoder.hidden_size)
    hidden = open_session(opened.graphs["trunk"]).run(["hidden"], rows)[0]
    given = {"hidden": hidden, "mask": rows["mask"], "pool": graphs.mean_pool(rows["mask"]), **inputs}
    return open_session(opened.graphs[graph]).run(["logits"], given)[0]


def labelled(folder: str | Path, task: str) -> list[TextExample]:
    """Texts with the labels that torch predicts."""
    found = load(folder, engine="torch").predict(TEXTS, [task])
    return [TextExample(text, row[task]["label"]) for text, row in zip(TEXTS, found, strict=True)]


def test_a_bundle_is_whole_and_says_what_was_compared(source: str, tmp_path: Path) -> None:
    record = export_bundle(source, tmp_path / "out", dataclasses.replace(FAST, variants=("required", "bank")))
    opened = open_bundle(tmp_path / "out")
    assert record["files"] == {name: len(content) for name, content in files_of(tmp_path / "out").items()}
    assert opened.manifest.lora_targets == ("qkv", "down") and opened.manifest.checkpoint == {}
    assert set(opened.graphs) == {"trunk", "branch", "branch-required", "branch-bank"} == {"trunk", *record["parity"]}
    assert set(record["parity"]["branch"]["adapters"]) == {"(none)", "ner adapter", "own", "people", "topics"}
    assert all(part["largest_feature_difference"] < 2e-5 for part in record["parity"].values())
    assert record["parity"]["branch"]["largest_probability_difference"] > 0
    assert record["parity"]["branch-bank"]["largest_probability_difference"] is None
    assert record["bytes"] == sum(record["files"].values()) and record["gate"] is None
    assert record["parity"]["branch"]["runs"] > 0 and record["folder"] == "out"


def test_adapters_and_tasks_are_the_same_files(source: str, tmp_path: Path) -> None:
    export_bundle(source, tmp_path / "out", FAST)
    before, after = files_of(Path(source)), files_of(tmp_path / "out")
    own = {name for name in after if name.startswith(("adapters/", "tasks/"))}
    assert len(own) == 4
    assert {name: after[name] for name in own} == {name: before[name] for name in own}


@pytest.mark.parametrize("graph", ["branch", "branch-required"])
def test_the_files_alone_give_what_torch_gives(source: str, tmp_path: Path, graph: str) -> None:
    loaded = load_bundle(Path(source))
    export_bundle(source, tmp_path / "out", dataclasses.replace(FAST, variants=("required",)))
    rows = graphs.sentence_rows(loaded.tokenizer, loaded.encoder.config.pad_id)
    for name, task in loaded.tasks.items():
        lora = lora_of(task, loaded.encoder.config) if task.own_lora else loaded.primaries.get(task.family)
        states = graphs.read_states(loaded.encoder, loaded.tokenizer, deltas=lora)
        wanted = np.stack([part.mean(0) for part in states]) @ task.head.weight + task.head.bias
        assert np.abs(logits(tmp_path / "out", name, rows, graph)[:, 0] - wanted).max() < 1e-4


def test_a_model_predicts_as_before(source: str, tmp_path: Path) -> None:
    report = load(source).export(tmp_path / "out", texts=TEXTS)
    assert report["folder"] == "out"
    before, after = (load(folder).predict([*TEXTS, "a " * 100]) for folder in (source, tmp_path / "out"))
    for x, y in zip(before, after, strict=True):
        assert x["topics"]["label"] == y["topics"]["label"]
        assert x["topics"]["probabilities"] == pytest.approx(y["topics"]["probabilities"], abs=1e-4)
        for name in ("people", "own"):
            assert [e["text"] for e in x[name]] == [e["text"] for e in y[name]]


def test_the_same_source_gives_the_same_bytes(source: str, tmp_path: Path) -> None:
    for name in ("a", "b"):
        export_bundle(source, tmp_path / name, FAST)
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")


def test_graphs_that_differ_from_torch_are_not_written(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    with monkeypatch.context() as patched, pytest.raises(TrunklineError, match="the graphs differ from torch"):
        patched.setitem(bundle_module.QUANTISED_TOLERANCE, "float32", Tolerance(features=1e-12))
        export_bundle(source, out, FAST)
    original = bundle_module.branch_graph

    def other(weights: Any, *arguments: Any) -> bytes:
        bent = {**weights.tensors, LAST_BIAS: weights.tensors[LAST_BIAS] + 0.01}
        return original(dataclasses.replace(weights, tensors=bent), *arguments)

    monkeypatch.setattr(bundle_module, "branch_graph", other)
    with pytest.raises(TrunklineError, match="the graphs differ from torch"):
        export_bundle(source, out, FAST)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["training"]


def test_nothing_is_overwritten(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle_module, "load_source", None)
    for place in (Path(source), Path(source) / "manifest.json"):
        with pytest.raises(TrunklineError, match=r"Expected a new or empty folder"):
            export_bundle(source, place, FAST)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tasks": ("people", "nothing")}, "has no task nothing to export"),
        ({"examples": {"nothing": []}}, "has no task nothing to judge weights by"),
        ({"tasks": ("people",), "examples": {"topics": []}}, "has no task topics to judge weights by"),
        ({"lora_targets": ("query",)}, "lora_targets query"),
        ({"variants": ("mixed",)}, "variants mixed"),
        ({"max_drop": -1.0}, "max_drop"),
        ({"max_drop": float("nan")}, "max_drop"),
        ({"weights": "int2"}, "weights int2"),
        ({"weights": "int8"}, "int8 weights and 3 tasks without examples"),
        ({"vocabulary": 100}, "a smaller vocabulary and 3 tasks without examples"),
        ({"name": "a/b"}, "the form"),
    ],
)
def test_what_cannot_be_exported_is_said(source: str, tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(TrunklineError, match=said):
        export_bundle(source, tmp_path / "out", dataclasses.replace(FAST, **changes))
    assert not (tmp_path / "out").exists()


def test_missing_examples_are_said_before_any_work(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle_module, "bundle_encoder", None)
    with pytest.raises(TrunklineError, match="without examples to judge them by"):
        export_bundle(source, tmp_path / "out", dataclasses.replace(FAST, weights="int8"))


def test_a_plain_encoder_and_samples_for_texts(tiny_folder: Any, tmp_path: Path) -> None:
    report = export_bundle(str(tiny_folder("roberta")), tmp_path / "plain", ExportOptions())
    manifest = open_bundle(tmp_path / "plain").manifest
    assert manifest.lora_targets == ("qkv",) and not manifest.tasks
    assert manifest.licences[0].licence == "unknown"
    assert report["parity"]["branch"]["adapters"] == ["(none)"]


def test_graphs_leave_masks_out_of_attention_but_for_runtimes_that_cannot(source: str, tmp_path: Path) -> None:
    for variants, fast in (((), True), (("required",), False)):
        out = tmp_path / "-".join(("out", *variants))
        export_bundle(source, out, dataclasses.replace(FAST, variants=variants))
        for graph in open_bundle(out).graphs.values():
            assert ("If" in {node.op_type for node in onnx.load(str(graph)).graph.node}) is fast


def test_a_bundle_without_weights_for_torch_cannot_be_exported(source: str, tmp_path: Path) -> None:
    export_bundle(source, tmp_path / "out", FAST)
    with pytest.raises(TrunklineError, match="graphs for ONNX Runtime alone"):
        export_bundle(tmp_path / "out", tmp_path / "again", FAST)


@pytest.mark.parametrize("weights", ["int8", "int4"])
def test_rounded_weights_pass_the_gate_or_are_refused(
    weights: Any, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(bundle_module.QUANTISED_TOLERANCE, weights, ANY)
    examples = {"topics": labelled(source, "topics")}
    options = dataclasses.replace(FAST, weights=weights, examples=examples, max_drop=100.0)
    report = export_bundle(source, tmp_path / "out", options)
    manifest = open_bundle(tmp_path / "out").manifest
    assert manifest.weights == report["weights"] and manifest.weights["kind"] == weights
    row = manifest.weights["gate"]["tasks"]["topics"]
    assert row["float32"] == 1.0 and row["examples"] == len(TEXTS)
    assert report["calibration_tokens"] > 0
    # What the gate says of the export is what the bundle then scores.
    assert row["rounded"] == load(tmp_path / "out").evaluate("topics", examples["topics"]).scores[row["metric"]]
    types = {node.op_type for node in onnx.load(str(open_bundle(tmp_path / "out").graphs["trunk"])).graph.node}
    assert "DynamicQuantizeMatMul" in types and "Gemm" not in types
    with monkeypatch.context() as patched, pytest.raises(TrunklineError, match="cosine"):
        patched.setitem(bundle_module.QUANTISED_TOLERANCE, weights, Tolerance(np.inf, np.inf, 1.0))
        export_bundle(source, tmp_path / "other", options)
    wrong = {"topics": [TextExample(e.text, "work" if e.label == "rest" else "rest") for e in examples["topics"]]}
    assert export_bundle(source, tmp_path / "wrong", dataclasses.replace(options, examples=wrong))["gate"] is not None


def test_an_export_that_costs_too_much_is_not_written(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = bundle_module.branch_graph

    def spoiled(weights: Any, *arguments: Any) -> bytes:
        turned = {name: -weights.tensors[name] for name in (LAST_BIAS, LAST_BIAS.replace("bias", "weight"))}
        return original(dataclasses.replace(weights, tensors={**weights.tensors, **turned}), *arguments)

    monkeypatch.setattr(bundle_module, "branch_graph", spoiled)
    examples = {"topics": labelled(source, "topics")}
    monkeypatch.setitem(bundle_module.QUANTISED_TOLERANCE, "int8", Tolerance(np.inf, np.inf, -1.0))
    options = dataclasses.replace(FAST, weights="int8", examples=examples)
    with pytest.raises(QualityError, match="1 of 1 tasks lose too much: topics"):
        export_bundle(source, tmp_path / "out", options)
    assert not (tmp_path / "out").exists()
    assert export_bundle(source, tmp_path / "out", dataclasses.replace(options, gate=False))["gate"] is None


def test_a_smaller_vocabulary(tiny: Loaded, tmp_path: Path) -> None:
    # Padding has to be a special token, as it is in real encoders and not in the tiny one.
    encoder = Encoder(dataclasses.replace(tiny.encoder.config, pad_id=0), tiny.encoder.fork)
    encoder.load_state_dict(tiny.encoder.state_dict())
    config = {**tiny.config, "pad_token_id": 0}
    changed = dataclasses.replace(tiny, encoder=encoder.eval(), config=config, backbone=backbone_hash(encoder))
    source = str(tiny_deployed.training_bundle(changed, tmp_path / "training"))
    small = dataclasses.replace(FAST, vocabulary=300, examples={"topics": labelled(source, "topics")}, max_drop=100.0)
    with pytest.raises(TrunklineError, match="choose pieces by"):
        export_bundle(source, tmp_path / "out", dataclasses.replace(small, texts=()))
    report = export_bundle(source, tmp_path / "out", small)
    manifest = open_bundle(tmp_path / "out").manifest
    assert manifest.encoder.vocabulary_size == 300 and manifest.backbone == changed.backbone
    assert report["gate"]["tasks"]["topics"]["float32"] == 1.0
    assert report["parity"]["branch"]["largest_feature_difference"] < 2e-5
    assert load(tmp_path / "out").predict(["the train"])[0].keys() == {"own", "people", "topics"}
