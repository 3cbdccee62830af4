"""What is said, by scores: the best labels, none of them, sets that hold the right one, thresholds for a precision.

Everything here stands on what a task's file keeps of examples when they were held out, see
`trunkline.bundle.manifest.DECISIONS`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from trunkline.bundle.parts import Task
from trunkline.errors import TrunklineError
from trunkline.heads.fit import LabelledFeatures, fit_head, logits_of
from trunkline.heads.linear import FloatArray
from trunkline.tasks import FAMILIES, Labels
from trunkline.text.examples import TextExample

CONFIDENCE = 0.9
"""Of the bound on the share of wrong ones: one task in ten may miss the precision that was promised to it."""

STEP = 1.2
"""Times as many answers that each threshold that is tested lets through; each test more may fail by chance."""

OTHER = "none of these"
"""The label that stands for texts that have none of the labels."""

SHARE = 0.1
"""Of held-out labelled texts, that look less like any label than the unlabelled ones that are taken for `OTHER`."""


def learn(
    model: Any,
    name: str,
    family: str,
    parts: tuple[Sequence[Any], Sequence[Any]],
    mode: str,
    *,
    precision: float | None = None,
    other: float | None = None,
    unlabelled: Any = None,
    **settings: Any,
) -> tuple[Task, dict[str, Any]]:
    """Learns a task as `Model.fit` does, and then what is decided from its scores, which its file keeps.

    Args:
        model: The `Model`.
        name: As for `Model.fit`, as are family, mode and settings.
        family: See there.
        parts: Train and dev.
        mode: See there.
        precision: Share of right ones among what is said; see `with_precision`.
        other: Share of labelled texts of which may be said that they have none of the labels; see `with_other`.
        unlabelled: Texts, some of which have none of the labels; see `none_of`.
        settings: See there.
    """
    if (other is not None or unlabelled is not None) and family != "classification":
        raise TrunklineError(f"other or unlabelled for {family}", expected="a task of classification")
    if precision is not None and family == "qa":
        raise TrunklineError("precision for qa", expected="another family, whose answers have labels")
    _check("precision", precision)
    _check("other", other)
    (train, dev), notes, chosen = parts, list[str](), dict[str, Any]()
    taken = [] if unlabelled is None else _taken(model, train, unlabelled, settings.get("seed", 0), notes)
    task, tried = model._learnt(name, family, ([*train, *taken], dev), mode, settings)
    decisions = {**task.decisions, "min_score": 0.0} | ({"other": OTHER} if taken else {})
    task = replace(task, decisions=decisions)
    for way, asked in ((with_other, other), (with_precision, precision)):
        if asked is not None:
            found = way(task, asked)
            decisions["min_score"] = max(decisions["min_score"], found["min_score"])
            chosen |= found["chosen"]
    if chosen.get("promised") is False:
        seen = f"{chosen['right']} of {chosen['answers']} held-out answers were right"
        sure = f"at least {chosen['at_least']:.1%} are with confidence {CONFIDENCE:.0%}"
        notes.append(f"a precision of {precision:.1%} cannot be promised: {seen} from the threshold on, {sure}")
    decisions["chosen"] = chosen | ({"taken": len(taken)} if unlabelled is not None else {})
    own = {"units": task.units, "lora": task.lora_arrays() or None, "alpha": task.alpha}
    info, head = {**task.info, "examples": len(train)}, replace(task.head, decisions=decisions)
    made = model._task(name, family, task.labels, head, info=info, **own)
    said = {"min_score": decisions["min_score"], **decisions["chosen"]}
    return made, {**tried, "decisions": said, "notes": notes}


def _taken(model: Any, train: Sequence[Any], unlabelled: Any, seed: int, notes: list[str]) -> list[Any]:
    """Unlabelled texts that have none of the labels, as examples of `OTHER`."""
    from trunkline.data.inputs import texts_from

    texts, kind = list(texts_from(unlabelled)), FAMILIES["classification"]
    if OTHER in (labels := kind.labels(train)):
        raise TrunklineError(f"the label {OTHER!r}", expected="another name", todo="Leave unlabelled out, or rename it")
    data, _ = model.labelled(train, kind.name, "text", labels, features=True)
    features = model._predictor.features(model.tokenizer.encode(texts), kind.name, "text")
    found = none_of(data, labels, features, seed) if texts else []
    said = f"{len(found)} of {len(texts)} unlabelled texts are learnt as {OTHER!r}"
    notes.append(f"{said}, and counted in held-out scores" if found else f"{said}, as all look like labelled ones")
    return [TextExample(texts[number], OTHER) for number in found]


def decider(
    tasks: Mapping[str, Task],
    top_k: int | None = None,
    min_score: float | Mapping[str, float] | None = None,
    coverage: float | None = None,
) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """What is made of a text's predictions by some tasks, with what their files say and what is asked for here.

    Args:
        tasks: That predict, by name.
        top_k: Labels of classification whose probabilities are shown.
        min_score: The least score of what is said, for all tasks or by task, instead of that in their files.
        coverage: Share of texts whose right label is to be in the set of labels that classification gives.

    Raises:
        TrunklineError: Something that no task can be asked for, with what would do.
    """
    by_task = dict(min_score) if isinstance(min_score, Mapping) else dict.fromkeys(tasks, min_score)
    for name in sorted(by_task.keys() - tasks.keys()):
        raise TrunklineError(f"min_score for task {name}", expected="some of " + ", ".join(tasks))
    for name, least in by_task.items():
        _check(f"task {name}: min_score", least)
    _check("coverage", coverage)
    if top_k is not None and (type(top_k) is not int or top_k < 1):
        raise TrunklineError(f"top_k={top_k!r}", expected="a whole number from 1")
    families = {task.family for task in tasks.values()}
    if coverage is not None and "classification" not in families:
        raise TrunklineError(f"coverage={coverage} for {', '.join(tasks)}", expected="a task of classification")
    if top_k is not None and not families & {"classification", "multilabel"}:
        raise TrunklineError(f"top_k={top_k} for {', '.join(tasks)}", expected="a task whose texts have labels")
    made = {name: _of_task(task, top_k, by_task.get(name), coverage) for name, task in tasks.items()}
    return lambda row: {name: made[name](prediction) for name, prediction in row.items()}


def _check(name: str, value: float | None) -> None:
    if value is not None and not (isinstance(value, int | float) and 0 <= value <= 1):
        raise TrunklineError(f"{name}={value!r}", expected="a number from 0 to 1")


def _of_task(task: Task, top_k: int | None, min_score: float | None, coverage: float | None) -> Callable[[Any], Any]:
    least = task.decisions.get("min_score", 0.0) if min_score is None else min_score
    if task.family == "ner":
        return lambda found: [entity for entity in found if entity["score"] >= least]
    if task.family == "multilabel":
        return lambda found: _several(found, top_k, least, min_score)
    if task.family != "classification":
        return lambda found: found
    other = task.decisions.get("other")
    level = None if coverage is None else least_chance(task, coverage)

    def decided(found: dict[str, Any]) -> dict[str, Any]:
        said = found["label"] if found["score"] >= least and found["label"] != other else None
        ranked = found["probabilities"]
        result = {**found, "label": said, "probabilities": dict(list(ranked.items())[:top_k])}
        if level is not None:
            result["set"] = [label for label, chance in ranked.items() if chance >= level and label != other]
        return result

    return decided


def _several(found: dict[str, Any], top_k: int | None, least: float, asked: float | None) -> dict[str, Any]:
    """Of a text with several labels; a least score that is asked for stands instead of the labels' thresholds."""
    ranked, labels = found["probabilities"], found["labels"] if asked is None else found["probabilities"]
    said = [label for label in labels if ranked[label] >= least]
    return {**found, "labels": said, "probabilities": dict(list(ranked.items())[:top_k])}


