"""Entities from the probabilities of BIO tags."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from trunkline.data.tagging import decode_tags
from trunkline.data.tokenize import IntArray
from trunkline.decoding.base import FloatArray, Labels, Scored, Transitions, WordedText
from trunkline.decoding.paths import best_paths


def decode_bio(
    probabilities: Sequence[FloatArray],
    texts: Sequence[WordedText],
    labels: Labels,
    transitions: Transitions = None,
) -> list[list[dict[str, Any]]]:
    """Entities by the best valid tag sequence; the score is the mean probability of an entity's tags."""
    return decode_bio_tasks([Scored(probabilities, texts, labels, transitions)])[0]


def decode_bio_tasks(tasks: Sequence[Scored]) -> list[list[list[dict[str, Any]]]]:
    """`decode_bio` of several tasks in the time of the longest one."""
    scores = [[np.log(np.maximum(part, 1e-12)) for part in task.probabilities] for task in tasks]
    allowed = [np.where(may_follow(t.labels), 0.0 if t.transitions is None else t.transitions, -np.inf) for t in tasks]
    paths = [
        [None] * len(rows) if task.transitions is not None else [_likeliest(part, rules) for part in rows]
        for task, rows, rules in zip(tasks, scores, allowed, strict=True)
    ]
    left = [
        [part for part, path in zip(rows, found, strict=True) if path is None]
        for rows, found in zip(scores, paths, strict=True)
    ]
    sought = map(iter, best_paths(list(zip(left, allowed, strict=True))) if any(left) else left)
    results = []
    for task, found, better in zip(tasks, paths, sought, strict=True):
        whole = [next(better) if path is None else path for path in found]
        rows = zip(task.probabilities, task.texts, whole, strict=True)
        results.append([_entities(part, *text, [task.labels[i] for i in path], path) for part, text, path in rows])
    return results


def _likeliest(scores: FloatArray, allowed: npt.NDArray[Any]) -> IntArray | None:
    """The likeliest tag of each word, if these may follow each other; then no other sequence is as likely."""
    path = scores.argmax(axis=1)
    before = np.concatenate(([len(allowed) - 1], path[:-1]))[: len(path)]
    return path if np.isfinite(allowed[before, path]).all() else None


def may_follow(labels: Labels) -> npt.NDArray[np.bool_]:
    """[labels + 1, labels] whether a BIO tag (column) may follow another (row; the last: the start of the sentence)."""
    kinds = np.asarray([label[2:] for label in labels])
    inside = np.asarray([label.startswith("I-") for label in labels], dtype=bool)
    return np.concatenate([~inside | (kinds[:, None] == kinds), ~inside[None]])


def _entities(
    probabilities: FloatArray, text: str, words: Sequence[tuple[int, int]], tags: Sequence[str], path: IntArray
) -> list[dict[str, Any]]:
    entities = []
    chosen = probabilities[np.arange(len(path)), path]
    for first, last, label in decode_tags(tags):
        start, end = words[first][0], words[last - 1][1]
        score = round(float(chosen[first:last].mean()), 6)
        entities.append({"start": start, "end": end, "text": text[start:end], "label": label, "score": score})
    return entities
