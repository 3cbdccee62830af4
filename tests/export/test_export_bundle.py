"""Export: a training bundle becomes a deployed one that is whole, equal to torch, and made again byte for byte."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_graphs as graphs
import pytest

import tiny_deployed
import tiny_models
from trunkline.bundle.files import open_bundle
from trunkline.bundle.lora import complete
from trunkline.encoder.bundle_files import Loaded, load_bundle
from trunkline.encoder.encoder import Encoder
from trunkline.encoder.peft_format import export_peft
from trunkline.encoder.storage import backbone_hash
from trunkline.engine.session import open_session
from trunkline.errors import MismatchError, TrunklineError
from trunkline.export import bundle as bundle_module
from trunkline.export.bundle import export_bundle
from trunkline.export.options import ExportOptions
from trunkline.export.parity import Tolerance
from trunkline.export.quantise.gate import QualityError
from trunkline.export.single import export_merged, export_onnx_adapters

TEXTS = tuple(tiny_models.SENTENCES)
FAST = ExportOptions(texts=TEXTS)


@pytest.fixture
def source(tiny: Loaded, tmp_path: Path) -> str:
    return str(tiny_deployed.training_bundle(tiny, tmp_path / "training"))


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def logits(folder: Path, task: str, rows: dict[str, Any], graph: str = "branch") -> Any:
    """What a bundle's graphs say of whole rows for a task, from its files alone."""
    deployed = open_bundle(folder)
    feeds = deployed.feeds(task)
    if graph == "branch-required":
        feeds = complete(feeds, deployed.manifest.shapes, deployed.manifest.encoder.hidden_size)
    hidden = open_session(deployed.graphs["trunk"]).run(["hidden"], rows)[0]
    given = {"hidden": hidden, "mask": rows["mask"], "pool": graphs.mean_pool(rows["mask"]), **feeds}
    return open_session(deployed.graphs[graph]).run(["logits"], given)[0]


def test_a_bundle_is_whole_and_says_what_was_compared(source: str, tmp_path: Path) -> None:
    report = export_bundle(source, tmp_path / "out", dataclasses.replace(FAST, variants=("required", "bank")))
    deployed = open_bundle(tmp_path / "out")
    assert set(report.sizes) == set(files_of(tmp_path / "out"))
    assert report.sizes == {name: len(content) for name, content in files_of(tmp_path / "out").items()}
    assert deployed.manifest.slots == ("qkv", "down")
    assert set(deployed.graphs) == {"trunk", "branch", "branch-required", "branch-bank"} == {"trunk", *report.parity}
    assert {case.adapter for case in report.parity["branch"].cases} == {
        "(none)",
        "ner adapter",
        "own",
        "people",
        "topics",
    }
    assert any(", " in case.adapter for case in report.parity["branch-bank"].cases)
    assert all(part.features < 2e-5 for part in report.parity.values())
    assert report.parity["branch"].probabilities > 0
    record = report.record()
    assert record["bytes"] == sum(report.sizes.values())
    assert record["parity"]["branch"]["runs"] == len(report.parity["branch"].cases)


@pytest.mark.parametrize("graph", ["branch", "branch-required"])
def test_the_files_alone_give_what_torch_gives(source: str, tmp_path: Path, graph: str) -> None:
    loaded = load_bundle(Path(source))
    export_bundle(source, tmp_path / "out", dataclasses.replace(FAST, variants=("required",)))
    rows = graphs.sentence_rows(loaded.tokenizer, loaded.encoder.config.pad_id)
    for name, task in loaded.tasks.items():
        lora = task.lora if task.lora is not None else loaded.primary(task.family)
        states = graphs.read_states(loaded.encoder, loaded.tokenizer, deltas=lora)
        wanted = np.stack([part.mean(0) for part in states]) @ task.head.weight.T + task.head.bias
        # The adapters are rounded to half precision, so that this is no test of the last digits.
        assert np.abs(logits(tmp_path / "out", name, rows, graph)[:, 0] - wanted).max() < 2e-2


def test_the_same_source_gives_the_same_bytes(source: str, tmp_path: Path) -> None:
    for name in ("a", "b"):
        export_bundle(source, tmp_path / name, FAST)
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")


def test_a_bundle_is_replaced_whole_or_not_at_all(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    export_bundle(source, out, dataclasses.replace(FAST, tasks=("people",)))
    before = files_of(out)
    with pytest.raises(TrunklineError, match="the graphs differ from torch"):
        export_bundle(source, out, dataclasses.replace(FAST, tolerance=Tolerance(features=1e-12)))
    original = bundle_module.branch_graph

    def other(weights: Any, *arguments: Any) -> bytes:
        layer = weights.layers[-1]
        bent = dataclasses.replace(layer, up=dataclasses.replace(layer.up, bias=layer.up.bias + 0.01))
        return original(dataclasses.replace(weights, layers=(*weights.layers[:-1], bent)), *arguments)

    monkeypatch.setattr(bundle_module, "branch_graph", other)
    with pytest.raises(TrunklineError, match="the graphs differ from torch"):
        export_bundle(source, out, FAST)
    monkeypatch.undo()
    assert files_of(out) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "training"]
    export_bundle(source, out, FAST)
    assert set(open_bundle(out).tasks) == {"own", "people", "topics"}


