"""Exported graphs against torch: their features on a handful of lengths and batches, and the scores of tasks.

Torch computes rows as in training, packed, without padding in between; graphs compute each alone, and short beside long
with padding behind it. Compared are the features of each token and of the whole row, and what the head makes of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from trunkline.bundle.manifest import FloatArray, Inputs, Shapes
from trunkline.bundle.parts import Head, complete
from trunkline.encoder.encoder import Encoder, FeatureRequest, branch_features
from trunkline.encoder.lora import LoraAdapter
from trunkline.engine.base import Predictor
from trunkline.engine.onnx import Pooling, Row, bank, padded, pool_of
from trunkline.errors import TrunklineError
from trunkline.tasks import FAMILIES
from trunkline.text.tokens import IntArray, TextTokenizer, UnitText

LENGTHS = (2, 3, 8, 17, 64)
"""Tokens of the rows that are cut out of the texts, beside one as long as a window."""
BATCH = 8

Rows = Mapping[str, Any]
Outputs = Mapping[str, FloatArray]
Run = Callable[[Rows, Sequence[str]], Outputs]
"""Runs graphs on `ids` [rows, width], `mask` [rows, width] and `pool` [rows, units, width] with the adapter named for
each row, and gives `features` [rows, units, hidden], `logits` [rows, units, labels] or both."""


@dataclass(frozen=True, slots=True)
class Adapter:
    """What a comparison puts on the backbone: low-rank updates, a head of a family, both or nothing."""

    lora: LoraAdapter | None = None
    head: Head | None = None
    family: str = "classification"


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far graphs may be from torch; float32 differs by a thirtieth of this in the default encoder.

    The largest absolute difference of a feature, as a share of the largest feature where that is above 1, and that of a
    label's probability; the least mean cosine of a run's features.
    """

    features: float = 2e-5
    probabilities: float = 5e-4
    cosine: float = 0.99999

    def allows(self, found: Mapping[str, float]) -> bool:
        """Whether values are allowed; one that is not finite never is."""
        allowed = asdict(self)
        return all(v >= allowed[name] if name == "cosine" else v <= allowed[name] for name, v in found.items())


def check_parity(
    encoder: Encoder,
    tokenizer: TextTokenizer,
    run: Run,
    texts: Sequence[str],
    adapters: Mapping[str, Adapter],
    *,
    mixed: bool = False,
    tolerance: Tolerance | None = None,
) -> dict[str, Any]:
    """Compares graphs, run by `forked` or `banked`, with the encoder that they were made of.

    Rows are windows of the texts, which should be real, and pieces of them of a few lengths. Each adapter is compared;
    `Adapter()` stands for the backbone as it is. `mixed` rows of one batch have different adapters, which only `banked`
    can. Raises TrunklineError if there are no texts or adapters, or a difference is outside the tolerance.

    Returns, as JSON, `runs`, `adapters`, `largest_feature_difference`, `largest_probability_difference` and
    `least_cosine` (None where there was nothing to compare), and what was `allowed`.
    """
    if not texts or not adapters:
        raise TrunklineError(f"parity on {len(texts)} texts and {len(adapters)} adapters", expected="at least one each")
    tolerance = tolerance or Tolerance()
    compared = list(_runs(encoder, _rows_of(tokenizer, texts), run, adapters, mixed))
    outside = [item for item in compared if not tolerance.allows(item[1])]
    if outside:
        # What is no number is worse than any.
        worst = max(outside, key=lambda item: (not np.isfinite([*item[1].values()]).all(), max(item[1].values())))
        given = f"the graphs differ from torch in {len(outside)} of {len(compared)} runs; the worst: {worst[0]}"
        allowed = "features within {features:g}, probabilities within {probabilities:g}, a mean cosine from {cosine:g}"
        todo = "Export again; if it stays, this encoder or this version of ONNX Runtime cannot be used"
        raise TrunklineError(given, expected=allowed.format(**asdict(tolerance)), todo=todo)
    values = {name: [found[name] for _, found in compared if name in found] for name in asdict(tolerance)}
    return {
        "runs": len(compared),
        "adapters": list(adapters),
        "largest_feature_difference": max(values["features"], default=None),
        "largest_probability_difference": max(values["probabilities"], default=None),
        "least_cosine": min(values["cosine"], default=None),
        "allowed": {name: value if np.isfinite(value) else None for name, value in asdict(tolerance).items()},
    }


