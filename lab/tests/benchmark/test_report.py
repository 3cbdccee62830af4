"""The report: complete, the same for the same results, and honest about what failed, is missing or does not fit."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import made_up_results as made_up
import numpy as np
import pytest

from trunkline.errors import TrunklineError
from trunkline_lab.benchmark.groups import budget_order, group_results, missing
from trunkline_lab.benchmark.report import make_report, report_text
from trunkline_lab.benchmark.results import Result
from trunkline_lab.benchmark.store import baseline_of, read_results
from trunkline_lab.ui.benchmark_markdown import to_markdown


def report(results, **options):
    return make_report(list(results), "none", resamples=60, **options)


def failed(result, error="no memory"):
    return replace(result, dev={}, test={}, counts=(), error=error)


def test_all_parts_of_a_balanced_report():
    found = report(made_up.suite())
    assert found["totals"] == {
        "finished": 252, "failed": 0, "left_out": 0, "missing": 0,
        "tasks": {family: list(tasks) for family, tasks in made_up.TASKS.items()},
        "encoders": ["none", "individual", "naive", "task-primary"],
        "methods": ["head"],
        "budgets": ["16 a class", "10 %", "all"],
        "seeds": [0, 1, 2],
        "seconds": 378.0,
        "versions": {"trunkline": ["0.1.0"]},
    }  # fmt: skip
    assert found["failed"] == found["missing"] == found["problems"] == []
    assert len(found["scores"]) == 7 * 4 * 3
    assert len(found["tables"]) == 2 * 3 and len(found["curves"]) == 2
    # Three encoders with the baseline, and three chosen pairs.
    assert len(found["comparisons"]) == 7 * 3 * 6 and len(found["families"]) == 2 * 3 * 6
    (row,) = (
        row for row in found["families"]
        if (row["family"], row["budget"], row["first"], row["second"]) == ("ner", "all", "task-primary", "none")
    )  # fmt: skip
    gains = [
        row["gain"] for row in found["comparisons"]
        if (row["family"], row["budget"], row["first"], row["second"]) == ("ner", "all", "task-primary", "none")
    ]  # fmt: skip
    assert row["gain"] == pytest.approx(np.mean(gains), abs=2e-6)
    table = next(table for table in found["tables"] if (table["family"], table["budgets"]) == ("ner", ["all"]))
    average = next(row for row in table["rows"] if row["encoder"] == "task-primary")
    assert (average["gain"], average["gain_interval"]) == (row["gain"], row["interval"])
    score = found["scores"][0]
    assert score["test"] == 120 and score["measures"]["macro_f1"] == pytest.approx(0.9 * score["mean"], abs=2e-6)


def test_it_is_the_same_in_any_order_and_after_files(tmp_path):
    results = [*made_up.suite(budgets=["all"]), *made_up.suite(budgets=["all"], method="lora", encoders=["none"])]
    text = report_text(report(results))
    for number, result in enumerate(results):
        (tmp_path / f"{number}.json").write_text(json.dumps(result.to_json()), "utf-8")
    paths = sorted(tmp_path.iterdir(), reverse=True)
    again = [Result.from_json(json.loads(path.read_text("utf-8"))) for path in paths]
    assert report_text(report(again)) == text
    assert json.loads(text) == report(results)
    assert "NaN" not in text and "-0.0," not in text


def test_failed_and_missing_cells_are_named_and_averages_are_of_what_all_have():
    results = list(made_up.suite(families=["classification"]))
    gone = [r for r in results if (r.task, r.encoder, r.budget) == ("moods", "naive", "all")]
    lost = [r for r in results if (r.task, r.encoder, r.budget, r.seed) == ("trolls", "none", "all", 1)]
    kept = [r for r in results if r not in gone and r not in lost]
    found = report([*kept, *map(failed, lost)])
    assert found["totals"]["failed"] == 1 and found["totals"]["missing"] == 3
    (row,) = found["failed"]
    assert (row["task"], row["seed"], row["error"]) == ("trolls", 1, "no memory")
    assert found["missing"] == [
        {"family": "classification", "task": "moods", "budget": "all", "method": "head", "encoder": "naive",
         "seeds": [0, 1, 2]}
    ]  # fmt: skip
    tables = {table["budgets"][0]: table["tasks"] for table in found["tables"]}
    assert tables["all"] == ["intents", "topics", "trolls"] and len(tables["10 %"]) == 4
    assert found["curves"][0]["tasks"] == tables["all"]
    seeds = {
        row["task"]: row["seeds"] for row in found["comparisons"]
        if (row["budget"], row["first"], row["second"]) == ("all", "individual", "none")
    }  # fmt: skip
    assert seeds == {"intents": [0, 1, 2], "moods": [0, 1, 2], "topics": [0, 1, 2], "trolls": [0, 2]}


def test_an_encoder_with_few_tasks_does_not_shrink_the_averages_of_others():
    results = [r for r in made_up.suite(families=["classification"]) if r.encoder != "naive" or r.task == "moods"]
    for table in report(results)["tables"]:
        assert table["left_out"] == ["naive"] and len(table["tasks"]) == 4
        assert [row["encoder"] for row in table["rows"]] == ["none", "individual", "task-primary"]


def test_a_success_takes_the_place_of_a_failure_and_two_successes_are_refused():
    first, *rest = made_up.suite(families=["ner"])
    assert report([failed(first), first, *rest])["totals"]["failed"] == 0
    with pytest.raises(TrunklineError, match=r"2 results of one cell \(films, 16 a class, head, none, seed 0\)"):
        report([first, replace(first, key="other"), *rest])


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"test": {"f1": 0.123}}, "its test score is 0.123000 and that of its counts"),
        ({"test": {"f1": float("nan")}}, "its test score is nan"),
        ({"test": {"accuracy": 0.5}}, "no test score 'f1'"),
        ({"counts": ()}, "its counts are missing"),
        ({"counts": ((1, 1, 1), (1, 1))}, "its rows of counts differ in length"),
        ({"family": "translation"}, "its family 'translation' is unknown"),
    ],
)
def test_a_cell_that_cannot_be_right_is_left_out_and_named(changes, problem):
    first, *rest = made_up.suite(families=["ner"])
    found = report([replace(first, **changes), *rest])
    assert found["totals"]["left_out"] == 1
    assert len(found["problems"]) == 1 and problem in found["problems"][0]
    assert found["problems"][0].startswith("films, 16 a class, head, none, seed 0: ")


def test_cells_of_another_test_part_or_version_are_named():
    first, *rest = made_up.suite(families=["classification"])
    short = made_up.result("classification", first.task, first.encoder, 0, first.counts[:50], budget=first.budget)
    found = report([short, *rest])
    assert "50 test examples and accuracy, where most cells of the task have 120" in found["problems"][0]
    other = replace(first, info={**first.info, "card": {"test": "changed"}})
    assert report([other, *rest])["problems"] == ["intents: its cells were made with 2 versions of its data"]


@pytest.mark.parametrize("family", ["ner", "classification"])
def test_one_task_and_one_seed(family):
    task = made_up.TASKS[family][0]
    results = [r for r in made_up.suite(families=[family], seeds=[7], budgets=["all"]) if r.task == task]
    found = report(results)
    assert all(row["tasks_interval"] is None and row["sign_p"] == 1 for row in found["families"])
    assert found["curves"] == []
    assert all(score["deviation"] is None and score["interval"][0] < score["interval"][1] for score in found["scores"])


def test_nothing_but_failures_and_nothing_at_all():
    found = report(map(failed, made_up.suite(families=["ner"], budgets=["all"], seeds=[0])))
    assert found["totals"]["finished"] == 0 and len(found["failed"]) == 12
    assert found["scores"] == found["families"] == found["tables"] == []
    with pytest.raises(TrunklineError, match="no results"):
        report([])


def test_names_that_the_results_do_not_have_are_refused():
    results = list(made_up.suite(families=["ner"], budgets=["all"], seeds=[0]))
    with pytest.raises(TrunklineError, match="'non' is no encoder of these results; did you mean 'none'"):
        make_report(results, "non")
    with pytest.raises(TrunklineError, match="did you mean 'naive'"):
        report(results, pairs=[("task-primary", "naiv")])
    with pytest.raises(TrunklineError, match="two systems such as"):
        report(results, pairs=[("head/task-primary", "none")])


def test_pairs_across_methods():
    results = [
        *made_up.suite(budgets=["10 %"]),
        *made_up.suite(budgets=["10 %"], method="full", encoders=["none", "naive"], skill=0.5),
        *made_up.suite(budgets=["10 %"], method="setfit", encoders=["none"], families=["classification"]),
    ]
    rows = {(row["family"], row["first"], row["second"]) for row in report(results)["families"] if not row["method"]}
    assert rows == {
        ("ner", "head/task-primary", "full/none"),
        ("classification", "head/task-primary", "full/none"),
        ("classification", "head/task-primary", "setfit/none"),
    }
    chosen = report(results, pairs=[("full/naive", "head/naive")])["families"]
    assert [row["gain"] > 0 for row in chosen if row["first"] == "full/naive"] == [True, True]
    methods = {table["family"]: [row["method"] for row in table["rows"]] for table in report(results)["methods"]}
    assert methods["classification"] == ["head"] * 4 + ["full"] * 2 + ["setfit"]


def test_costs_are_medians_and_unknown_ones_are_none():
    results = list(made_up.suite(families=["ner"], budgets=["all"], encoders=["none"]))
    results = [replace(r, n_bytes=1000 * (1 + i), ms_per_text=0.0) for i, r in enumerate(results)]
    (table,) = report(results)["methods"]
    assert table["rows"][0]["n_bytes"] == 5000 and table["rows"][0]["ms_per_text"] is None


def test_label_budgets_from_few_to_all():
    names = ["all", "10 %", "4 a class", "50 texts", "16 a class", "1 %", "some"]
    assert sorted(names, key=budget_order) == ["4 a class", "16 a class", "50 texts", "1 %", "10 %", "all", "some"]


def test_nothing_is_missing_in_designs_that_differ_between_methods():
    results = [*made_up.suite(), *made_up.suite(method="lora", budgets=["10 %"], encoders=["none"], seeds=[0])]
    assert missing(group_results(results)) == []


@pytest.mark.parametrize("name", ["paper", "peers"])
def test_committed_reports_are_what_their_cells_say(name):
    folder = Path(__file__).parents[2] / "results" / name
    committed = json.loads((folder / "report" / "report.json").read_text("utf-8"))
    plots = committed.pop("plots")
    report = make_report(read_results(folder), baseline_of(folder))
    assert json.loads(report_text(report)) == committed
    text = to_markdown(report, plots)
    assert text == (folder / "report" / "report.md").read_text("utf-8")
