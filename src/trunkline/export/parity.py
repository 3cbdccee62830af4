"""The parity gate: exported graphs against torch, over lengths, batches, paddings and adapters, on the caller's texts.

Torch computes rows as in training, packed, without padding in between; graphs compute each alone, and beside others
with padding behind it. Compared are the features of each token and of the whole row, and what the head makes of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trunkline.bundle.lora import FloatArray, Shapes, bank, complete
from trunkline.encoder.encoder import Encoder
from trunkline.encoder.features import Branch, branch_features
from trunkline.encoder.lora import LoraAdapter
from trunkline.errors import TrunklineError
from trunkline.export.adapters import adapter_feeds
from trunkline.heads.linear import LinearHead
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


@dataclass(frozen=True, slots=True)
class Rows:
    """The inputs of a run: `ids` [rows, width], `mask` [rows, width], `pool` [rows, units, width]."""

    ids: IntArray
    mask: FloatArray
    pool: FloatArray


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
    """The largest differences in one run. What a graph does not give, or a case has no head for, is 0 (cosine 1)."""

    adapter: str
    rows: int
    width: int
    padding: int
    features: float
    probabilities: float
    cosine: float

    def within(self, tolerance: Tolerance) -> bool:
        """Whether it is within the tolerance; a value that is not finite never is."""
        return (
            self.features <= tolerance.features
            and self.probabilities <= tolerance.probabilities
            and self.cosine >= tolerance.cosine
        )

    @property
    def finite(self) -> bool:
        """Whether all differences are numbers."""
        return bool(np.isfinite([self.features, self.probabilities, self.cosine]).all())

    def __str__(self) -> str:
        return (
            f"adapter {self.adapter}, {self.rows} rows of {self.width} tokens ({self.padding} padding): features "
            f"differ by {self.features:.2g}, probabilities by {self.probabilities:.2g}, mean cosine {self.cosine:.6f}"
        )


@dataclass(frozen=True, slots=True)
class ParityReport:
    """The result of every run, and the tolerance they were held to."""

    cases: tuple[CaseResult, ...]
    tolerance: Tolerance

    @property
    def outside(self) -> list[CaseResult]:
        """The runs outside the tolerance."""
        return [case for case in self.cases if not case.within(self.tolerance)]

    @property
    def features(self) -> float:
        """The largest difference of a feature in all runs."""
        return float(np.max([case.features for case in self.cases]))

    @property
    def probabilities(self) -> float:
        """The largest difference of a probability in all runs."""
        return float(np.max([case.probabilities for case in self.cases]))

    @property
    def cosine(self) -> float:
        """The least mean cosine of a run."""
        return float(np.min([case.cosine for case in self.cases]))

    @property
    def mean_cosine(self) -> float:
        """The mean of the runs' mean cosines."""
        return float(np.mean([case.cosine for case in self.cases]))


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
    tokens = _rows_of(tokenizer, texts)
    units = [_units(ids) for ids in tokens]
    features = dict(zip(adapters, _reference(encoder, units, list(adapters.values())), strict=True))
    results = []
    for chosen, extra in _batches([len(ids) for ids in tokens], tokenizer.max_length):
        for names in _choices(list(adapters), len(chosen), mixed):
            rows = _padded([tokens[i] for i in chosen], extra, encoder.config.pad_id)
            expected = [features[name][i] for name, i in zip(names, chosen, strict=True)]
            results.append(_compare(rows, names, expected, adapters, run(rows, names)))
    report = ParityReport(tuple(results), tolerance or Tolerance())
    if report.outside:
        worst = max(report.outside, key=lambda case: (not case.finite, case.features, case.probabilities))
        raise TrunklineError(
            f"the graphs differ from torch in {len(report.outside)} of {len(results)} runs; the worst: {worst}",
            expected=f"at most {report.tolerance.features:g} and {report.tolerance.probabilities:g}, mean cosine at "
            f"least {report.tolerance.cosine:g}",
            todo="Export again; if it stays, this encoder or this version of ONNX Runtime cannot be used",
        )
    return report


