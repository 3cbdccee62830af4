"""How the weights of an export are stored: the plan, its calibration, and the gate that rounded weights must pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from trunkline.encoder.bundle_files import Loaded
from trunkline.encoder.lora import LoraAdapter
from trunkline.errors import MismatchError, TrunklineError
from trunkline.export.layers import Kernels
from trunkline.export.options import ExportOptions, WeightKind
from trunkline.export.quantise.gate import GateOptions, GateReport, QualityError, quality_gate
from trunkline.export.quantise.kernels import quantised_kernels
from trunkline.export.quantise.measure import Check
from trunkline.export.quantise.plan import PLANS, Plan
from trunkline.export.quantise.simulate import quantised_encoder
from trunkline.export.quantise.smooth import Calibration, calibrate
from trunkline.export.source import Prepared, sample_texts
from trunkline.export.weights import BackboneWeights


@dataclass(frozen=True, slots=True)
class Settled:
    """A plan with what belongs to it.

    Attributes:
        kind: The plan's name.
        plan: What is stored and computed how.
        calibration: None for float32.
        gate: The tasks' scores before and after, where they were compared.
    """

    kind: WeightKind
    plan: Plan
    calibration: Calibration | None = None
    gate: GateReport | None = None

    @property
    def tokens(self) -> int:
        """Tokens that calibration read."""
        return self.calibration.tokens if self.calibration is not None else 0

    def kernels(self, weights: BackboneWeights, adapted: range | None = None) -> tuple[BackboneWeights, Kernels]:
        """Weights and kernels that belong together; arguments as for `quantised_kernels`."""
        if self.kind == "float32":
            return weights, Kernels()
        return quantised_kernels(weights, self.plan, self.calibration, adapted)

    def facts(self) -> dict[str, Any]:
        """What the manifest says of the weights."""
        facts: dict[str, Any] = {key: value for key, value in self.plan.facts().items() if key != "weights"}
        if self.gate is not None:
            facts["gate"] = {
                "allowed_points": self.gate.allowed,
                "tasks": {
                    task.name: {"metric": task.metric, "float32": task.before, "rounded": task.after}
                    for task in self.gate.tasks
                },
            }
        return {"kind": self.kind, **facts}


def settle(prepared: Prepared, options: ExportOptions, say: Callable[[str], None] = lambda text: None) -> Settled:
    """Calibrates where weights are rounded, and judges them by the tasks' scores.

    Args:
        prepared: What is exported.
        options: What is asked for.
        say: Receives lines of progress.

    Raises:
        QualityError: A task loses more than allowed; with `options.mixed`, only if no other plan was found.
        TrunklineError: Rounded weights, tasks, and no examples to judge them by.
        MismatchError: Examples of a task that is not exported.
    """
    if options.weights not in PLANS:
        raise TrunklineError(f"weights {options.weights!r}", expected="one of " + ", ".join(PLANS))
    unknown = sorted(options.examples.keys() - prepared.tasks.keys())
    if unknown:
        raise MismatchError(
            f"examples of {', '.join(unknown)}",
            expected="of tasks that are exported: " + (", ".join(prepared.tasks) or "(none)"),
        )
    plan = PLANS[options.weights]
    if options.weights == "float32" and options.vocabulary is None:
        return Settled("float32", plan)
    seen = _calibration(prepared.loaded, prepared.loras, prepared.texts, options.weights)
    if prepared.tasks and options.gate and not options.examples:
        raise TrunklineError(
            f"{options.weights} weights and {len(prepared.tasks)} tasks without examples to judge them by",
            expected="labelled examples of at least one task",
            todo="Give `--dev NAME=FILE`, or `--no-gate` to go without",
        )
    if not (options.examples and options.gate):
        return Settled(options.weights, plan, seen)
    checks = [Check(name, prepared.tasks[name], examples) for name, examples in sorted(options.examples.items())]
    return _judged(prepared, options, Settled(options.weights, plan, seen), checks, say)


def rounded_start(start: Loaded, weights: WeightKind, texts: Sequence[str] = ()) -> Loaded:
    """A bundle or encoder as an export in these weights will compute it, to adapt tasks on; see `quantised_encoder`.

    Args:
        start: The bundle or encoder.
        weights: The export's.
        texts: The export's, for calibration; those of the sample if there are none.
    """
    adapters = [*start.primaries.values(), *start.tasks.values()]
    loras = [adapter.lora for adapter in adapters if adapter.lora is not None]
    seen = _calibration(start, loras, tuple(text for text in texts if text.strip()) or sample_texts(), weights)
    return quantised_encoder(start, PLANS[weights], seen)


def _calibration(
    loaded: Loaded, loras: Sequence[LoraAdapter], texts: Sequence[str], kind: WeightKind
) -> Calibration | None:
    if kind == "float32":
        return None
    return calibrate(loaded.encoder, loaded.tokenizer, list(texts), loras, moments=kind == "int4")


def _judged(
    prepared: Prepared, options: ExportOptions, settled: Settled, checks: Sequence[Check], say: Callable[[str], None]
) -> Settled:
    limits = GateOptions(allowed=options.allowed)
    plan, seen = settled.plan, settled.calibration

    def judge(plan: Plan) -> GateReport:
        return quality_gate(prepared.start, checks, plan, seen, limits, candidate=prepared.loaded, say=say)

    try:
        return Settled(settled.kind, plan, seen, judge(plan))
    except QualityError as error:
        if not options.mixed or error.proposal is None:
            raise
        say(f"{error.given}; taking the mixed plan that passes")
        return Settled(settled.kind, error.proposal, seen, judge(error.proposal))