def least_chance(task: Task, coverage: float) -> float:
    """The probability from which labels are in a set that holds the right one for this share of new texts.

    Split conformal prediction (Vovk et al. 2005, with the score of Sadinle et al. 2019) on the probabilities of right
    labels when their texts were held out: of n of them and a new one each rank is equally likely, so that the new one
    is below the k-th lowest with probability k / (n + 1). Between two ranks the level lies between their values.

    Raises TrunklineError where there are too few for this coverage.
    """
    chances = np.sort(np.concatenate([np.zeros(0), *(own.get("true", ()) for own in _held_out(task).values())]))
    rank = round((1 - coverage) * (len(chances) + 1), 9)
    if rank < 1:
        most = len(chances) / (len(chances) + 1)
        needed = f"{math.ceil(1 / (1 - coverage) - 1e-9) - 1} labelled texts" if coverage < 1 else "no sets at all"
        given = f"coverage={coverage} with {len(chances)} held-out texts of task {task.name}"
        raise TrunklineError(given, expected=f"at most {math.floor(1000 * most) / 1000:g}, or {needed}")
    return float(np.interp(rank, np.arange(1, len(chances) + 1), chances))


def _held_out(task: Task) -> Mapping[str, Mapping[str, Any]]:
    found: Mapping[str, Mapping[str, Any]] | None = task.decisions.get("held_out")
    if not found:
        given = f"task {task.name} keeps no scores of held-out texts"
        raise TrunklineError(given, todo="Fit the task again with this version")
    return {label: own for label, own in found.items() if label != task.decisions.get("other")}


