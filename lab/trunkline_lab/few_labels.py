"""Heads from 8 and 16 labels a class in all, beside scikit-learn, on spare tasks: scores and probabilities.

Spare tasks are none of the 21 of the benchmark, so that settings of the product may be chosen on them. Nothing is set
aside: everything is chosen by cross-validation within a draw. Balanced draws have n texts of each class, natural ones
the same total in the proportions of the train part. Features are those of the default model in its default engine.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

import trunkline
from trunkline.heads.fit import LabelledFeatures, fit_head
from trunkline.model import Model
from trunkline.tasks import FAMILIES, Family, Labels, Scored
from trunkline.tasks.classification import softmax
from trunkline_lab.data.cards import load_card
from trunkline_lab.data.sample import draw
from trunkline_lab.resampling import RESAMPLES

FloatArray = npt.NDArray[np.floating[Any]]

NER = ("crossner_music", "crossner_science", "crossner_ai", "crossner_literature", "atis_slots", "hwu64_slots")
CLASSIFICATION = (
    "cr",
    "subj",
    "sst5",
    "snips_intents",
    "atis_intents",
    "tweeteval_irony",
    "tweeteval_hate",
    "sms_spam",
)
KINDS = ("balanced", "natural")
SIZES = (8, 16)
MOST_TEST = 1000
BINS = 15


@dataclass(frozen=True)
class Draw:
    """A draw of a task: what is trained on, and test.

    Attributes:
        family: Of the task.
        labels: Outputs of a head.
        train: Examples, features and targets.
        test: The same; a target is -1 where the draw lacks the label.
        seed: Of the draw.
    """

    family: Family
    labels: Labels
    train: LabelledFeatures
    test: LabelledFeatures
    seed: int


Probabilities = tuple[Sequence[FloatArray], FloatArray | None]
"""[units, labels] of each test example, and transitions."""


def head(found: Draw, **settings: Any) -> Probabilities:
    """The product's head."""
    fitted = fit_head(found.family, found.train, found.labels, seed=found.seed, **settings).head
    return [softmax(part @ fitted.weight + fitted.bias) for part in found.test.features], fitted.transitions


def head_on_unit_rows(found: Draw) -> Probabilities:
    """The product's head on rows of length 1."""

    def unit(part: LabelledFeatures) -> LabelledFeatures:
        return replace(part, features=[x / np.linalg.norm(x, axis=1, keepdims=True) for x in part.features])

    return head(replace(found, train=unit(found.train), test=unit(found.test)))


def balanced(found: Draw) -> Probabilities:
    """The product's head with `class_weight="balanced"`."""
    return head(found, class_weight="balanced")


class EmbeddingRegression:
    """scikit-learn's LogisticRegression on the same encoder's mean-pooled last layer, rows of length 1."""

    def __init__(self) -> None:
        from trunkline.encoder.bundle_files import embedder

        self._embed = embedder("default", 256)
        self._known: dict[str, FloatArray] = {}

    def __call__(self, found: Draw) -> Probabilities:
        """Fits and predicts; texts are embedded once."""
        x, test = (self._rows([example.text for example in part.examples]) for part in (found.train, found.test))
        return _regression(found, x, test, np.logspace(-2, 3, 6)), None

    def _rows(self, texts: Sequence[str]) -> FloatArray:
        if new := [text for text in dict.fromkeys(texts) if text not in self._known]:
            self._known.update(zip(new, self._embed(new), strict=True))
        rows = np.stack([self._known[text] for text in texts])
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def tf_idf(found: Draw) -> Probabilities:
    """scikit-learn's LogisticRegression on TF-IDF of words, one and two, and of 2 to 5 characters within words."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_union

    characters = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True)
    vectors = make_union(TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), characters)
    x = vectors.fit_transform([example.text for example in found.train.examples])
    test = vectors.transform([example.text for example in found.test.examples])
    return _regression(found, x, test, np.logspace(-1, 3, 5)), None


def _regression(found: Draw, x: Any, test: Any, penalties: FloatArray) -> list[FloatArray]:
    """C by accuracy in 5 stratified folds, scikit-learn's default score, where a class has 5 texts; else C = 1."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedKFold

    y, model = np.concatenate(found.train.targets), LogisticRegression(max_iter=500)
    if np.bincount(y).max() >= 5:
        folds = StratifiedKFold(5, shuffle=True, random_state=found.seed)
        model = GridSearchCV(model, {"C": penalties}, cv=folds)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(x, y)
    chances = np.zeros((test.shape[0], len(found.labels)))
    chances[:, model.classes_] = model.predict_proba(test)
    return list(chances[:, None])


def draws(model: Model, name: str, kinds: Sequence[str], sizes: Sequence[int], seeds: int) -> Iterator[tuple[Any, ...]]:
    """(kind, size, seed, draw) of a task."""
    card = load_card(name)
    kind = FAMILIES[card.family]
    pool, test = card.load("train"), card.load("test" if "test" in card.splits else "dev")
    test = draw(test, kind.classes, seed=0, sentences=MOST_TEST)
    units = kind.choose_units(pool, model.tokenizer)
    known, _ = model.labelled(test, card.family, units, kind.labels(pool), features=True)
    for size in sizes:
        for seed in range(seeds):
            even = draw(pool, kind.classes, seed=seed, per_class=size)
            for proportions in kinds:
                rows = even if proportions == "balanced" else _natural(pool, kind, len(even), seed)
                labels = kind.labels(rows)
                train, _ = model.labelled(rows, card.family, units, labels, features=True)
                pairs = zip(test, known.texts, strict=True)
                targets = [kind.unit_targets(example, labels, borders) for example, (_, borders) in pairs]
                yield proportions, size, seed, Draw(kind, labels, train, replace(known, targets=targets), seed)


