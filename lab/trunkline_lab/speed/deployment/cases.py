"""What is compared: sections of cases that take turns, and what the issue asks of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from trunkline_lab.speed.deployment.options import EIGHT, FORK, RANK, Options


@dataclass(frozen=True)
class Case:
    """One case: `kind` is a function of `workers.py` or `torch_workers.py`, `settings` are its keywords."""

    name: str
    kind: str
    says: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


@dataclass(frozen=True)
class Ratio:
    """The time of one case over that of another, paired by repeat; without `under` the milliseconds themselves."""

    what: str
    over: str
    under: str = ""
    at_least: float | None = None
    at_most: float | None = None


@dataclass(frozen=True)
class Part:
    """A section."""

    title: str
    cases: tuple[Case, ...]
    ratios: tuple[Ratio, ...]


def parts(options: Options) -> dict[str, Part]:
    """The sections whose cases take turns, by their short names."""
    return {"one": _one(options), "eight": _eight(options), "mixed": _mixed(options)}


def _one(options: Options) -> Part:
    where = f"rank {RANK} on query and value of all layers"
    task = {"bundle": "low-int8", "task": "task-00"}
    cases = (
        Case("PyTorch", "torch_plain", "transformers, float32, its own attention"),
        Case("PyTorch + PEFT", "torch_peft", f"the same with an adapter of PEFT, {where}"),
        Case("ORT, quantize_dynamic", "standard", "exported by torch, quantize_dynamic at its defaults, no adapter"),
        Case("ours float32", "passes", f"trunk and branch, {where}", {**task, "bundle": "low-float32"}),
        Case("ours int8, no adapter", "passes", "trunk and branch, a head alone", {**task, "lora": 0}),
        Case("ours int8", "passes", f"trunk and branch, {where}", task),
        Case("ours int8, rank 16", "passes", f"the same with rank {2 * RANK}", {**task, "lora": 2}),
        Case(
            "ours int8, all linear layers",
            "passes",
            f"trunk and branch, rank {RANK} on all six linear layers",
            {"bundle": "wide-int8", "task": "wide"},
        ),
        Case(
            "ours int8, room for all linear layers",
            "passes",
            "the same graphs with no adapter",
            {"bundle": "wide-int8", "task": "wide", "lora": 0},
        ),
        Case(
            "ours int8, attention fast",
            "passes",
            f"{where}, --attention fast",
            {"bundle": "low-fast", "task": "task-00"},
        ),
        Case("ours int8, merged", "merged", "one task as an ordinary model, its adapter merged in"),
        Case("LiteRT int8", "litert", f"trunk and branch, {where}, inputs of fixed sizes"),
        Case("switch, PEFT", "torch_switch", f"set_adapter alone, {EIGHT} adapters in memory"),
        Case("switch, ours", "switch", "a task's file from disk to what the graph is fed, checks included"),
        Case(
            "switch, .onnx_adapter", "switch_file", "ONNX Runtime's own reading of the same task's .onnx_adapter file"
        ),
    )
    ratios = (
        Ratio("PyTorch + PEFT / ours int8", "PyTorch + PEFT", "ours int8", at_least=7),
        Ratio("PyTorch + PEFT / LiteRT int8", "PyTorch + PEFT", "LiteRT int8", at_least=10),
        Ratio("PyTorch / ours int8", "PyTorch", "ours int8"),
        Ratio("quantize_dynamic / ours int8 with its adapter", "ORT, quantize_dynamic", "ours int8"),
        Ratio("ours float32 / ours int8", "ours float32", "ours int8"),
        Ratio("adapter of rank 8 / none", "ours int8", "ours int8, no adapter", at_most=1.07),
        Ratio("adapter of rank 16 / none", "ours int8, rank 16", "ours int8, no adapter"),
        Ratio(
            "adapter on all linear layers / none, the same graphs",
            "ours int8, all linear layers",
            "ours int8, room for all linear layers",
        ),
        Ratio("an adapter as input / merged", "ours int8", "ours int8, merged"),
        Ratio("milliseconds of a switch from disk", "switch, ours", at_most=0.05),
        Ratio("milliseconds of a switch from disk, .onnx_adapter", "switch, .onnx_adapter", at_most=0.05),
        Ratio("switch, PEFT / ours from disk", "switch, PEFT", "switch, ours"),
    )
    return Part(f"One task with its adapter, {options.length} tokens", cases, ratios)


def _eight(options: Options) -> Part:
    kinds = f"{EIGHT // 2} of entities, {EIGHT // 2} of texts; fork at layer {FORK}"
    cases = (
        Case(
            "a plain int8 pass",
            "passes",
            "trunk and branch, one head",
            {"bundle": "forked-int8", "task": "head-0", "lora": 0},
        ),
        Case("ours, heads", "heads", f"one trunk, one branch a family, {EIGHT} heads ({kinds})"),
        Case("ours, LoRA", "loras", f"one trunk, {EIGHT} branches one after the other ({kinds})", {"bank": False}),
        Case("ours, LoRA in a bank", "loras", f"one trunk, {EIGHT} rows in the bank graph", {"bank": True}),
        Case("eight models of quantize_dynamic", "standard", "sessions one after the other", {"count": EIGHT}),
        Case("eight merged models of ours", "merged", "sessions one after the other", {"count": EIGHT}),
        Case(
            "PEFT, switching",
            "torch_peft",
            f"set_adapter and a pass, {EIGHT} times",
            {"folder": "peft-forked", "count": EIGHT},
        ),
        Case("predict, one task", "predict", "trunkline.runtime, text to prediction", {"tasks": ["head-0"]}),
        Case(
            "predict, heads",
            "predict",
            f"trunkline.runtime, text to {EIGHT} predictions",
            {"tasks": [f"head-{n}" for n in range(EIGHT)]},
        ),
        Case(
            "predict, LoRA",
            "predict",
            f"trunkline.runtime, text to {EIGHT} predictions",
            {"tasks": [f"lora-{n}" for n in range(EIGHT)]},
        ),
    )
    ratios = (
        Ratio("heads / a plain pass", "ours, heads", "a plain int8 pass", at_most=1.6),
        Ratio("LoRA / a plain pass", "ours, LoRA", "a plain int8 pass", at_most=3.6),
        Ratio("LoRA in a bank / a plain pass", "ours, LoRA in a bank", "a plain int8 pass", at_most=3.6),
        Ratio(
            "eight models of quantize_dynamic / heads", "eight models of quantize_dynamic", "ours, heads", at_least=5
        ),
        Ratio("eight merged models of ours / heads", "eight merged models of ours", "ours, heads", at_least=5),
        Ratio("PEFT, switching / heads", "PEFT, switching", "ours, heads", at_least=40),
        Ratio("PEFT, switching / LoRA", "PEFT, switching", "ours, LoRA"),
        Ratio("text to predictions, eight heads / one", "predict, heads", "predict, one task"),
        Ratio("text to predictions, eight LoRA / one head", "predict, LoRA", "predict, one task"),
    )
    return Part(f"Eight tasks on one text, {options.length} tokens", cases, ratios)


def _mixed(options: Options) -> Part:
    cases = (
        Case("no adapter", "rows", f"{EIGHT} rows, trunk and branch", {"adapters": 0}),
        Case("one adapter", "rows", f"{EIGHT} rows with one adapter", {"adapters": 1}),
        Case(
            "eight adapters", "rows", f"{EIGHT} rows in the bank graph, an adapter and a head each", {"adapters": EIGHT}
        ),
        Case("PEFT, one adapter", "torch_rows", f"{EIGHT} rows with one adapter", {"adapters": 1}),
        Case("PEFT, eight adapters", "torch_rows", f"{EIGHT} rows, adapter_names", {"adapters": EIGHT}),
    )
    ratios = (
        Ratio("eight adapters / one", "eight adapters", "one adapter", at_most=1.10),
        Ratio("PEFT, eight adapters / ours", "PEFT, eight adapters", "eight adapters", at_least=6),
        Ratio("PEFT, eight adapters / one", "PEFT, eight adapters", "PEFT, one adapter"),
    )
    return Part(f"A batch of eight rows, {options.length} tokens each, adapters in all layers", cases, ratios)
