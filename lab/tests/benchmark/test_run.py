"""Running suites: what is drawn, what is stored, what fails, and that nothing finished is done twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import tiny_suites
import yaml

import tiny_models
from trunkline.config import load_recipe
from trunkline.encoder.bundle_files import load_any, save_bundle
from trunkline.errors import DataError, MismatchError, TrunklineError
from trunkline.tasks import FAMILIES
from trunkline.text.examples import TextExample
from trunkline_lab import fitting
from trunkline_lab.benchmark import jobs, peers
from trunkline_lab.benchmark import run as run_module
from trunkline_lab.benchmark.cells import Cell, expand
from trunkline_lab.benchmark.inputs import draw_cell, load_start, load_task
from trunkline_lab.benchmark.peers import PeerOutput
from trunkline_lab.benchmark.results import Result
from trunkline_lab.benchmark.run import RunOptions, Summary, count_cells, run_suite, seconds_left
from trunkline_lab.benchmark.store import ResultStore, read_results
from trunkline_lab.benchmark.suite import SuiteRecipe
from trunkline_lab.data.cards import load_card
from trunkline_lab.fitting import TaskData
from trunkline_lab.resampling import counts_of, score_of_counts

ROOT = Path(__file__).resolve().parents[2]
Tasks = dict[str, Path]
Folder = Callable[[str], Path]
HERE = RunOptions(workers=1, threads=1)


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    load_task.cache_clear()
    yield
    load_task.cache_clear()


def run(recipe: SuiteRecipe, folder: Path, **options: Any) -> Summary:
    return run_suite(recipe, folder, replace(HERE, **options))


def cell_of(task: TaskData, **budget: Any) -> Cell:
    recipe = tiny_suites.suite("default", {}, tasks=["sample_intents"], budgets=[budget])
    (cell,) = expand(recipe, lambda source, family: {})
    return replace(cell, family=task.family)


def texts(counts: dict[str, int]) -> list[TextExample]:
    return [TextExample(f"{label} {i}", label) for label, count in counts.items() for i in range(count)]


def test_few_labels_are_drawn_alike_and_dev_is_cut_to_what_train_has() -> None:
    task = TaskData(
        "t", "classification", texts({"a": 300, "b": 300, "c": 3}), texts({"a": 400, "b": 400}), texts({"a": 1})
    )
    few = cell_of(task, per_class=16)
    drawn = draw_cell(task, few)
    assert Counter(task.train[i].label for i in drawn.train) == {"a": 16, "b": 16, "c": 3}
    assert len(drawn.dev) == len(set(drawn.dev)) == 100
    assert jobs.short_classes(task, few) == {"c": 3}
    assert draw_cell(task, replace(few, encoder="other", method="lora")) == drawn
    assert draw_cell(task, replace(few, seed=1)).train != drawn.train
    share = draw_cell(task, cell_of(task, share=0.5))
    assert (len(share.train), len(set(share.train)), len(share.dev)) == (302, 302, 302)
    every = draw_cell(task, cell_of(task, all=True))
    assert (list(every.train), list(every.dev)) == (list(range(603)), list(range(800)))


def test_a_result_has_all_that_a_report_needs(tasks: Tasks, tiny_folder: Folder, tmp_path: Path) -> None:
    summary = run(tiny_suites.suite(tiny_folder("bert"), tasks, methods=["head", "lora"]), tmp_path)
    assert len(summary.results) == summary.ran == 2 * 2 * 2
    assert not summary.failures
    assert read_results(tmp_path) == sorted(summary.results, key=lambda r: (r.task, r.method, r.budget))
    sizes = {}
    for result in summary.results:
        task, _ = load_task(str(tasks[result.task]))
        family = FAMILIES[result.family]
        stored = ResultStore(tmp_path).predictions(result.key)
        assert family.score(task.test, stored) == result.test
        assert counts_of(result.family, task.test, stored) == result.counts
        assert score_of_counts(result.family)(np.sum(result.counts, axis=0)) == pytest.approx(
            result.test[result.measure]
        )
        assert set(result.dev) == set(result.test)
        assert result.n_train == (30 if result.budget == "all" else draws(tasks, result))
        assert min(result.seconds, result.ms_per_text, result.n_bytes) > 0
        assert result.info["n_dev"] == 12
        assert set(result.info["card"]) == {"train", "dev", "test"}
        assert result.info["encoder"]["backbone"]
        sizes[result.method, result.task] = result.n_bytes
    assert all(sizes["head", task] < sizes["lora", task] for task in tasks)
    suite = json.loads((tmp_path / "suite.json").read_text(encoding="utf-8"))
    assert suite["baseline"] == "none"


def draws(tasks: Tasks, result: Result) -> int:
    task, _ = load_task(str(tasks[result.task]))
    return len(draw_cell(task, cell_of(task, per_class=2)).train)


@pytest.mark.parametrize("method", ["head", "lora"])
def test_a_cell_is_what_fitting_makes_of_its_few_labels(
    method: str, tasks: Tasks, tiny_folder: Folder, tmp_path: Path
) -> None:
    recipe = tiny_suites.suite(tiny_folder("bert"), tasks, methods=[method], seeds=[3], budgets=[{"per_class": 2}])
    for result in run(recipe, tmp_path).results:
        whole, _ = load_task(str(tasks[result.task]))
        drawn = draw_cell(whole, replace(cell_of(whole, per_class=2), seed=3))
        few = replace(whole, train=[whole.train[i] for i in drawn.train], dev=())
        start = load_start(str(tiny_folder("bert")), whole.family, 32)
        done = fitting.fit(few, start, mode=method, lora=getattr(recipe.adapt, method).lora(), seed=3)
        assert (done.held_out, done.test) == (result.dev, result.test)


def test_heads_on_all_labels_are_fitted_once_for_all_seeds(tasks: Tasks, tiny_folder: Folder, tmp_path: Path) -> None:
    recipe = tiny_suites.suite(tiny_folder("bert"), tasks, seeds=[0, 1, 2])
    found = {(r.task, r.budget, r.seed): r for r in run(recipe, tmp_path).results}
    for task in tasks:
        first, *others = (found[task, "all", seed] for seed in (0, 1, 2))
        assert [(r.test, r.counts, r.info["repeats"]) for r in others] == [(first.test, first.counts, 0)] * 2
        assert "repeats" not in first.info
        assert all("repeats" not in found[task, "2 a class", seed].info for seed in (0, 1, 2))


def test_a_second_run_repeats_nothing_and_damaged_cells_alone(
    tasks: Tasks, tiny_folder: Folder, tmp_path: Path
) -> None:
    recipe = tiny_suites.suite(tiny_folder("bert"), tasks)
    first = run(recipe, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "cells").iterdir()}
    second = run(recipe, tmp_path)
    assert (second.ran, second.results) == (0, first.results)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cells").iterdir()} == before
    broken = sorted(before)[1]
    broken.write_text("{", encoding="utf-8")
    said: list[str] = []
    third = run_suite(recipe, tmp_path, HERE, say=said.append)
    assert (third.ran, third.damaged) == (1, [broken.name])
    assert f"{broken.name} is damaged and counts as missing" in said
    assert [(r.key, r.test) for r in third.results] == [(r.key, r.test) for r in first.results]


def test_what_fails_is_recorded_does_not_stop_the_rest_and_is_tried_again(
    tasks: Tasks, tiny_folder: Folder, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    encoders = {"none": str(tiny_folder("bert")), "later": str(tmp_path / "later")}
    recipe = tiny_suites.suite("", tasks, encoders=encoders)
    hidden = tasks["kinds"].parent / "kinds-test.jsonl"
    hidden.rename(tmp_path / "away")
    summary = run(recipe, folder)
    assert {(r.task, r.encoder) for r in summary.results if not r.error} == {("people", "none")}
    errors = {(r.task, r.encoder): r.error for r in summary.failures}
    assert errors["kinds", "none"].startswith("DataError: ")
    assert "kinds-test.jsonl" in errors["kinds", "none"]
    assert errors["people", "later"].startswith("EncoderError: ")
    log = (folder / "failures.log").read_text(encoding="utf-8")
    assert log.count("Traceback (most recent call last)") >= 6
    assert summary.to_json()["failed"][0]["error"]
    (tmp_path / "away").rename(hidden)
    tiny_models.save_model("bert", tmp_path / "later", seed=2)
    again = run(recipe, folder)
    assert (again.ran, again.failures) == (6, [])
    assert len(read_results(folder)) == 8


def test_one_cell_that_fails_does_not_stop_those_of_its_job(
    tasks: Tasks, tiny_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = fitting.fit

    def sometimes(task: TaskData, *args: Any, **options: Any) -> Any:
        if options["seed"] == 1:
            raise MemoryError("no room")
        return original(task, *args, **options)

    monkeypatch.setattr(fitting, "fit", sometimes)
    recipe = tiny_suites.suite(tiny_folder("bert"), tasks, seeds=[0, 1, 2], budgets=[{"per_class": 2}])
    summary = run(recipe, tmp_path)
    assert {(r.seed, r.error) for r in summary.results} == {(0, ""), (1, "MemoryError: no room"), (2, "")}


def test_an_encoder_with_adapters_but_none_for_the_family_is_refused(
    tasks: Tasks, tiny_folder: Folder, tmp_path: Path
) -> None:
    start = load_any(str(tiny_folder("bert")), fork=2)
    lora = tiny_models.random_adapter(start.encoder.config, (2, 3))
    save_bundle(replace(start, primaries={"ner": lora}), tmp_path / "bundle")
    with pytest.raises(MismatchError, match=r"primary adapters for ner, none for classification.*Name another encoder"):
        load_start(str(tmp_path / "bundle"), "classification", 32)
    summary = run(tiny_suites.suite(tmp_path / "bundle", tasks), tmp_path / "out")
    assert {(r.task, bool(r.error)) for r in summary.results} == {("kinds", True), ("people", False)}


def test_windows_are_as_long_as_the_suite_says_whatever_the_bundle_says(tiny_folder: Folder, tmp_path: Path) -> None:
    start = load_any(str(tiny_folder("bert")), fork=2, max_length=16)
    save_bundle(start, tmp_path)
    assert load_start(str(tmp_path), "ner", 40).tokenizer.max_length == 40
    assert load_start(str(tmp_path), "ner", 4000).tokenizer.max_length == start.encoder.config.max_length


def test_a_card_without_dev_part_has_a_tenth_of_train_set_aside(tiny_folder: Folder, tmp_path: Path) -> None:
    card = tiny_suites.write_task(tmp_path, "nodev", "classification", {"train": 60, "test": 9})
    task, aside = load_task(str(card))
    assert aside
    texts_of = [{example.text for example in part} for part in (task.train, task.dev)]
    assert not texts_of[0] & texts_of[1]
    assert 0 < len(texts_of[1]) == round(0.1 * len(texts_of[0] | texts_of[1]))
    (result,) = run(
        tiny_suites.suite(tiny_folder("bert"), {"nodev": card}, budgets=[{"all": True}]), tmp_path / "out"
    ).results
    assert (result.info["dev"], result.n_train + result.info["n_dev"]) == ("a tenth of train", 60)
    tiny = tiny_suites.write_task(tmp_path, "tiny", "classification", {"train": 3, "test": 9})
    with pytest.raises(DataError, match="the card tiny has no dev part, and its 3 training examples are too few"):
        load_task(str(tiny))


class Parrot:
    """A peer that says what it was given."""

    calls: ClassVar[list[tuple[str, int, int, Path]]] = []

    def fit_predict(self, task: TaskData, encoder: Path, *, seed: int) -> PeerOutput:
        self.calls.append((task.name, len(task.train), seed, encoder))
        if task.family == "ner":
            raise RuntimeError("only texts")
        say = {"label": task.train[0].label, "score": 1.0}
        return PeerOutput([say] * len(task.test), [say] * len(task.dev), 1234, 0.5)


def test_peers_run_on_the_same_draws(
    tasks: Tasks, tiny_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Parrot, "calls", [])
    monkeypatch.setattr(peers, "get_peer", lambda name: Parrot())
    recipe = tiny_suites.suite(tiny_folder("bert"), tasks, methods=["linear_probe", "head"], seeds=[4])
    summary = run(recipe, tmp_path)
    found = {(r.task, r.method, r.budget): r for r in summary.results}
    assert found["people", "linear_probe", "all"].error == "RuntimeError: only texts"
    ours, theirs = (found["kinds", method, "2 a class"] for method in ("head", "linear_probe"))
    assert (ours.n_train, len(ours.counts)) == (theirs.n_train, len(theirs.counts)) == (6, 15)
    assert (theirs.n_bytes, theirs.ms_per_text, theirs.dev["accuracy"]) == (1234, 0.5, 1 / 3)
    assert ("kinds", 6, 4, tiny_folder("bert")) in Parrot.calls
    monkeypatch.setattr(Parrot, "fit_predict", lambda *args, **options: PeerOutput([], [], 0, 0.0))
    recipe = tiny_suites.suite(tiny_folder("bert"), tasks, methods=["linear_probe"], seeds=[5])
    assert all("gave 0 predictions on test" in r.error for r in run(recipe, tmp_path).results)


def test_the_time_that_is_left_is_estimated_by_method(tasks: Tasks) -> None:
    cells = expand(tiny_suites.suite("default", tasks, seeds=[0, 1], methods=["head", "lora"]), lambda *_: {})
    assert seconds_left([], cells) == 0
    job, other = (job.cells for job in run_module.group_jobs(cells))
    done = [cell.result(seconds=seconds) for cell, seconds in zip(job, (2, 2, 4, 4, 30, 30, 30, 30), strict=True)]
    broken = other[0].result(seconds=1000.0, error="ValueError: no")
    # The other task is of another family: its cells are taken to last as long as the same method's on the first.
    assert seconds_left([*done, broken], other) == pytest.approx(4 * 3 + 4 * 30)
    assert seconds_left(done[4:], other) == pytest.approx(8 * 30)


def test_cells_are_counted_by_task_and_method(tasks: Tasks, tiny_folder: Folder, tmp_path: Path) -> None:
    recipe = tiny_suites.suite(tiny_folder("bert"), tasks)
    assert [row["done"] for row in count_cells(recipe, tmp_path)] == [0, 0]
    run(recipe, tmp_path, only=["people"])
    rows = {row["task"]: row for row in count_cells(recipe, tmp_path)}
    assert rows["people"] == {"task": "people", "method": "head", "cells": 2, "done": 2, "failed": 0}
    assert rows["kinds"]["done"] == 0


def test_some_budgets_methods_and_encoders_are_run_first(tasks: Tasks, tiny_folder: Folder, tmp_path: Path) -> None:
    budgets = [{"per_class": 2}, {"all": True}]
    encoders = {"none": str(tiny_folder("bert")), "other": str(tiny_folder("electra"))}
    recipe = tiny_suites.suite("", tasks, encoders=encoders, budgets=budgets)
    first = run(recipe, tmp_path, budgets=["2"], methods=["head"], encoders=["other"])
    assert {(result.budget, result.encoder) for result in first.results} == {("2 a class", "other")}
    assert run(recipe, tmp_path, encoders=["none"]).ran == 2 * len(first.results)
    assert run(recipe, tmp_path).ran == len(first.results)
    with pytest.raises(TrunklineError, match="none of the cells has the budget '10%'"):
        run(recipe, tmp_path, budgets=["10%"])
    with pytest.raises(TrunklineError, match="none of the cells has the encoder 'naive'"):
        run(recipe, tmp_path, encoders=["naive"])


def start_command(suite: Path, out: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "trunkline_lab", "benchmark", "run", str(suite), "--out", str(out)]
    options = ["--workers", "1", "--threads", "1", "--json"]
    return subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    "kind",
    [
        signal.SIGKILL,
        pytest.param(signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, marks=pytest.mark.slow),
    ],
    ids=["SIGKILL", "SIGTERM", "SIGINT"],
)
def test_a_run_that_is_stopped_goes_on_where_it_was(
    kind: signal.Signals, tasks: Tasks, tiny_folder: Folder, tmp_path: Path
) -> None:
    raw = tiny_suites.raw_suite(
        tiny_folder("bert"), tasks, methods=["head", "lora"], seeds=list(range(4)), budgets=[{"per_class": 5}]
    )
    suite, out = tmp_path / "suite.yaml", tmp_path / "out"
    suite.write_text(yaml.safe_dump(raw), encoding="utf-8")
    first = start_command(suite, out)
    limit = time.monotonic() + 120
    while len(list(out.glob("cells/*.json"))) < 3 and first.poll() is None and time.monotonic() < limit:
        time.sleep(0.005)
    first.send_signal(kind)
    _, errors = first.communicate(timeout=60)
    assert first.returncode == (-kind if kind == signal.SIGKILL else 130), errors
    assert "Traceback" not in errors
    done = {path.name: path.stat().st_mtime_ns for path in out.glob("cells/*.json")}
    assert 3 <= len(done) < 16
    summary = run(load_recipe(suite, SuiteRecipe), out)
    assert (summary.ran, summary.failures) == (16 - len(done), [])
    assert {path.name: path.stat().st_mtime_ns for path in out.glob("cells/*.json") if path.name in done} == done
    undisturbed = run(load_recipe(suite, SuiteRecipe), tmp_path / "undisturbed")
    assert [(r.key, r.test, r.counts) for r in summary.results] == [
        (r.key, r.test, r.counts) for r in undisturbed.results
    ]
    assert not list(out.rglob("*.part")) or kind == signal.SIGKILL


def test_the_smoke_suite_runs_and_the_same_encoder_gains_nothing(tmp_path: Path) -> None:
    """As it is shipped, on the default encoder."""
    summary = run(load_recipe(ROOT / "recipes/suites/smoke.yaml", SuiteRecipe), tmp_path)
    assert not summary.failures
    found = {(r.encoder, r.task, r.seed): r for r in summary.results}
    assert len(found) == 8
    for (_, task, seed), result in found.items():
        assert result.counts == found["none", task, seed].counts
        assert 0.2 < result.test[result.measure] < 0.9
        assert len(result.counts) == load_card(task).counts["test"]


def test_results_of_another_process_are_refused(tasks: Tasks, tiny_folder: Folder, tmp_path: Path) -> None:
    recipe = tiny_suites.suite(tiny_folder("bert"), tasks)
    with ResultStore(tmp_path).lock(), pytest.raises(TrunklineError, match=f"process {os.getpid()} runs here"):
        run(recipe, tmp_path)
