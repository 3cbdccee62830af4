"""Probes of pre-finetuning score tasks of files, once a step, also in a run that goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tiny_models
from trunkline.config import parse_recipe
from trunkline.errors import RecipeError
from trunkline.prefinetune import Report, prefinetune
from trunkline.training import read_rows
from trunkline_lab.probes import Probe, ProbedRecipe, ProbeWatch
from trunkline_lab.strategies import last_measures

BUDGETS: tuple[dict[str, int], ...] = ({}, {"sentences": 3, "per_class": 2})


def probed(folder: Path, tmp_path: Path, budget: dict[str, int]) -> ProbedRecipe:
    parts = {
        name: str(tiny_models.write_jsonl(tmp_path / f"{name}.jsonl", tiny_models.ner_rows(60, seed)))
        for seed, name in ((7, "train"), (8, "dev"))
    }
    tiny_models.write_jsonl(tmp_path / "data.jsonl", tiny_models.ner_rows(60, 9))
    monitor: dict[str, Any] = {"every": 2, "probes": {"names": {"family": "ner", **parts, "most_dev": 20, **budget}}}
    raw = {
        "name": "probed",
        "encoder": str(folder),
        "max_length": 32,
        "families": {"ner": {"sources": {str(tmp_path / "data.jsonl"): {}}, "tokens": 128}},
        "optimizer": {"steps": 4},
        "monitor": monitor,
        "checkpoint": {"every": 2},
    }
    return parse_recipe(raw, ProbedRecipe, "recipe")


def test_a_probe_scores_a_task_of_files_at_each_step_once(tiny_folder: Callable[[str], Path], tmp_path: Path) -> None:
    recipe = probed(tiny_folder("bert"), tmp_path, {"sentences": 30})
    made = Probe(recipe.monitor.probes["names"], recipe.seed)
    assert (len(made.train), len(made.dev)) == (30, 20)

    def stop(done: int, steps: int, values: dict[str, float]) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prefinetune(recipe, tmp_path / "run", Report(progress=stop), watch=ProbeWatch(recipe))
    prefinetune(recipe, tmp_path / "run", watch=ProbeWatch(recipe))
    rows = [row for row in read_rows(tmp_path / "run" / "metrics.jsonl") if "probe/names" in row]
    assert [row["step"] for row in rows] == [0, 2, 4]
    assert all(0.3 < row["probe/names"] <= 1 for row in rows)
    measures = last_measures(tmp_path / "run")
    assert measures["start/probe/names"] == rows[0]["probe/names"]
    assert measures["probe/names"] == rows[-1]["probe/names"] and "dev/ner/recall_at_1" in measures


@pytest.mark.parametrize("budget", BUDGETS)
def test_a_probe_has_one_budget(budget: dict[str, int], tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="per_class or sentences"):
        probed(tmp_path, tmp_path, budget)
