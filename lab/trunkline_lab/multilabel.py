"""Several labels a text from few labels, beside scikit-learn: GoEmotions as it is, with 28 labels.

A balanced draw has texts until each label has 8 or 16 in all; a natural one is as large, in the proportions of train.
Every method chooses its settings within the draw. Run by `python -m trunkline_lab.multilabel --out FOLDER`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import trunkline
from trunkline.data.load import read_examples
from trunkline.tasks import FAMILIES
from trunkline.text.examples import MultiLabelExample
from trunkline_lab.data.cards import load_card
from trunkline_lab.data.sample import draw

FloatArray = npt.NDArray[np.floating[Any]]
Texts = Sequence[MultiLabelExample]
Method = Callable[[Texts, Texts, int], list[Any]]
KIND = FAMILIES["multilabel"]
MEASURES = ("micro_f1", "macro_f1", "exact_match", "average_precision", "log_loss", "seconds")


def goemotions(part: str) -> list[MultiLabelExample]:
    """The rows of a part of GoEmotions, with all of their labels."""
    card = load_card("goemotions")
    columns = {"text_column": "0", "label_column": "1", "label_separator": ",", "delimiter": "tab"}
    rows: list[Any] = read_examples(card.resolve(card.files[part][0].path), "multilabel", **columns).examples
    names = card.options["label_names"]
    return [MultiLabelExample(row.text, tuple(names[label] for label in row.labels)) for row in rows]


def ours(train: Texts, test: Texts, seed: int) -> list[Any]:
    """The product, as a saved bundle predicts in its default engine."""
    model = trunkline.load()
    model.fit("emotions", list(train), family="multilabel", seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        rows = trunkline.load(model.save(Path(folder) / "bundle")).predict([example.text for example in test])
    return [row["emotions"] for row in rows]


def embedded() -> Callable[[Texts, Texts], tuple[Any, Any]]:
    """Sentence embeddings of the same encoder, of length 1."""
    from trunkline.encoder.bundle_files import embedder

    embed, known = embedder("default", 256), dict[str, FloatArray]()

    def rows(train: Texts, test: Texts) -> tuple[Any, Any]:
        found = []
        for part in (train, test):
            texts = [example.text for example in part]
            if new := [text for text in dict.fromkeys(texts) if text not in known]:
                known.update(zip(new, embed(new), strict=True))
            x = np.stack([known[text] for text in texts])
            found.append(x / np.linalg.norm(x, axis=1, keepdims=True))
        return found[0], found[1]

    return rows


def tf_idf(train: Texts, test: Texts) -> tuple[Any, Any]:
    """TF-IDF of words, one and two, and of 2 to 5 characters within words."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_union

    characters = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True)
    vectors = make_union(TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), characters)
    return vectors.fit_transform([e.text for e in train]), vectors.transform([e.text for e in test])


def one_vs_rest(features: Callable[..., Any], **settings: Any) -> Method:
    """scikit-learn's OneVsRestClassifier of LogisticRegression, C by micro-F1 in 5 folds; labels from 0.5 on."""

    def run(train: Texts, test: Texts, seed: int) -> list[Any]:
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import GridSearchCV, KFold
        from sklearn.multiclass import OneVsRestClassifier

        labels = KIND.labels(train)
        y = np.asarray([KIND.unit_targets(example, labels, ()) for example in train])
        x, rows = features(train, test)
        model = OneVsRestClassifier(LogisticRegression(max_iter=500, **settings))
        folds, grid = KFold(5, shuffle=True, random_state=seed), {"estimator__C": np.logspace(-1, 3, 5)}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            chances = GridSearchCV(model, grid, scoring="f1_micro", cv=folds).fit(x, y).predict_proba(rows)
        found = [dict(zip(labels, row, strict=True)) for row in chances]
        return [{"labels": [k for k in own if own[k] > 0.5], "probabilities": own} for own in found]

    return run


def measure(predicted: Sequence[Any], test: Texts, seconds: float) -> dict[str, float]:
    """Scores, mean log loss of yes or no of each label, and processor seconds of fit and prediction."""
    labels = sorted(predicted[0]["probabilities"])
    chances = np.asarray([[row["probabilities"][label] for label in labels] for row in predicted])
    true = np.asarray([KIND.unit_targets(example, tuple(labels), ()) for example in test])
    chances = np.clip(chances, 1e-6, 1 - 1e-6)
    loss = -np.log(np.where(true, chances, 1 - chances)).mean()
    return {**KIND.score(test, predicted), "log_loss": float(loss), "seconds": seconds}


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown: means over draws; scores in percent, log loss in nats, seconds of one thread."""
    heads = ("draw", "labels", "method", *(name.replace("_", " ") for name in MEASURES))
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for key in dict.fromkeys((row["draw"], row["labels"], row["method"]) for row in rows):
        own = [row for row in rows if (row["draw"], row["labels"], row["method"]) == key]
        means = {name: float(np.mean([row[name] for row in own])) for name in MEASURES}
        *scores, loss, seconds = (100 * means[name] if name in MEASURES[:-2] else means[name] for name in MEASURES)
        shown = [f"{score:.1f}" for score in scores] + [f"{loss:.3f}", f"{seconds:.1f}"]
        lines.append(f"| {' | '.join(map(str, key))} | {' | '.join(shown)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Writes `results.json` and `table.md`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    pool, test = goemotions("train"), draw(goemotions("test"), KIND.classes, seed=0, sentences=1000)
    rows, dense = [], embedded()
    methods: dict[str, Method] = {"head": ours}
    for name, features in (("regression", dense), ("TF-IDF", tf_idf)):
        methods[name] = one_vs_rest(features)
        methods[f"{name} balanced"] = one_vs_rest(features, class_weight="balanced")
    dense(pool[:1], test)  # Test is embedded once, so that times are those of fits.
    for size, seed in ((size, seed) for size in (8, 16) for seed in range(given.seeds)):
        even = draw(pool, KIND.classes, seed=seed, per_class=size)
        for kind in ("balanced", "natural"):
            train = even if kind == "balanced" else draw(pool, KIND.classes, seed=seed, sentences=len(even))
            for name, method in methods.items():
                began = time.process_time()
                predicted = method(train, test, seed)
                about = {"draw": kind, "labels": size, "texts": len(train), "seed": seed, "method": name}
                rows.append(about | measure(predicted, test, time.process_time() - began))
                print(json.dumps(rows[-1]), flush=True)
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "results.json").write_text(json.dumps(rows, indent=1) + "\n")
    (given.out / "table.md").write_text(table(rows))


if __name__ == "__main__":
    main()