def _natural(pool: Sequence[Any], family: Family, count: int, seed: int) -> list[Any]:
    """As many as a balanced draw has; of two classes at least, as no more than one cannot be learnt."""
    for attempt in range(100):
        rows = draw(pool, family.classes, seed=seed + 1000 * attempt, sentences=count)
        if len({name for example in rows for name in family.classes(example)}) > 1:
            return rows
    raise AssertionError("the pool has one class")


def measure(found: Draw, method: Callable[[Draw], Probabilities]) -> dict[str, float]:
    """Scores on test, mean log loss and expected calibration error of units, of entities' scores too, and seconds."""
    began = time.perf_counter(), time.thread_time()
    probabilities, transitions = method(found)
    seconds, processor = time.perf_counter() - began[0], time.thread_time() - began[1]
    predicted = found.family.decode([Scored(probabilities, found.test.texts, found.labels, transitions)])[0]
    scores = found.family.score(found.test.examples, predicted)
    y, chances = np.concatenate(found.test.targets), np.concatenate(probabilities)
    y, chances = y[y >= 0], chances[y >= 0].astype(np.float64)
    true = np.maximum(chances[np.arange(len(y)), y], 1e-9)
    result = {
        **{name: scores[name] for name in (found.family.main_score, "macro_f1")},
        "log_loss": -float(np.log(true).mean()),
        "calibration_error": calibration_error(chances.max(axis=1), chances.argmax(axis=1) == y),
        "seconds": seconds,
        "processor_seconds": processor,
        "examples": float(len(found.train.examples)),
    }
    if found.family.name == "ner":
        rows = zip(found.test.examples, predicted, strict=True)
        pairs = [
            (entity["score"], (entity["start"], entity["end"], entity["label"]) in _spans(example))
            for example, entities in rows
            for entity in entities
        ]
        said, right = (
            (np.asarray(column, float) for column in zip(*pairs, strict=True)) if pairs else (np.zeros(0),) * 2
        )
        result["entity_calibration_error"] = calibration_error(said, right)
    return result


def _spans(example: Any) -> set[tuple[int, int, str]]:
    return {(span.start, span.end, span.label) for span in example.spans}


def calibration_error(said: FloatArray, right: npt.NDArray[Any]) -> float:
    """Mean distance of said probability and share of right ones, over `BINS` bins of equal mass."""
    order = np.argsort(said, kind="stable")
    bins = [rows for rows in np.array_split(order, BINS) if len(rows)]
    gaps = [abs(float(said[rows].mean()) - float(right[rows].mean())) * len(rows) for rows in bins]
    return sum(gaps) / max(len(said), 1)


def study(
    names: Sequence[str] = (*CLASSIFICATION, *NER),
    *,
    kinds: Sequence[str] = KINDS,
    sizes: Sequence[int] = SIZES,
    seeds: int = 3,
    say: Callable[[str], None] = print,
) -> list[dict[str, Any]]:
    """A row for each task, kind of draw, size, seed and method."""
    model = trunkline.load()
    regression: Any = None
    rows = []
    for name in names:
        for kind, size, seed, found in draws(model, name, kinds, sizes, seeds):
            methods: dict[str, Callable[[Draw], Probabilities]] = {"head": head, "head_unit_rows": head_on_unit_rows}
            if found.family.name == "classification":
                regression = regression or EmbeddingRegression()
                methods |= {"head_balanced": balanced, "regression_on_embeddings": regression, "tf_idf": tf_idf}
                regression(found)  # Embeds, so that its time is that of the fit.
            for method, function in methods.items():
                about = {"task": name, "family": found.family.name, "kind": kind, "size": size, "seed": seed}
                rows.append({**about, "method": method, **measure(found, function)})
        say(name)
    return rows


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: means over tasks and draws, and 95 % intervals of the score, for each family, kind, size and method."""
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["family"], row["kind"], row["size"], row["method"]), []).append(row)
    heads = ("family", "draws", "labels a class", "method", "score", "95 %", "macro-F1", "log loss", "ECE", "s")
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for (family, kind, size, method), found in sorted(groups.items()):
        main = FAMILIES[family].main_score
        score, macro = (100 * _mean(found, name) for name in (main, "macro_f1"))
        loss, error, seconds = (_mean(found, n) for n in ("log_loss", "calibration_error", "processor_seconds"))
        low, high = _interval(found, main)
        shown = f"{score:.1f} | {low:.1f} to {high:.1f} | {macro:.1f} | {loss:.3f} | {error:.3f} | {seconds:.2f}"
        lines.append(f"| {family} | {kind} | {size} | {method} | {shown} |")
    return "\n".join(lines) + "\n"


def _mean(rows: Sequence[Mapping[str, Any]], name: str) -> float:
    return float(np.mean([row[name] for row in rows]))


def _interval(rows: Sequence[Mapping[str, Any]], name: str) -> tuple[float, float]:
    """Percent: of the mean over tasks, by the bootstrap of tasks, which is wide as there are few."""
    tasks = sorted({row["task"] for row in rows})
    means = np.asarray([_mean([row for row in rows if row["task"] == task], name) for task in tasks])
    drawn = np.random.default_rng(0).choice(means, (RESAMPLES, len(means))).mean(axis=1)
    low, high = np.percentile(100 * drawn, (2.5, 97.5))
    return float(low), float(high)