def _runs(
    encoder: Encoder, tokens: Sequence[IntArray], run: Run, adapters: Mapping[str, Adapter], mixed: bool
) -> Iterator[tuple[str, dict[str, float]]]:
    """Every row alone and among others, through each adapter: what was run, and how it differs from torch."""
    names, units = list(adapters), [_units(ids) for ids in tokens]
    wanted = branch_features(encoder, [FeatureRequest(units, adapter.lora) for adapter in adapters.values()])
    features = dict(zip(names, wanted, strict=True))
    everyone, step = list(range(len(tokens))), -(-len(tokens) // BATCH)
    for chosen in [[row] for row in everyone] + [everyone[first::step] for first in range(step)]:
        ids, mask = padded([Row(i, 0, tokens[i]) for i in chosen], encoder.config.pad_id)
        rows = {"ids": ids, "mask": mask, "pool": pool_of([(Pooling(units[i]), 0) for i in chosen], ids.shape[1])}
        for first, name in enumerate(names):
            own = [names[(first + row) % len(names)] if mixed else name for row in range(len(chosen))]
            expected = [features[name][i] for name, i in zip(own, chosen, strict=True)]
            found = _compare(expected, [adapters[name] for name in own], run(rows, own))
            said = ", ".join(f"{measure} {value:.6g}" for measure, value in found.items())
            yield f"adapter {', '.join(dict.fromkeys(own))}, {len(own)} rows of {ids.shape[1]} tokens: {said}", found


def forked(trunk: Any, branch: Any, inputs: Mapping[str, Inputs]) -> Run:
    """Sessions of a trunk and a branch graph with the inputs of each adapter; all rows of a run have the same."""

    def run(rows: Rows, names: Sequence[str]) -> Outputs:
        given = _states(trunk, rows) | inputs[names[0]]
        return dict(zip(("features", "logits"), branch.run(["features", "logits"], given), strict=True))

    return run


def banked(trunk: Any, branch: Any, inputs: Mapping[str, Inputs], shapes: Shapes) -> Run:
    """Sessions of a trunk and a bank graph; heads are left out, as all rows have the same."""
    places = {name: number for number, name in enumerate(inputs)}
    head = complete({}, {}, int(branch.get_inputs()[0].shape[2]))
    stacked = bank(list(inputs.values()), shapes) | head

    def run(rows: Rows, names: Sequence[str]) -> Outputs:
        chosen = np.array([places[name] for name in names], dtype=np.int64)
        return {"features": branch.run(["features"], _states(trunk, rows) | stacked | {"adapter_ids": chosen})[0]}

    return run


def _states(trunk: Any, rows: Rows) -> dict[str, Any]:
    hidden = trunk.run(["hidden"], {"ids": rows["ids"], "mask": rows["mask"]})[0]
    return {"hidden": hidden, "mask": rows["mask"], "pool": rows["pool"]}


def _rows_of(tokenizer: TextTokenizer, texts: Sequence[str]) -> list[IntArray]:
    """Windows of the texts, then pieces of all of them one after the other, of rising length."""
    windows = [window for tokens in tokenizer.encode(texts) for window in tokens.windows]
    body, longest = np.concatenate([window[1:-1] for window in windows]), tokenizer.max_length
    if not len(body):
        raise TrunklineError("the texts to compare graphs by have no tokens", expected="real text", todo="Give others")
    opening, closing = [tokenizer.opening], [tokenizer.closing]
    lengths = [n for n in LENGTHS if n < longest] + [longest]
    return windows + [np.concatenate((opening, np.resize(body, n - 2), closing)).astype(np.int64) for n in lengths]


def _units(ids: IntArray) -> UnitText:
    """Every token as a unit, and the whole row as the last one."""
    n = len(ids)
    token, unit = np.tile(np.arange(n), 2), np.concatenate((np.arange(n), np.full(n, n)))
    return UnitText(ids, (n,), token, unit, n + 1)


def _compare(expected: Sequence[FloatArray], adapters: Sequence[Adapter], outputs: Outputs) -> dict[str, float]:
    """The largest differences of a run's rows, and the mean cosine of their features."""
    found: dict[str, list[Any]] = {}
    for row, (wanted, adapter) in enumerate(zip(expected, adapters, strict=True)):
        if "features" in outputs:
            own = outputs["features"][row, : len(wanted)]
            found.setdefault("features", []).append(_largest(own, wanted) / max(1.0, float(np.abs(wanted).max())))
            norms = np.linalg.norm(own, axis=-1) * np.linalg.norm(wanted, axis=-1)
            found.setdefault("cosine", []).append((own * wanted).sum(-1) / np.maximum(norms, 1e-30))
        if "logits" in outputs and (head := adapter.head) is not None:
            own, chances = outputs["logits"][row, : len(wanted)], FAMILIES[adapter.family].probabilities
            own = chances(own) if own.size else own
            found.setdefault("probabilities", []).append(_largest(own, chances(wanted @ head.weight + head.bias)))
    return {n: float(np.mean(np.concatenate(v)) if n == "cosine" else np.max(v)) for n, v in found.items()}


def _largest(left: Any, right: Any) -> float:
    """The largest difference; infinite if one has more labels than the other."""
    return float(np.abs(left - right).max()) if left.shape == right.shape else float("inf")


class QualityError(TrunklineError):
    """Rounded weights that the gate refuses."""


def quality_gate(
    before: Predictor, after: Predictor, examples: Mapping[str, Sequence[Any]], max_drop: float
) -> dict[str, Any]:
    """Scores tasks by torch in float32 and by the graphs as they are exported, on examples that are new to each task.

    Returns, as JSON, `allowed_points`, and for each of `tasks` its `metric`, the number of `examples`, the scores
    `float32` and `rounded` in [0, 1], and `agreement`, the share of examples with the same prediction, probabilities
    aside. Raises QualityError where a task's main score lost more than `max_drop` points of a hundred, and
    TrunklineError for a task without examples.
    """
    tasks = {name: _scores(before, after, name, part) for name, part in sorted(examples.items())}
    # Scores that are no numbers fail too.
    failed = {name: row for name, row in tasks.items() if not 100 * (row["float32"] - row["rounded"]) <= max_drop}
    if not failed:
        return {"allowed_points": max_drop, "tasks": tasks}
    few = min(row["examples"] for row in failed.values())
    # So few that the gate tells nothing from a single prediction that has changed.
    single = f". One example of {few} is {100 / few:.1f} points" if 100 / few > max_drop else ""
    said = "; ".join(task_line(name, row) for name, row in failed.items())
    given = f"{len(failed)} of {len(tasks)} tasks lose too much: {said}{single}"
    todo = "Judge by more examples, choose finer weights, allow a larger drop (`--max-drop`), or export with "
    todo += "`--no-gate` and fit the tasks again on the exported bundle"
    raise QualityError(given, expected=f"a drop of at most {max_drop:g} points", todo=todo)


def task_line(name: str, row: Mapping[str, Any]) -> str:
    """A task of the gate's report for people."""
    before, after = 100 * row["float32"], 100 * row["rounded"]
    same = f"{row['examples']} examples, {100 * row['agreement']:.1f} % with the same prediction"
    return f"{name}: {row['metric']} {before:.2f} -> {after:.2f} ({after - before:+.2f} points, {same})"


def _scores(before: Predictor, after: Predictor, name: str, examples: Sequence[Any]) -> dict[str, Any]:
    if not examples:
        raise TrunklineError(f"task {name} has no examples to judge weights by", todo="Give its dev part")
    family = FAMILIES[before.tasks[name].family]
    texts = [example.text for example in examples]
    found = [[row[name] for row in predictor.predict(texts, [name])] for predictor in (before, after)]
    float32, rounded = (family.score(examples, part)[family.main_score] for part in found)
    same = [family.compare(e, x)[1] == family.compare(e, y)[1] for e, x, y in zip(examples, *found, strict=True)]
    counts = {"metric": family.main_score, "examples": len(texts)}
    return {**counts, "float32": float32, "rounded": rounded, "agreement": float(np.mean(same))}
