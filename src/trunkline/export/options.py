"""What an export is asked for, and what it says of itself afterwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from trunkline.bundle.manifest import Manifest
from trunkline.export.layers import Attention
from trunkline.export.parity import ParityReport, Tolerance
from trunkline.export.quantise.gate import GateReport

WeightKind = Literal["float32", "int8", "int4"]
Variant = Literal["required", "bank"]

QUANTISED_TOLERANCE: Mapping[str, Tolerance] = {
    "float32": Tolerance(),
    "int8": Tolerance(float("inf"), float("inf"), 0.95),
    "int4": Tolerance(float("inf"), float("inf"), 0.85),
}
"""Against torch in float32. Rounded weights are judged by a task's metric; the cosine finds what is broken."""


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """How a bundle is exported.

    Attributes:
        name: The bundle's; by default made of the folder's name.
        weights: What linear layers and the word embedding are stored and computed in.
        variants: Branch graphs beside the plain one: `required` for onnxruntime-web and OpenVINO, `bank` for batches
            whose rows have different adapters.
        slots: LoRA inputs beside those that the bundle's adapters need. Each costs time.
        fork: First layer of the branches, instead of the training bundle's.
        tasks: Names; all by default.
        attention: `fast` leaves the mask out of attention where there is no padding, for ONNX Runtime alone.
        texts: For the comparison with torch and, where weights are rounded, for calibration.
        tolerance: How far graphs may be from torch; by default that of `weights`.
        peft: Family -> folder of a PEFT adapter, trained elsewhere on the same backbone, as its primary adapter.
        vocabulary: Pieces that remain of the vocabulary, chosen by `texts`; all by default.
        examples: Task -> labelled examples that it was not trained on, by which rounded weights are judged.
        gate: Whether rounded weights need that judgement.
        allowed: Points of a hundred that a task's main score may drop.
        mixed: Whether to take the plan that the gate proposes where it refuses the first one.
    """

    name: str = ""
    weights: WeightKind = "float32"
    variants: tuple[Variant, ...] = ()
    slots: tuple[str, ...] = ()
    fork: int | None = None
    tasks: tuple[str, ...] | None = None
    attention: Attention = "portable"
    texts: tuple[str, ...] = ()
    tolerance: Tolerance | None = None
    peft: Mapping[str, Path] = field(default_factory=dict)
    vocabulary: int | None = None
    examples: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    gate: bool = True
    allowed: float = 0.5
    mixed: bool = False


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What was written and how it compares.

    Attributes:
        folder: The bundle, or the file of a single task.
        sizes: Bytes of every file.
        parity: Graph -> its comparison with torch.
        tokens: Tokens that were read for calibration; 0 for none.
        manifest: The bundle's, if it is one.
        gate: What rounded weights cost the tasks, where they were judged.
        longer: Tokens of the texts after pruning the vocabulary over tokens before.
    """

    folder: Path
    sizes: Mapping[str, int]
    parity: Mapping[str, ParityReport]
    tokens: int = 0
    manifest: Manifest | None = None
    gate: GateReport | None = None
    longer: float = 1.0

    def record(self) -> dict[str, Any]:
        """The report as JSON."""
        return {
            "folder": self.folder.name,
            "bytes": sum(self.sizes.values()),
            "files": dict(self.sizes),
            "weights": dict(self.manifest.weights) if self.manifest else {},
            "calibration_tokens": self.tokens,
            "tokens_after_pruning": self.longer,
            "parity": {
                name: {
                    "runs": len(found.cases),
                    "largest_feature_difference": found.features,
                    "largest_probability_difference": found.probabilities,
                    "least_cosine": found.cosine,
                    "mean_cosine": found.mean_cosine,
                    "allowed": {
                        "features": _finite(found.tolerance.features),
                        "probabilities": _finite(found.tolerance.probabilities),
                        "cosine": found.tolerance.cosine,
                    },
                }
                for name, found in self.parity.items()
            },
        }


def _finite(value: float) -> float | None:
    return value if value < float("inf") else None
