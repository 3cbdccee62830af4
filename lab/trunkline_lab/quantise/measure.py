"""Features, scores and agreement of exported graphs on labelled examples, beside those of torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trunkline.bundle.lora import Feeds, fuse
from trunkline.encoder.adapter_file import AdapterFile
from trunkline.encoder.bundle_files import Loaded
from trunkline.errors import TrunklineError
from trunkline.export.adapters import adapter_tensors, to_half
from trunkline.export.weights import FloatArray
from trunkline.heads.linear import LinearHead
from trunkline.tasks import get_family
from trunkline.tasks.base import Family
from trunkline.text.packing import UnitText
from trunkline_lab import fitting


@dataclass(frozen=True, slots=True)
class Check:
    """A task to judge a plan by.

    Attributes:
        name: Of the task.
        adapter: The task as adapted on the backbone in float32.
        examples: Labelled, and not trained on.
        deployed: The task as it is deployed, where that is another, such as one adapted on the quantised backbone.
    """

    name: str
    adapter: AdapterFile
    examples: Sequence[Any]
    deployed: AdapterFile | None = None


@dataclass(frozen=True, slots=True)
class TaskResult:
    """A task in float32 and quantised.

    Attributes:
        name: Of the task.
        metric: What the scores are, both in [0, 1].
        examples: How many were scored.
        before: The score by torch in float32.
        after: The score by the quantised graphs.
        agreement: The share of examples with the same prediction before and after, its probabilities aside.
        cosine: The mean cosine of the features of units; 1 where before and after have different adapters.
    """

    name: str
    metric: str
    examples: int
    before: float
    after: float
    agreement: float
    cosine: float

    @property
    def drop(self) -> float:
        """Points of a hundred that are lost; negative for a gain."""
        return 100 * (self.before - self.after)

    def __str__(self) -> str:
        return (
            f"{self.name}: {self.metric} {100 * self.before:.2f} -> {100 * self.after:.2f} ({-self.drop:+.2f} points, "
            f"{self.examples} examples, {100 * self.agreement:.1f} % with the same prediction)"
        )


@dataclass(frozen=True, slots=True)
class Reference:
    """What torch makes of a check in float32."""

    family: Family
    head: LinearHead
    features: Sequence[FloatArray]
    predictions: Sequence[Any]
    score: float


def graph_features(trunk: Any, branch: Any, texts: Sequence[UnitText], feeds: Mapping[str, Any]) -> list[FloatArray]:
    """Features of units by graphs, one window of one text at a time, as on a device.

    Args:
        trunk: A session of a trunk graph.
        branch: A session of a branch graph with optional inputs.
        texts: The texts with their units.
        feeds: Of the adapter.

    Returns:
        [units, hidden] for each text.
    """
    return [_text_features(trunk, branch, text, feeds) for text in texts]


def _text_features(trunk: Any, branch: Any, text: UnitText, feeds: Mapping[str, Any]) -> FloatArray:
    counts = np.bincount(text.unit, minlength=text.n_units)
    result = np.zeros((text.n_units, branch.get_inputs()[0].shape[2]), np.float32)
    begin = 0
    for size in text.sizes:
        inside = (text.token >= begin) & (text.token < begin + size)
        if inside.any():
            units, place = np.unique(text.unit[inside], return_inverse=True)
            pool = np.zeros((1, len(units), size), np.float32)
            np.add.at(pool[0], (place, text.token[inside] - begin), 1 / counts[text.unit[inside]])
            mask = np.ones((1, size), np.float32)
            states = trunk.run(["hidden"], {"ids": text.ids[None, begin : begin + size], "mask": mask})[0]
            found = branch.run(["features"], {"hidden": states, "mask": mask, "pool": pool, **feeds})[0]
            result[units] += found[0]
        begin += size
    return result


def deployed_feeds(start: Loaded, adapter: AdapterFile) -> tuple[Feeds, LinearHead]:
    """An adapter's LoRA as feeds, and its head, both as files hold them, in float16."""
    lora = adapter.lora if adapter.lora is not None else start.primary(adapter.family)
    feeds = fuse(to_half(adapter_tensors(lora)))
    tensors = {name: half.astype(np.float32) for name, half in to_half(adapter_tensors(None, _head(adapter))).items()}
    weight = np.ascontiguousarray(tensors["head.weight"].T)
    return feeds, LinearHead(weight, tensors["head.bias"], tensors.get("head.transitions"))


def reference(start: Loaded, check: Check) -> Reference:
    """The features, predictions and score of a check by torch.

    Raises:
        TrunklineError: There are no examples, or the adapter has no head.
    """
    if not check.examples:
        raise TrunklineError(f"task {check.name} has no examples to judge a plan by", todo="Give its dev part")
    adapter, family = check.adapter, get_family(check.adapter.family)
    lora = adapter.lora if adapter.lora is not None else start.primary(adapter.family)
    features = fitting.example_features(family, check.examples, start.encoder, start.tokenizer, lora)
    predictions = fitting.predict(family, _head(adapter), features, check.examples, adapter.labels)
    score = family.score(check.examples, predictions)[family.main_score]
    return Reference(family, _head(adapter), features, predictions, score)


def compare(trunk: Any, branch: Any, start: Loaded, check: Check, known: Reference) -> TaskResult:
    """Scores a check by graphs and sets it beside torch.

    Args:
        trunk: A session of a trunk graph.
        branch: A session of a branch graph with an input for every slot that the adapter has.
        start: Gives the tokenizer and the primary adapters that belong to the graphs.
        check: The task.
        known: Of this check.
    """
    family, adapter = known.family, check.deployed or check.adapter
    feeds, head = deployed_feeds(start, adapter)
    features = graph_features(trunk, branch, fitting.example_units(family, check.examples, start.tokenizer), feeds)
    predictions = fitting.predict(family, head, features, check.examples, adapter.labels)
    pairs = zip(known.predictions, predictions, strict=True)
    same_adapter = check.deployed is None
    return TaskResult(
        name=check.name,
        metric=family.main_score,
        examples=len(check.examples),
        before=known.score,
        after=family.score(check.examples, predictions)[family.main_score],
        agreement=float(np.mean([plain(before) == plain(after) for before, after in pairs])),
        cosine=mean_cosine(known.features, features) if same_adapter else 1.0,
    )


def mean_cosine(left: Sequence[npt.NDArray[Any]], right: Sequence[npt.NDArray[Any]]) -> float:
    """The mean cosine of features, [units, hidden] for each text."""
    x, y = (np.concatenate(list(part)).astype(np.float64) for part in (left, right))
    norms = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    return float(np.mean((x * y).sum(axis=1) / np.maximum(norms, 1e-30)))


def plain(prediction: Any) -> Any:
    """A prediction without its scores and probabilities, which differ even where what is predicted does not."""
    if isinstance(prediction, Mapping):
        return {key: plain(value) for key, value in prediction.items() if key not in ("score", "probabilities")}
    return [plain(item) for item in prediction] if isinstance(prediction, list) else prediction


def _head(adapter: AdapterFile) -> LinearHead:
    if adapter.head is None:
        raise TrunklineError("a primary adapter has no predictions", expected="a task adapter, which has a head")
    return adapter.head