def with_precision(task: Task, precision: float) -> dict[str, Any]:
    """`min_score` and how it was chosen: the lowest from which held-out answers are right as often as is wanted.

    Answers are texts with a label, or labels of a text, or entities. Thresholds are tested one after the other, each
    whether the share of right answers from there on is surely at least `precision` (one-sided binomial test); the last
    before the first that fails is taken. They are tested downwards from the one that scores alone, which do not know
    what is right, say is the surest; as the order is fixed before, none needs a correction (Angelopoulos et al. 2021),
    and with `CONFIDENCE` the share is that high for new answers like these. Where the first one fails, as where there
    are fewer than `needed`, nothing is promised: then it is the threshold with the most answers of which this share
    was right.
    """
    found = _held_out(task).values()
    right, wrong = (np.concatenate([np.zeros(0), *(own.get(part, ()) for own in found)]) for part in ("right", "wrong"))
    scores = np.sort(np.concatenate([right, wrong]))[::-1]
    levels, hits = np.unique(scores)[::-1], np.sort(right)[::-1]
    kept, true = (np.searchsorted(-part, -levels, side="right") for part in (scores, hits))
    needed = math.ceil(math.log(1 - CONFIDENCE) / math.log(precision) - 1e-9) if 0 < precision < 1 else 1
    hoped = (np.cumsum(scores)[kept - 1] - precision * kept) / np.sqrt(kept) if len(kept) else scores
    place = int(np.argmax(np.where(kept >= needed, hoped, -np.inf))) if len(kept) else 0
    passed = list[int]()
    while place < len(levels) and _tail(int(kept[place]), int(true[place]), precision) <= 1 - CONFIDENCE:
        passed.append(place)
        place = max(place + 1, int(np.searchsorted(kept, STEP * kept[place], side="right")) - 1)
    fits = np.flatnonzero(true >= precision * kept)
    place = passed[-1] if passed else int(fits[-1]) if len(fits) else -1
    n, k = (int(kept[place]), int(true[place])) if place >= 0 else (0, 0)
    chosen = {
        "precision": precision,
        "promised": bool(passed),
        "answers": n,
        "right": k,
        "at_least": round(_bound(n, k), 4),
        "recall": round(k / max(sum(own.get("count", 0) for own in found), 1), 4),
        "confidence": CONFIDENCE,
        "needed": needed,
    }
    return {"min_score": float(levels[place]) if place >= 0 else 1.0, "chosen": chosen}


def _tail(n: int, k: int, p: float) -> float:
    """Probability that at least k of n are right where each is with probability p."""
    if k <= 0 or p in (0.0, 1.0):
        return float(k <= 0 or p == 1.0)
    i = np.arange(k, n + 1)
    ways = math.lgamma(n + 1) - np.array([math.lgamma(a + 1) + math.lgamma(n - a + 1) for a in i])
    return float(np.exp(ways + i * math.log(p) + (n - i) * math.log1p(-p)).sum())


def _bound(n: int, k: int) -> float:
    """The lower bound of Clopper and Pearson on the share of right ones, of which k of n were seen."""
    low, high = 0.0, k / max(n, 1)
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if _tail(n, k, middle) <= 1 - CONFIDENCE else (low, middle)
    return low


def with_other(task: Task, share: float) -> dict[str, Any]:
    """`min_score` below which this share of held-out labelled texts lies: what scores lower has none of the labels."""
    own = _held_out(task).values()
    scores = np.sort(np.concatenate([np.zeros(0), *(one.get(part, ()) for one in own for part in ("right", "wrong"))]))
    place = math.ceil(share * len(scores))
    return {"min_score": float(scores[place]) if place < len(scores) else 1.0, "chosen": {"other": share}}


def none_of(data: LabelledFeatures, labels: Labels, unlabelled: Sequence[FloatArray], seed: int) -> list[int]:
    """The numbers of unlabelled texts, by their features, that look like none of the labels.

    The log of a text's summed odds is low where it is unlike all that is labelled (Liu et al. 2020). Those are taken
    that are below `SHARE` of the labelled ones when these were held out; as many as the commonest label has, evenly
    over their order. A head that has them as one label more parts them better than any score of the first one.
    """
    family = FAMILIES["classification"]
    fitted = fit_head(family, data, labels, seed=seed)
    known, own = (np.logaddexp.reduce(x, axis=1) for x in (fitted.logits, logits_of(fitted.head, unlabelled, family)))
    order = own.argsort(kind="stable")[: int((own < np.quantile(known, SHARE)).sum())]
    most = min(len(order), max(Counter(target for (target,) in data.targets).values()))
    return sorted(order[np.linspace(0, len(order) - 1, most).astype(int)].tolist())
