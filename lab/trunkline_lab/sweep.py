"""Sweeps: tasks x encoders x seeds on the same few labels, resumable, with paired comparisons."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trunkline.adapt.fit import FeatureMap, TaskData, adapt, task_features
from trunkline.config import AdaptSection, BudgetSection, SweepRecipe
from trunkline.encoder.bundle_files import Loaded, load_any
from trunkline.tasks import Family, get_family
from trunkline.training.log import mend_rows, read_rows
from trunkline.versions import versions
from trunkline_lab.data.cards import load_card
from trunkline_lab.data.sample import draw
from trunkline_lab.resampling import interval, resample

Row = dict[str, Any]


def run_sweep(recipe: SweepRecipe, folder: Path, say: Callable[[str], None] = lambda text: None) -> list[Row]:
    """Runs the cells that are missing in `folder/results.jsonl` and returns all rows of the recipe.

    A row holds the task, budget, encoder (its name and its backbone's hash), seed, scores on dev and test, and for
    each test example the counts or the hit from which the interval is computed. An encoder whose backbone has changed
    since a row was written makes that row count as missing.
    """
    path = folder / "results.jsonl"
    mend_rows(path)
    rows = {_key(row): row for row in read_rows(path)}
    wanted: list[Row] = []
    for encoder, source in recipe.encoders.items():
        start = load_any(source, max_length=recipe.adapt.max_length)
        for task, budget in recipe.tasks.items():
            cell = {"task": task, "budget": budget.label(), "mode": recipe.adapt.mode, "encoder": encoder}
            cell |= {"backbone": start.backbone[:16], "settings": recipe.adapt.fingerprint()}
            missing = [seed for seed in recipe.seeds if _key({**cell, "seed": seed}) not in rows]
            for row in _cells(task, budget, start, recipe.adapt, missing) if missing else ():
                full = {**cell, **row}
                rows[_key(full)] = full
                _append(path, full)
                say(_line(full))
            wanted += [rows[_key({**cell, "seed": seed})] for seed in recipe.seeds]
    return wanted


def _cells(
    task: str, budget: BudgetSection, start: Loaded, section: AdaptSection, seeds: Sequence[int]
) -> Iterable[Row]:
    card = load_card(task)
    family = get_family(card.family)
    parts = {split: card.load(split) for split in ("train", "dev", "test")}
    whole = TaskData(task, card.family, parts["train"], parts["dev"], parts["test"])
    features = task_features(whole, start)
    for seed in seeds:
        order = draw(range(len(whole.train)), _classes_of(whole.train, family), seed=seed, **budget.model_dump())
        few = TaskData(task, card.family, [whole.train[i] for i in order], whole.dev, whole.test)
        known: FeatureMap = {**features, "train": [features["train"][i] for i in order]}
        result = adapt(few, start, section, seed=seed, features=known)
        yield {
            "seed": seed,
            "family": card.family,
            "measure": family.main_score,
            "n_train": len(order),
            "dev": result.dev,
            "test": result.test,
            "counts": family.counts(whole.test, result.predictions),
            "versions": versions(),
        }


def _classes_of(examples: Sequence[Any], family: Family) -> Callable[[int], set[str]]:
    return lambda index: family.classes(examples[index])


def summarise(rows: Sequence[Row], baseline: str) -> list[Row]:
    """Mean over seeds, 95 % bootstrap interval over seeds and test examples, and the paired gain over the baseline.

    The bootstrap is hierarchical: seeds are drawn with replacement, then test examples, and the same draws serve all
    encoders, so that `gain_interval` is that of a paired difference. Rows `average` are over the tasks of a family.
    """
    groups: dict[tuple[str, str, str], dict[str, list[Row]]] = {}
    for row in rows:
        groups.setdefault((row["family"], row["task"], row["budget"]), {}).setdefault(row["encoder"], []).append(row)
    result: list[Row] = []
    for family in sorted({key[0] for key in groups}, reverse=True):
        chosen = {key: value for key, value in groups.items() if key[0] == family}
        draws = {key: {name: _resample(part) for name, part in by.items()} for key, by in chosen.items()}
        means = {key: {name: _mean(part) for name, part in by.items()} for key, by in chosen.items()}
        for key in chosen:
            result += _rows_of(key[1], key[2], _measure(chosen[key]), means[key], draws[key], baseline)
        if len(chosen) > 1:
            names = [name for name in next(iter(chosen.values())) if all(name in by for by in chosen.values())]
            average = {name: float(np.mean([by[name] for by in means.values()])) for name in names}
            drawn = {name: np.mean([by[name] for by in draws.values()], axis=0) for name in names}
            measure = _measure(next(iter(chosen.values())))
            result += _rows_of(f"average {family}", "", measure, average, drawn, baseline)
    return result


def _rows_of(
    task: str, budget: str, measure: str, means: dict[str, float], draws: dict[str, Any], baseline: str
) -> list[Row]:
    rows = []
    for name, mean in means.items():
        paired = name != baseline and baseline in means
        rows.append(
            {
                "task": task,
                "budget": budget,
                "measure": measure,
                "encoder": name,
                "mean": mean,
                "interval": interval(draws[name]),
                "gain": mean - means[baseline] if paired else None,
                "gain_interval": interval(draws[name] - draws[baseline]) if paired else None,
                "last": name == list(means)[-1],
            }
        )
    return rows


def _measure(by_encoder: dict[str, list[Row]]) -> str:
    return str(next(iter(by_encoder.values()))[0]["measure"])


def _mean(rows: Sequence[Row]) -> float:
    return float(np.mean([row["test"][row["measure"]] for row in rows]))


def _resample(rows: Sequence[Row]) -> Any:
    """[resamples] the family's main score over drawn seeds and drawn test examples."""
    counts = [[row["counts"] for row in sorted(rows, key=lambda row: row["seed"])]]
    return resample(counts, get_family(rows[0]["family"]).score_of_counts)[:, 0]


def _line(row: Row) -> str:
    measure = row["measure"]
    where = f"{row['task']}, {row['budget']}, {row['encoder']}, seed {row['seed']}"
    return f"{where}: test {measure} {row['test'][measure]:.4f}"


def _key(row: Row) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("task", "budget", "mode", "encoder", "backbone", "settings", "seed"))


def _append(path: Path, row: Row) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