def forked(trunk: Any, branch: Any, adapters: Mapping[str, Adapter], required: Shapes | None = None) -> Run:
    """Sessions of a trunk and a branch graph; with the LoRA shapes of a branch whose inputs are required."""
    feeds = {name: adapter_feeds(adapter.lora, adapter.head) for name, adapter in adapters.items()}
    if required is not None:
        hidden = int(branch.get_inputs()[0].shape[2])
        feeds = {name: complete(feed, required, hidden) for name, feed in feeds.items()}

    def run(rows: Rows, names: Sequence[str]) -> Outputs:
        states = trunk.run(["hidden"], {"ids": rows.ids, "mask": rows.mask})[0]
        given = {"hidden": states, "mask": rows.mask, "pool": rows.pool, **feeds[names[0]]}
        return dict(zip(("features", "logits"), branch.run(["features", "logits"], given), strict=True))

    return run


def banked(trunk: Any, branch: Any, adapters: Mapping[str, Adapter], shapes: Shapes) -> Run:
    """Sessions of a trunk and a bank graph; heads are left out, as all rows have the same."""
    place = {name: number for number, name in enumerate(adapters)}
    hidden = int(branch.get_inputs()[0].shape[2])
    feeds = bank([adapter_feeds(adapter.lora) for adapter in adapters.values()], shapes)
    head = {"head.weight": np.zeros((hidden, 0), np.float32), "head.bias": np.zeros(0, np.float32)}

    def run(rows: Rows, names: Sequence[str]) -> Outputs:
        states = trunk.run(["hidden"], {"ids": rows.ids, "mask": rows.mask})[0]
        chosen = np.array([place[name] for name in names], dtype=np.int64)
        given = {"hidden": states, "mask": rows.mask, "pool": rows.pool, "adapter_ids": chosen, **feeds, **head}
        return {"features": branch.run(["features"], given)[0]}

    return run


def merged(session: Any) -> Run:
    """A session of a merged graph; it has one adapter, that of the task."""

    def run(rows: Rows, names: Sequence[str]) -> Outputs:
        given = {"ids": rows.ids, "mask": rows.mask, "pool": rows.pool}
        return {"logits": session.run(["logits"], given)[0]}

    return run


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
    token = np.tile(np.arange(n), 2)
    unit = np.concatenate((np.arange(n), np.full(n, n)))
    return UnitText(ids, (n,), token, unit, n + 1)


def _reference(
    encoder: Encoder, units: Sequence[UnitText], adapters: Sequence[Adapter]
) -> list[list[npt.NDArray[np.float32]]]:
    return branch_features(encoder, [Branch(units, adapter.lora) for adapter in adapters])


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
    return Rows(ids, mask, pool)


def _compare(
    rows: Rows,
    names: Sequence[str],
    expected: Sequence[npt.NDArray[np.float32]],
    adapters: Mapping[str, Adapter],
    found: Outputs,
) -> CaseResult:
    features, probabilities, cosines = [0.0], [0.0], []
    for row, (name, wanted) in enumerate(zip(names, expected, strict=True)):
        head = adapters[name].head
        if "features" in found:
            own = found["features"][row, : len(wanted)]
            features.append(_largest(own, wanted) / max(1.0, float(np.abs(wanted).max())))
            cosines.append(_cosines(own, wanted))
        if "logits" in found and head is not None:
            own = _softmax(found["logits"][row, : len(wanted)])
            probabilities.append(_largest(own, head.probabilities(wanted)))
    return CaseResult(
        adapter=", ".join(dict.fromkeys(names)),
        rows=len(names),
        width=rows.ids.shape[1],
        padding=int((rows.mask == 0).sum()),
        features=float(np.max(features)),
        probabilities=float(np.max(probabilities)),
        cosine=float(np.mean(np.concatenate(cosines))) if cosines else 1.0,
    )


def _largest(left: npt.NDArray[np.float32], right: npt.NDArray[np.float32]) -> float:
    """The largest difference; infinite if one has more labels than the other."""
    return float(np.abs(left - right).max()) if left.shape == right.shape else float("inf")


def _cosines(left: npt.NDArray[np.float32], right: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    x, y = left.astype(np.float64), right.astype(np.float64)
    norms = np.linalg.norm(x, axis=-1) * np.linalg.norm(y, axis=-1)
    return np.asarray((x * y).sum(-1) / np.maximum(norms, 1e-30))


def _softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    exponents = np.exp(logits - logits.max(axis=-1, keepdims=True, initial=-np.inf))
    return np.asarray(exponents / exponents.sum(axis=-1, keepdims=True))
