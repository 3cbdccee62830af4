"""Made-up results of a benchmark: hits drawn at random around a skill that task, encoder and label budget give."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from trunkline_lab.benchmark.results import Result

TASKS = {"ner": ("films", "meals", "tweets"), "classification": ("intents", "moods", "topics", "trolls")}
MEASURES = {"ner": "f1", "classification": "accuracy"}
ENCODERS = {"none": 0.0, "individual": 0.4, "naive": 0.2, "task-primary": 0.5}
BUDGETS = {"16 a class": 0.0, "10 %": 0.4, "all": 1.2}


def result(family: str, task: str, encoder: str, seed: int, counts: Any, **changes: Any) -> Result:
    """A finished cell with these counts."""
    rows = np.asarray(counts)
    total = rows.sum(axis=0)
    score = 2 * total[0] / max(total[1] + total[2], 1) if family == "ner" else total[0] / total[1]
    scores = {MEASURES[family]: float(score), "macro_f1": float(score) * 0.9}
    method, budget = changes.pop("method", "head"), changes.pop("budget", "all")
    values: dict[str, Any] = {
        "key": f"{zlib.crc32(repr((task, encoder, method, budget, seed)).encode()):08x}",
        "n_train": 100,
        "dev": scores,
        "test": scores,
        "seconds": 1.5,
        "n_bytes": 4000,
        "ms_per_text": 0.8,
        "info": {"versions": {"trunkline": "0.1.0"}, "card": {"test": task}},
        **changes,
    }
    names = {"task": task, "family": family, "measure": MEASURES[family], "encoder": encoder}
    return Result(**names, method=method, budget=budget, seed=seed, counts=rows.tolist(), **values)


def draw_counts(family: str, rng: np.random.Generator, chance: np.ndarray) -> np.ndarray:
    """Counts of examples that are right with these chances."""
    hit = (rng.random(len(chance)) < chance).astype(int)
    if family == "classification":
        return np.stack([hit, np.ones_like(hit)], axis=1)
    gold = 1 + rng.integers(3, size=len(hit))
    right = np.where(hit, gold, gold - 1)
    return np.stack([right, np.maximum(right, gold - rng.integers(2, size=len(hit))), gold], axis=1)


def suite(
    *,
    families: Sequence[str] = ("ner", "classification"),
    encoders: Sequence[str] = tuple(ENCODERS),
    budgets: Sequence[str] = tuple(BUDGETS),
    seeds: Sequence[int] = (0, 1, 2),
    examples: int = 120,
    method: str = "head",
    skill: float = 0.0,
    **changes: Any,
) -> Iterator[Result]:
    """The cells of a balanced design, in which the examples of a task are hard or easy for all encoders alike."""
    for family in families:
        for task in TASKS[family]:
            hard = np.random.default_rng(zlib.crc32(task.encode())).normal(size=examples)
            for encoder in encoders:
                for budget in budgets:
                    for seed in seeds:
                        rng = np.random.default_rng(zlib.crc32(repr((task, budget, seed)).encode()))
                        luck = 0.2 * rng.normal()
                        chance = 1 / (1 + np.exp(-(ENCODERS.get(encoder, 0.0) + BUDGETS[budget] + skill + luck + hard)))
                        counts = draw_counts(family, rng, chance)
                        yield result(family, task, encoder, seed, counts, method=method, budget=budget, **changes)
