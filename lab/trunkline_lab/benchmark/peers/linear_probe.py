"""Logistic regression on the raw encoder's features, by transformers and scikit-learn alone.

It shares no code with our encoder, tokenizer, packing or heads, so it is a check on `head` from the encoder `none`.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from trunkline.tasks import FAMILIES
from trunkline.text.words import split_words
from trunkline_lab.benchmark.peers import PeerOutput
from trunkline_lab.benchmark.peers.common import clean_folder, decode_all, load_model, load_tokenizer, quiet, timed
from trunkline_lab.benchmark.peers.rows import Rows, make_rows

if TYPE_CHECKING:
    from trunkline_lab.fitting import TaskData

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Settings:
    """Values of C to choose from on dev (the grid of our heads), most L-BFGS iterations, rows a batch."""

    penalties: tuple[float, ...] = (0.0001, 0.001, 0.01, 0.1, 1.0)
    iterations: int = 300
    batch: int = 64


def fit_predict(task: TaskData, encoder: Path, *, seed: int, settings: Settings = Settings()) -> PeerOutput:
    """See `trunkline_lab.benchmark.peers.Peer`; nothing is drawn, so the seed has no effect."""
    import torch
    from transformers import AutoModel

    family = FAMILIES[task.family]
    labels = family.labels(task.train)
    with quiet(), clean_folder(encoder) as folder:
        tokenizer, model = load_tokenizer(folder), load_model(folder, AutoModel).float().eval()
        model.to("cuda" if torch.cuda.is_available() else "cpu")

        def features(examples: Sequence[Any]) -> list[FloatArray]:
            rows = make_rows(task.family, examples, labels, tokenizer)
            return _unit_features(model, tokenizer, rows, task.family == "ner", settings.batch)

        x = np.concatenate(features(task.train))
        y = np.concatenate([family.unit_targets(e, labels, split_words(e.text)) for e in task.train])
        dev = features(task.dev)
        fitted = [_fit(x, y, penalty, settings.iterations) for penalty in settings.penalties]

        def predict(probe: Any, known: list[FloatArray], examples: Sequence[Any]) -> list[Any]:
            return decode_all(task.family, _probabilities(probe, known, len(labels)), examples, labels)

        scored = []
        for probe in fitted:
            predictions = predict(probe, dev, task.dev)
            scored.append((family.score(task.dev, predictions)[family.main_score], predictions, probe))
        _, dev_predictions, probe = max(scored, key=lambda item: item[0])
        test, milliseconds = timed(lambda examples: predict(probe, features(examples), examples), task.test)
    n_bytes = 4 * len(labels) * (x.shape[1] + 1)
    return PeerOutput(test, dev_predictions, n_bytes, milliseconds)


def _unit_features(model: Any, tokenizer: Any, rows: Rows, words: bool, batch: int) -> list[FloatArray]:
    """[units, width] of each example: a word's first token, or the mean over a text's tokens, special ones included.

    A word that the tokenizer drops is zero.
    """
    import torch

    inputs = [{name: ids for name, ids in row.items() if name != "labels"} for row in rows.inputs]
    features = [np.zeros((len(spots), model.config.hidden_size), np.float32) for spots in rows.places]
    wanted: dict[int, list[tuple[int, int, int]]] = {i: [] for i in range(len(inputs))}
    for example, spots in enumerate(rows.places):
        for unit, spot in enumerate(spots):
            if spot is not None:
                wanted[spot[0]].append((example, unit, spot[1]))
    with torch.inference_mode():
        for start in range(0, len(inputs), batch):
            padded = tokenizer.pad(inputs[start : start + batch], return_tensors="pt").to(model.device)
            hidden = model(**padded).last_hidden_state
            mask = padded["attention_mask"][..., None]
            kept = hidden if words else (hidden * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True)
            for i, row in enumerate(kept.cpu().numpy(), start):
                for example, unit, token in wanted[i]:
                    features[example][unit] = row[token]
    return features


def _fit(x: FloatArray, y: npt.NDArray[np.int64], penalty: float, iterations: int) -> Any:
    from sklearn.dummy import DummyClassifier
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = LogisticRegression(C=penalty, max_iter=iterations) if len(np.unique(y)) > 1 else DummyClassifier()
    probe = make_pipeline(StandardScaler(), model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return probe.fit(x.astype(np.float64), y)


def _probabilities(probe: Any, features: list[FloatArray], n_labels: int) -> list[npt.NDArray[np.float64]]:
    lengths = np.cumsum([len(part) for part in features])[:-1]
    known = probe.predict_proba(np.concatenate(features).astype(np.float64))
    # A tag that no training word has, such as the second word of a type, has no column.
    probabilities = np.zeros((len(known), n_labels))
    probabilities[:, probe.classes_] = known
    return np.split(probabilities, lengths)
