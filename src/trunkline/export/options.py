"""What an export is asked for, and what it says of itself afterwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from trunkline.bundle.lora import LORA_TARGETS
from trunkline.errors import TrunklineError
from trunkline.export.gate import GateReport
from trunkline.export.graph import Attention
from trunkline.export.parity import ParityReport, Tolerance

WeightKind = Literal["float32", "int8", "int4"]
Variant = Literal["required", "bank"]

QUANTISED_TOLERANCE: Mapping[str, Tolerance] = {
    "float32": Tolerance(),
    "int8": Tolerance(float("inf"), float("inf"), 0.95),
    "int4": Tolerance(float("inf"), float("inf"), 0.85),
}
"""Against torch in float32. Rounded weights are judged by a task's score; the cosine finds what is broken."""


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """How a bundle is exported.

    Attributes:
        name: The bundle's; by default that of its folder.
        weights: What linear layers and the word embedding are stored and computed in.
        variants: Branch graphs beside the plain one: `required` for onnxruntime-web and OpenVINO, `bank` for batches
            whose rows have different adapters.
        lora_targets: LoRA inputs of the branch beside those that the bundle's adapters need: `qkv`, `out`, `up` or
            `down`. Each costs time even if nothing is fed to it.
        tasks: Names; all by default.
        attention: `fast` leaves the mask out of attention where there is no padding, for ONNX Runtime alone.
        texts: For the comparison with torch, for calibration and to choose a vocabulary by; by default the samples'.
        tolerance: How far graphs may be from torch; by default that of `weights`.
        vocabulary: Pieces that remain of the vocabulary, chosen by `texts`; all by default.
        examples: Task -> labelled examples that it was not trained on, by which rounded weights are judged.
        gate: Whether rounded weights need that judgement.
        max_drop: Points of a hundred that a task's main score may drop.
    """

    name: str = ""
    weights: WeightKind = "float32"
    variants: tuple[Variant, ...] = ()
    lora_targets: tuple[str, ...] = ()
    tasks: tuple[str, ...] | None = None
    attention: Attention = "portable"
    texts: tuple[str, ...] = ()
    tolerance: Tolerance | None = None
    vocabulary: int | None = None
    examples: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    gate: bool = True
    max_drop: float = 0.5

    def __post_init__(self) -> None:
        for name, given, known in (
            ("weights", {self.weights}, get_args(WeightKind)),
            ("variants", set(self.variants), get_args(Variant)),
            ("attention", {self.attention}, get_args(Attention)),
            ("lora_targets", set(self.lora_targets), tuple(LORA_TARGETS)),
        ):
            if not given <= set(known):
                raise TrunklineError(f"{name} {', '.join(sorted(given - set(known)))}", expected=", ".join(known))
        if not self.max_drop >= 0:
            raise TrunklineError(f"max_drop {self.max_drop}", expected="points of a hundred, at least 0")

    @property
    def exact(self) -> bool:
        """Whether tasks predict as before but for the last digits, so that there is nothing to judge."""
        return self.weights == "float32" and self.vocabulary is None

    @property
    def judged(self) -> bool:
        """Whether tasks are scored on the graphs."""
        return self.gate and bool(self.examples) and not self.exact

    @property
    def allowed(self) -> Tolerance:
        """The tolerance of the comparison with torch."""
        return self.tolerance or QUANTISED_TOLERANCE[self.weights]


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What was written, and how it compares with torch.

    `sizes` are bytes of files, `tokens` those that calibration read; `longer` is tokens of the texts with the smaller
    vocabulary over tokens before.
    """

    folder: Path
    sizes: Mapping[str, int]
    weights: Mapping[str, Any]
    parity: Mapping[str, ParityReport]
    tokens: int = 0
    gate: GateReport | None = None
    longer: float = 1.0

    def record(self) -> dict[str, Any]:
        """The report as JSON."""
        return {
            "folder": self.folder.name,
            "bytes": sum(self.sizes.values()),
            "files": dict(self.sizes),
            "weights": dict(self.weights),
            "calibration_tokens": self.tokens,
            "tokens_after_pruning": self.longer,
            "parity": {name: found.record() for name, found in self.parity.items()},
            "gate": None if self.gate is None else self.gate.record(),
        }
