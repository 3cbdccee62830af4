"""The labels of a text, the most probable first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trunkline.decoding.base import FloatArray, Labels, Transitions, WordedText


def decode_ranked(
    probabilities: Sequence[FloatArray],
    texts: Sequence[WordedText],
    labels: Labels,
    transitions: Transitions = None,
) -> list[dict[str, Any]]:
    """The most probable label, its score, and the probability of every label, most probable first."""
    return [_ranked(part[0], labels) for part in probabilities]


def _ranked(probabilities: FloatArray, labels: Labels) -> dict[str, Any]:
    order = (-probabilities).argsort(kind="stable")
    rows = zip(order.tolist(), probabilities[order].tolist(), strict=True)
    ranked = {labels[i]: round(probability, 6) for i, probability in rows}
    best = labels[order[0]]
    return {"label": best, "score": ranked[best], "probabilities": ranked}
