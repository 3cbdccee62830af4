"""The gate: a quantised bundle may lose no more of its tasks' scores than was agreed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from trunkline.adapt import fitting
from trunkline.bundle.lora import SLOTS
from trunkline.encoder.bundle_files import Loaded
from trunkline.engine.session import open_session
from trunkline.errors import TrunklineError
from trunkline.export.graph import branch_graph, trunk_graph
from trunkline.export.quantise.kernels import Rounded, quantised_kernels
from trunkline.export.quantise.measure import (
    Check,
    Reference,
    TaskResult,
    compare,
    deployed_feeds,
    graph_features,
    mean_cosine,
    reference,
)
from trunkline.export.quantise.plan import Plan, linear_layers
from trunkline.export.quantise.smooth import Calibration
from trunkline.export.weights import BackboneWeights, take_weights
from trunkline.tasks import get_family

NAMED = 3
"""Layers that a refusal names."""


@dataclass(frozen=True, slots=True)
class GateOptions:
    """What is allowed, and how a better plan is sought.

    Attributes:
        allowed: The most points of a hundred that a task's main score may drop.
        texts: Texts of each task by which layers are ranked.
        most: The most layers that a proposed plan has in a finer scheme; 0 to propose none.
    """

    allowed: float = 0.5
    texts: int = 24
    most: int = 8

    def __post_init__(self) -> None:
        if not (self.allowed >= 0 and self.texts > 0 and self.most >= 0):
            raise TrunklineError(f"a gate with {self}", expected="a drop of at least 0 points, and at least one text")


@dataclass(frozen=True, slots=True)
class GateReport:
    """Every task before and after, and the drop that was allowed."""

    tasks: tuple[TaskResult, ...]
    allowed: float

    @property
    def failed(self) -> list[TaskResult]:
        """The tasks that lost more; also those whose scores are no numbers."""
        return [task for task in self.tasks if not task.drop <= self.allowed]

    @property
    def drop(self) -> float:
        """The largest drop in points."""
        return max((task.drop for task in self.tasks), default=0.0)


class QualityError(TrunklineError):
    """A plan that the gate refuses.

    Attributes:
        report: Of the plan that was refused.
        costs: (layer, share of the error of features that goes when it stays in float32), the most costly first.
        proposal: A plan that passes on the same examples; None if none was found or sought.
    """

    def __init__(
        self,
        given: str,
        *,
        expected: str,
        todo: str,
        report: GateReport,
        costs: Sequence[tuple[str, float]],
        proposal: Plan | None,
    ) -> None:
        super().__init__(given, expected=expected, todo=todo)
        self.report = report
        self.costs = tuple(costs)
        self.proposal = proposal


def quality_gate(
    start: Loaded,
    checks: Sequence[Check],
    plan: Plan,
    calibration: Calibration | None,
    options: GateOptions | None = None,
    *,
    candidate: Loaded | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> GateReport:
    """Scores tasks with the quantised graphs and refuses the plan if one of them loses too much.

    Texts are run one at a time and adapters are rounded to float16, as in a deployed bundle.

    Args:
        start: The bundle; torch in float32 on it is what scores are compared with.
        checks: The tasks with labelled examples.
        plan: What is to be deployed.
        calibration: As for export.
        options: What is allowed.
        candidate: The bundle that graphs are made of, where it is not `start`: one with a smaller vocabulary.
        say: Receives a line now and then.

    Returns:
        The report of a plan that passes.

    Raises:
        QualityError: A task lost more than allowed.
        TrunklineError: There is nothing to compare.
    """
    options = options or GateOptions()
    if not checks:
        raise TrunklineError("no tasks to judge a quantised bundle by", expected="tasks with labelled examples")
    trial = _Trial(candidate or start, take_weights((candidate or start).encoder), calibration)
    known = [reference(start, check) for check in checks]
    report = trial.report(plan, checks, known, options.allowed)
    for task in report.tasks:
        say(str(task))
    if not report.failed:
        return report
    costs = layer_costs(trial.start, trial.weights, checks, plan, calibration, options.texts)
    proposal = _proposal(trial, checks, known, plan, [name for name, _ in costs], options)
    raise _refusal(report, costs, plan, proposal)


def layer_costs(
    start: Loaded,
    weights: BackboneWeights,
    checks: Sequence[Check],
    plan: Plan,
    calibration: Calibration | None,
    texts: int = 24,
) -> list[tuple[str, float]]:
    """How much of the error of features goes when a layer stays in float32, each layer for itself.

    Args:
        start: Gives the tokenizer and the primary adapters.
        weights: The backbone.
        checks: Tasks whose texts are read through their adapters.
        plan: The plan.
        calibration: As for export.
        texts: How many texts of each task.

    Returns:
        (name, share), the most costly first; shares need not add up to 1.
    """
    trial = _Trial(start, weights, calibration)
    exact = trial.features(Plan("float32", "float32"), checks, texts)

    def error(other: Plan) -> float:
        found = trial.features(other, checks, texts)
        return float(np.mean([1 - mean_cosine(x, y) for x, y in zip(exact, found, strict=True)]))

    names = [name for name in linear_layers(weights) if plan.scheme(name) != "float32"]
    whole = max(error(plan), 1e-12)
    shares = [(name, 1 - error(plan.keeping([name])) / whole) for name in names]
    return sorted(shares, key=lambda item: -item[1])


@dataclass(frozen=True, slots=True)
class _Trial:
    """Builds the graphs of plans and runs checks through them."""

    start: Loaded
    weights: BackboneWeights
    calibration: Calibration | None
    known: Rounded = field(default_factory=dict)

    def sessions(self, plan: Plan) -> tuple[Any, Any]:
        weights, kernels = quantised_kernels(self.weights, plan, self.calibration, known=self.known)
        branch = branch_graph(weights, slots=tuple(SLOTS), kernels=kernels)
        return open_session(trunk_graph(weights, kernels)), open_session(branch)

    def report(self, plan: Plan, checks: Sequence[Check], known: Sequence[Reference], allowed: float) -> GateReport:
        trunk, branch = self.sessions(plan)
        pairs = zip(checks, known, strict=True)
        return GateReport(tuple(compare(trunk, branch, self.start, check, own) for check, own in pairs), allowed)

    def features(self, plan: Plan, checks: Sequence[Check], texts: int) -> list[list[Any]]:
        trunk, branch = self.sessions(plan)
        found = []
        for check in checks:
            adapter = check.deployed or check.adapter
            examples = check.examples[:: max(1, len(check.examples) // texts)][:texts]
            units = fitting.example_units(get_family(adapter.family), examples, self.start.tokenizer)
            found.append(graph_features(trunk, branch, units, deployed_feeds(self.start, adapter)[0]))
        return found


def _proposal(
    trial: _Trial,
    checks: Sequence[Check],
    known: Sequence[Reference],
    plan: Plan,
    costly: Sequence[str],
    options: GateOptions,
) -> Plan | None:
    """The plan with as few of the costly layers in a finer scheme as pass, by powers of two; int8 before float32."""
    count = 1
    while count <= min(options.most, len(costly)):
        coarse = [name for name in costly[:count] if plan.scheme(name) != "int8"]
        finer = [plan.keeping(coarse, "int8")] if coarse else []
        for other in (*finer, plan.keeping(costly[:count])):
            if not trial.report(other, checks, known, options.allowed).failed:
                return other
        count *= 2
    return None


def _refusal(report: GateReport, costs: Sequence[tuple[str, float]], plan: Plan, proposal: Plan | None) -> QualityError:
    listed = ", ".join(f"{name} ({100 * share:.0f} % of the error)" for name, share in costs[:NAMED])
    few = min(task.examples for task in report.failed)
    # So few that the gate tells nothing from a single prediction that has changed.
    single = f". One example of {few} is {100 / few:.1f} points" if 100 / few > report.allowed else ""
    if proposal is None:
        finer = "choose int8, " if plan.linear.startswith("int4") else ""
        todo = f"Judge by more examples, {finer}allow a larger drop, or export in float32"
    else:
        kept = sorted(name for name, scheme in proposal.layers.items() if scheme != plan.scheme(name))
        scheme = proposal.scheme(kept[0])
        keep = f"Keep {', '.join(kept)} in {scheme}, which passes"
        todo = f"{keep}, or adapt the tasks again with `trunkline adapt --weights {plan.linear}`"
    return QualityError(
        f"quantised to {plan.linear} weights, {len(report.failed)} of {len(report.tasks)} tasks lose too much: "
        + "; ".join(map(str, report.failed))
        + f"{single}. The layers that cost most are {listed}",
        expected=f"a drop of at most {report.allowed:g} points",
        todo=todo,
        report=report,
        costs=costs,
        proposal=proposal,
    )
