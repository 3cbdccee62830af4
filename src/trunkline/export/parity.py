"""The parity gate: exported graphs against torch, over lengths, batches, paddings and adapters, on the caller's texts.

Torch computes rows as in training, packed, without padding in between; graphs compute each alone, and beside others
with padding behind it. Compared are the features of each token and of the whole row, and what the head makes of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trunkline.bundle.lora import Feeds, FloatArray, Shapes, bank
from trunkline.encoder.encoder import Encoder
from trunkline.encoder.features import Branch, branch_features
from trunkline.encoder.lora import LoraAdapter
from trunkline.errors import TrunklineError
from trunkline.heads.linear import LinearHead
from trunkline.tasks.base import softmax
from trunkline.text.packing import UnitText
from trunkline.text.tokens import IntArray, TextTokenizer

BATCH = 8
"""Rows of the batches that are compared."""

EXTRA_PADDING = 5
"""Columns of padding behind the longest row of every other batch."""


@dataclass(frozen=True, slots=True)
class Adapter:
    """What a comparison puts on the backbone: low-rank updates, a head, both or nothing."""

    lora: LoraAdapter | None = None
    head: LinearHead | None = None


Rows = Mapping[str, Any]
"""The inputs of a run: `ids` [rows, width], `mask` [rows, width], `pool` [rows, units, width]."""

Outputs = Mapping[str, FloatArray]
"""Some of `features` [rows, units, hidden] and `logits` [rows, units, labels]."""

Run = Callable[[Rows, Sequence[str]], Outputs]
"""Runs graphs on rows; receives the name of each row's adapter."""


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far graphs may be from torch; float32 differs by a thirtieth of this in the default encoder.

    Attributes:
        features: The largest absolute difference of a feature, as a share of the largest feature where that is above 1.
        probabilities: The largest absolute difference of a label's probability.
        cosine: The least mean cosine of a case's features.
    """

    features: float = 2e-5
    probabilities: float = 5e-4
    cosine: float = 0.99999


@dataclass(frozen=True, slots=True)
class CaseResult:
    """What differs in one run: of `features`, `probabilities` and `cosine` those that could be compared."""

    adapter: str
    rows: int
    width: int
    padding: int
    found: Mapping[str, float]

    def within(self, tolerance: Tolerance) -> bool:
        """Whether it is within the tolerance; a value that is not finite never is."""
        return all(
            value >= tolerance.cosine if name == "cosine" else value <= getattr(tolerance, name)
            for name, value in self.found.items()
        )

    def __str__(self) -> str:
        said = ", ".join(f"{name} {value:.6g}" for name, value in self.found.items())
        return f"adapter {self.adapter}, {self.rows} rows of {self.width} tokens ({self.padding} padding): {said}"


@dataclass(frozen=True, slots=True)
class ParityReport:
    """The result of every run, and the tolerance they were held to."""

    cases: tuple[CaseResult, ...]
    tolerance: Tolerance

    def worst(self, name: str) -> float | None:
        """The largest difference of `features` or `probabilities`, the least `cosine`; None if no run could compare."""
        values = [case.found[name] for case in self.cases if name in case.found]
        return (min if name == "cosine" else max)(values, default=None)

    def record(self) -> dict[str, Any]:
        """As JSON: what was compared in how many runs, the largest differences, and those allowed."""
        allowed = {name: getattr(self.tolerance, name) for name in ("features", "probabilities", "cosine")}
        return {
            "runs": len(self.cases),
            "adapters": list(dict.fromkeys(case.adapter for case in self.cases)),
            "largest_feature_difference": self.worst("features"),
            "largest_probability_difference": self.worst("probabilities"),
            "least_cosine": self.worst("cosine"),
            "allowed": {name: value if np.isfinite(value) else None for name, value in allowed.items()},
        }


def check_parity(
    encoder: Encoder,
    tokenizer: TextTokenizer,
    run: Run,
    texts: Sequence[str],
    adapters: Mapping[str, Adapter],
    *,
    mixed: bool = False,
    tolerance: Tolerance | None = None,
) -> ParityReport:
    """Compares graphs with torch.

    Args:
        encoder: The encoder that was exported.
        tokenizer: Its tokenizer; the longest window is the longest row.
        run: The graphs, from `forked`, `banked` or `merged`.
        texts: Real text. Rows are its windows, and pieces of it of every length that is at or next to a power of two.
        adapters: By name; each is compared. `Adapter()` stands for the backbone as it is.
        mixed: Whether rows of one batch have different adapters, which only `banked` can.
        tolerance: What is allowed.

    Raises:
        TrunklineError: There are no texts or adapters, or a difference is outside the tolerance.
    """
    if not texts or not adapters:
        raise TrunklineError(f"parity on {len(texts)} texts and {len(adapters)} adapters", expected="at least one each")
    tokens, tolerance = _rows_of(tokenizer, texts), tolerance or Tolerance()
    units = [_units(ids) for ids in tokens]
    wanted = branch_features(encoder, [Branch(units, adapter.lora) for adapter in adapters.values()])
    features = dict(zip(adapters, wanted, strict=True))
    cases = []
    for chosen, extra in _batches([len(ids) for ids in tokens], tokenizer.max_length):
        for names in _choices(list(adapters), len(chosen), mixed):
            rows = _padded([tokens[i] for i in chosen], extra, encoder.config.pad_id)
            expected = [features[name][i] for name, i in zip(names, chosen, strict=True)]
            heads = [adapters[name].head for name in names]
            found = _compare(expected, heads, run(rows, names))
            width, padding = rows["ids"].shape[1], int((rows["mask"] == 0).sum())
            cases.append(CaseResult(", ".join(dict.fromkeys(names)), len(chosen), width, padding, found))
    outside = [case for case in cases if not case.within(tolerance)]
    if outside:
        # What is no number is worse than any.
        worst = max(outside, key=lambda case: (not np.isfinite([*case.found.values()]).all(), max(case.found.values())))
        raise TrunklineError(
            f"the graphs differ from torch in {len(outside)} of {len(cases)} runs; the worst: {worst}",
            expected=f"features within {tolerance.features:g}, probabilities within {tolerance.probabilities:g}, "
            f"a mean cosine of at least {tolerance.cosine:g}",
            todo="Export again; if it stays, this encoder or this version of ONNX Runtime cannot be used",
        )
    return ParityReport(tuple(cases), tolerance)


def forked(trunk: Any, branch: Any, feeds: Mapping[str, Feeds]) -> Run:
    """Sessions of a trunk and a branch graph, fed with what each adapter has; neighbouring equal rows share a trunk."""
    last: list[Any] = [None, None]

    def run(rows: Rows, names: Sequence[str]) -> Outputs:
        key = rows["ids"].shape, rows["ids"].tobytes(), rows["mask"].tobytes()
        if last[0] != key:
            last[:] = key, trunk.run(["hidden"], {"ids": rows["ids"], "mask": rows["mask"]})[0]
        given = {"hidden": last[1], "mask": rows["mask"], "pool": rows["pool"], **feeds[names[0]]}
        return dict(zip(("features", "logits"), branch.run(["features", "logits"], given), strict=True))

    return run


def banked(trunk: Any, branch: Any, feeds: Mapping[str, Feeds], shapes: Shapes) -> Run:
    """Sessions of a trunk and a bank graph; heads are left out, as all rows have the same."""
    place = {name: number for number, name in enumerate(feeds)}
    hidden = int(branch.get_inputs()[0].shape[2])
    head = {"head.weight": np.zeros((hidden, 0), np.float32), "head.bias": np.zeros(0, np.float32)}
    stacked = {**bank(list(feeds.values()), shapes), **head}

    def run(rows: Rows, names: Sequence[str]) -> Outputs:
        states = trunk.run(["hidden"], {"ids": rows["ids"], "mask": rows["mask"]})[0]
        chosen = np.array([place[name] for name in names], dtype=np.int64)
        given = {"hidden": states, "mask": rows["mask"], "pool": rows["pool"], "adapter_ids": chosen, **stacked}
        return {"features": branch.run(["features"], given)[0]}

    return run


def merged(session: Any) -> Run:
    """A session of a merged graph; it has one adapter, that of the task, and gives no features."""
    return lambda rows, names: {"logits": session.run(["logits"], dict(rows))[0]}


def _rows_of(tokenizer: TextTokenizer, texts: Sequence[str]) -> list[IntArray]:
    """Windows of the texts, then pieces of all of them one after the other, of rising length."""
    windows = [window.ids for tokens in tokenizer.encode(texts) for window in tokens.windows]
    body = np.concatenate([window[1:-1] for window in windows])
    if not len(body):
        raise TrunklineError("the texts for the parity check have no tokens", expected="real text")
    longest = tokenizer.max_length
    powers = [2**power for power in range(longest.bit_length())]
    lengths = sorted({n for power in powers for n in (power - 1, power, power + 1) if 2 <= n <= longest} | {longest})
    opening, closing = [tokenizer.opening], [tokenizer.closing]
    pieces = [np.concatenate((opening, np.resize(body, n - 2), closing)).astype(np.int64) for n in lengths]
    return windows + pieces


def _units(ids: IntArray) -> UnitText:
    """Every token as a unit, and the whole row as the last one."""
    n = len(ids)
    token, unit = np.tile(np.arange(n), 2), np.concatenate((np.arange(n), np.full(n, n)))
    return UnitText(ids, (n,), token, unit, n + 1)


def _batches(lengths: Sequence[int], longest: int) -> list[tuple[list[int], int]]:
    """Rows that are run together, and their extra padding: each one alone, then neighbours, then short beside long."""
    everyone = list(range(len(lengths)))
    together = [everyone[i : i + BATCH] for i in range(0, len(everyone), BATCH)]
    step = max(1, -(-len(everyone) // BATCH))
    apart = [everyone[i::step] for i in range(step)] if step > 1 else []
    fitting = [(rows, min(EXTRA_PADDING, longest - max(lengths[i] for i in rows))) for rows in together]
    return [([i], 0) for i in everyone] + fitting + [(rows, 0) for rows in apart]


def _choices(names: Sequence[str], rows: int, mixed: bool) -> list[list[str]]:
    if not mixed:
        return [[name] * rows for name in names]
    return [[names[(row + first) % len(names)] for row in range(rows)] for first in range(len(names))]


def _padded(tokens: Sequence[IntArray], extra: int, pad_id: int) -> Rows:
    width = max(map(len, tokens)) + extra
    ids = np.full((len(tokens), width), pad_id, dtype=np.int64)
    mask = np.zeros((len(tokens), width), np.float32)
    pool = np.zeros((len(tokens), width + 1, width), np.float32)
    for row, own in enumerate(tokens):
        n = len(own)
        ids[row, :n], mask[row, :n] = own, 1
        pool[row, range(n), range(n)] = 1
        pool[row, n, :n] = 1 / n
    return {"ids": ids, "mask": mask, "pool": pool}


def _compare(expected: Sequence[FloatArray], heads: Sequence[LinearHead | None], outputs: Outputs) -> dict[str, float]:
    """The largest differences of a run's rows, and the mean cosine of their features."""
    found: dict[str, list[Any]] = {}
    for row, (wanted, head) in enumerate(zip(expected, heads, strict=True)):
        if "features" in outputs:
            own = outputs["features"][row, : len(wanted)]
            largest = max(1.0, float(np.abs(wanted).max()))
            found.setdefault("features", []).append(_largest(own, wanted) / largest)
            found.setdefault("cosine", []).append(_cosines(own, wanted))
        if "logits" in outputs and head is not None:
            own = outputs["logits"][row, : len(wanted)]
            own = softmax(own) if own.size else own
            found.setdefault("probabilities", []).append(_largest(own, head.probabilities(wanted)))
    return {n: float(np.mean(np.concatenate(v)) if n == "cosine" else np.max(v)) for n, v in found.items()}


def _largest(left: Any, right: Any) -> float:
    """The largest difference; infinite if one has more labels than the other."""
    return float(np.abs(left - right).max()) if left.shape == right.shape else float("inf")


def _cosines(left: FloatArray, right: FloatArray) -> Any:
    x, y = left.astype(np.float64), right.astype(np.float64)
    norms = np.linalg.norm(x, axis=-1) * np.linalg.norm(y, axis=-1)
    return (x * y).sum(-1) / np.maximum(norms, 1e-30)