def test_nothing_else_is_overwritten(source: str, tmp_path: Path) -> None:
    for place in (Path(source), Path(source) / "manifest.json"):
        with pytest.raises(TrunklineError, match=r"Expected a new folder"):
            export_bundle(source, place, FAST)
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(TrunklineError, match="is no folder"):
        export_bundle(source, tmp_path / "link", FAST)
    load_bundle(Path(source))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tasks": ("people", "nothing")}, "has no task nothing"),
        ({"slots": ("query",)}, "LoRA slots query"),
        ({"variants": ("mixed",)}, "variant 'mixed'"),
        ({"fork": 9}, "fork at layer 9"),
        ({"fork": 3}, "layers below the fork"),
        ({"name": "a/b"}, "the form"),
        ({"weights": "int2"}, "weights 'int2'"),
        ({"weights": "int8"}, "without examples to judge"),
        ({"examples": {"nothing": []}}, "examples of nothing"),
    ],
)
def test_what_cannot_be_exported_is_said(source: str, tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(TrunklineError, match=said):
        export_bundle(source, tmp_path / "out", dataclasses.replace(FAST, **changes))
    assert not (tmp_path / "out").exists()


def test_a_lower_fork_and_a_plain_encoder(source: str, tiny_folder: Any, tmp_path: Path) -> None:
    export_bundle(source, tmp_path / "low", dataclasses.replace(FAST, fork=1, attention="fast"))
    assert open_bundle(tmp_path / "low").manifest.encoder.fork == 1
    report = export_bundle(str(tiny_folder("roberta")), tmp_path / "plain", FAST)
    assert report.manifest is not None
    assert report.manifest.slots == ("qkv",)
    assert not report.manifest.tasks
    assert report.manifest.licences[0].licence == "unknown"


def test_rounded_weights_pass_the_gate_or_are_refused(source: str, tmp_path: Path) -> None:
    from trunkline.text.examples import TextExample

    examples = {"topics": [TextExample(text, label) for text in TEXTS for label in ("work", "rest")]}
    options = dataclasses.replace(FAST, weights="int8", examples=examples)
    loose = dataclasses.replace(options, allowed=100.0, tolerance=Tolerance(np.inf, np.inf, 0.5))
    report = export_bundle(source, tmp_path / "out", loose)
    assert report.manifest is not None
    assert report.manifest.weights["kind"] == "int8"
    assert report.manifest.weights["gate"]["tasks"].keys() == {"topics"}
    assert report.tokens > 0
    types = {node.op_type for node in onnx.load(str(tmp_path / "out" / "trunk.onnx")).graph.node}
    assert "DynamicQuantizeMatMul" in types
    assert "Gemm" not in types
    with pytest.raises(TrunklineError, match="cosine"):
        export_bundle(source, tmp_path / "other", dataclasses.replace(loose, tolerance=Tolerance(np.inf, np.inf, 1.0)))


def test_the_gate_refuses_and_the_mixed_plan_is_taken_if_asked_for(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trunkline.export import settle
    from trunkline.export.quantise.gate import GateReport
    from trunkline.export.quantise.plan import PLANS

    proposal = PLANS["int8"].keeping(["layers.0.down"])

    def gate(start: Any, checks: Any, plan: Any, *rest: Any, **options: Any) -> GateReport:
        report = GateReport((), 0.5)
        if plan != proposal:
            raise QualityError("lost too much", expected="less", todo="mix", report=report, costs=(), proposal=proposal)
        return report

    monkeypatch.setattr(settle, "quality_gate", gate)
    tolerance = Tolerance(np.inf, np.inf, 0.5)
    options = dataclasses.replace(FAST, weights="int8", examples={"topics": []}, tolerance=tolerance)
    options = dataclasses.replace(options, examples={"topics": ["made up"]})
    with pytest.raises(QualityError):
        export_bundle(source, tmp_path / "out", options)
    assert not (tmp_path / "out").exists()
    said: list[str] = []
    report = export_bundle(source, tmp_path / "out", dataclasses.replace(options, mixed=True), say=said.append)
    assert report.manifest is not None
    assert report.manifest.weights["weights.layers.0.down"] == "float32"
    assert "mixed plan" in said[0]


def test_a_peft_adapter_from_elsewhere_is_a_family(tiny: Loaded, tiny_folder: Any, tmp_path: Path) -> None:
    lora = tiny_models.random_adapter(tiny.encoder.config, (2, 3), rank=3)
    export_peft(lora, tiny.encoder.config, tmp_path / "peft")
    options = dataclasses.replace(FAST, peft={"classification": tmp_path / "peft"})
    export_bundle(str(tiny_folder("bert")), tmp_path / "out", options)
    fed = open_bundle(tmp_path / "out").primaries["classification"]
    update = fed["lora.3.qkv.a"] @ fed["lora.3.qkv.b"]
    part = lora.part(3, "query")
    assert part is not None
    wanted = (part.scale * part.b.detach() @ part.a.detach()).T.numpy()
    assert np.abs(update[:, :32] - wanted).max() < 5e-3 * np.abs(wanted).max()
    low = tiny_models.random_adapter(tiny.encoder.config, (0, 1), rank=3)
    export_peft(low, tiny.encoder.config, tmp_path / "low")
    with pytest.raises(MismatchError, match="Lower the fork"):
        export_bundle(
            str(tiny_folder("bert")), tmp_path / "x", dataclasses.replace(FAST, peft={"ner": tmp_path / "low"})
        )
    export_bundle(
        str(tiny_folder("bert")), tmp_path / "x", dataclasses.replace(FAST, peft={"ner": tmp_path / "low"}, fork=0)
    )
    assert set(export_onnx_adapters(str(tiny_folder("bert")), tmp_path / "files", options)) == {
        "classification.primary.onnx_adapter"
    }


def test_a_merged_model_is_one_task(source: str, tmp_path: Path) -> None:
    report = export_merged(source, "people", tmp_path / "out", FAST)
    assert set(report.sizes) == {"model.onnx", "tokenizer.json", "task.json"}
    assert report.parity["merged"].probabilities < 5e-4
    export_merged(source, "people", tmp_path / "out", FAST)
    loaded = load_bundle(Path(source))
    rows = graphs.sentence_rows(loaded.tokenizer, loaded.encoder.config.pad_id)
    export_bundle(source, tmp_path / "bundle", FAST)
    given = {**rows, "pool": graphs.mean_pool(rows["mask"])}
    found = open_session(tmp_path / "out" / "model.onnx").run(["logits"], given)[0]
    assert np.abs(found - logits(tmp_path / "bundle", "people", rows)).max() < 2e-2
    for place, task in ((tmp_path / "bundle", "people"), (tmp_path / "new", "nothing")):
        with pytest.raises(TrunklineError):
            export_merged(source, task, place, FAST)


def test_adapters_as_files_of_onnx_runtime(source: str, tmp_path: Path) -> None:
    import onnxruntime

    export_bundle(source, tmp_path / "out", FAST)
    sizes = export_onnx_adapters(str(tmp_path / "out"), tmp_path / "files")
    assert set(sizes) == {f"{name}.onnx_adapter" for name in ("own", "people", "topics", "ner.primary")}
    loaded = load_bundle(Path(source))
    rows = graphs.sentence_rows(loaded.tokenizer, loaded.encoder.config.pad_id)
    hidden = open_session(tmp_path / "out" / "trunk.onnx").run(["hidden"], rows)[0]
    for name in ("own", "people", "topics"):
        adapter = onnxruntime.LoraAdapter()
        adapter.Load(str(tmp_path / "files" / f"{name}.onnx_adapter"))
        options = onnxruntime.RunOptions()
        options.add_active_adapter(adapter)
        given = {"hidden": hidden, "mask": rows["mask"], "pool": graphs.mean_pool(rows["mask"])}
        found = open_session(tmp_path / "out" / "branch.onnx").run(["logits"], given, options)[0]
        assert (found == logits(tmp_path / "out", name, rows)).all()
    assert set(export_onnx_adapters(source, tmp_path / "others")) == set(sizes)


def test_a_smaller_vocabulary(tiny: Loaded, tmp_path: Path) -> None:
    # Padding has to be a special token, as it is in real encoders and not in the tiny one.
    encoder = Encoder(dataclasses.replace(tiny.encoder.config, pad_id=0), tiny.encoder.fork)
    encoder.load_state_dict(tiny.encoder.state_dict())
    config = {**tiny.config, "pad_token_id": 0}
    changed = dataclasses.replace(tiny, encoder=encoder.eval(), config=config, backbone=backbone_hash(encoder))
    source = str(tiny_deployed.training_bundle(changed, tmp_path / "training"))
    with pytest.raises(TrunklineError, match="choose pieces by"):
        export_bundle(source, tmp_path / "out", dataclasses.replace(FAST, vocabulary=300, gate=False, texts=()))
    report = export_bundle(source, tmp_path / "out", dataclasses.replace(FAST, vocabulary=300, gate=False))
    assert report.manifest is not None
    assert report.manifest.encoder.vocabulary_size == 300
    assert report.manifest.backbone == changed.backbone
    assert report.longer >= 1
    assert report.parity["branch"].features < 2e-5
