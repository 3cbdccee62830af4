"""Sweeps: what is compared is paired, and intervals mean what they say."""

import numpy as np
import pytest

from trunkline.config import SweepRecipe, parse_recipe
from trunkline_lab.sweep import run_sweep, summarise


def rows(encoder, accuracy, seeds=3, n=400):
    rng = np.random.default_rng(0)
    for seed in range(seeds):
        hits = (rng.random(n) < accuracy).astype(int)
        yield {
            "task": "t",
            "budget": "all",
            "family": "classification",
            "encoder": encoder,
            "measure": "accuracy",
            "seed": seed,
            "test": {"accuracy": float(hits.mean())},
            "counts": [[int(hit), 1] for hit in hits],
        }


def test_interval_covers_the_mean_and_has_the_width_of_its_sample():
    (row,) = summarise(list(rows("a", 0.8)), "a")
    low, high = row["interval"]
    assert low < row["mean"] < high
    assert row["gain"] is None
    # Test items are shared by the seeds, so the width is about that of one test set of 400: 2 * 1.96 * 0.02.
    assert 0.03 < high - low < 0.12


def test_the_gain_is_paired_and_equal_rows_gain_nothing():
    same = [{**row, "encoder": name} for name in ("a", "b") for row in rows("a", 0.7)]
    second = summarise(same, "a")[1]
    assert second["gain"] == 0.0
    assert second["gain_interval"] == [0.0, 0.0]


def test_a_clear_gain_has_an_interval_above_zero():
    found = summarise([*rows("a", 0.6), *rows("b", 0.8)], "a")
    assert found[1]["gain"] == pytest.approx(0.2, abs=0.04)
    assert found[1]["gain_interval"][0] > 0.1


def test_cells_are_cached_and_a_new_seed_runs_alone(tiny_folder, tmp_path):
    raw = {
        "name": "s",
        "encoders": {"none": str(tiny_folder("bert"))},
        "baseline": "none",
        "tasks": {"sample_intents": {"per_class": 2}},
        "seeds": [0],
    }
    said = []
    first = run_sweep(parse_recipe(raw, SweepRecipe, "s"), tmp_path, said.append)
    again = run_sweep(parse_recipe({**raw, "seeds": [0, 1]}, SweepRecipe, "s"), tmp_path, said.append)
    assert len(said) == 2
    assert again[0] == first[0]
    assert first[0]["n_train"] == 24
    assert len(first[0]["counts"]) == 228
    assert first[0]["test"]["accuracy"] == sum(hit for hit, _ in first[0]["counts"]) / 228


def test_a_cut_off_result_line_is_run_again(tiny_folder, tmp_path):
    raw = {
        "name": "s",
        "encoders": {"none": str(tiny_folder("bert"))},
        "baseline": "none",
        "tasks": {"sample_triage": {"per_class": 2}},
        "seeds": [0],
    }
    recipe = parse_recipe(raw, SweepRecipe, "s")
    (row,) = run_sweep(recipe, tmp_path)
    path = tmp_path / "results.jsonl"
    path.write_text(path.read_text("utf-8")[:-50], "utf-8")
    said = []
    (repeated,) = run_sweep(recipe, tmp_path, said.append)
    assert len(said) == 1
    assert repeated["test"] == row["test"]
    assert run_sweep(recipe, tmp_path, said.append) == [repeated]
    assert len(said) == 1, "what was run again is kept"
