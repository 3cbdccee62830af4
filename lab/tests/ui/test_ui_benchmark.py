"""A benchmark's report as files and on the screen: the same bytes each time, tables that fit, plots of what it says."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import made_up_results as made_up
import pytest
from rich.console import Console

from trunkline_lab.benchmark import report as benchmark_report
from trunkline_lab.benchmark.results import Result
from trunkline_lab.ui import benchmark, benchmark_plots
from trunkline_lab.ui.benchmark_markdown import plot_name, points, to_markdown

BUDGETS = ("10 %", "all")


@pytest.fixture(scope="module")
def results() -> list[Result]:
    rows = [
        *made_up.suite(examples=40, budgets=BUDGETS),
        *made_up.suite(examples=40, families=["ner"], method="lora", budgets=["10 %"], n_bytes=60_000),
        *made_up.suite(examples=40, method="setfit", encoders=["none"], budgets=["10 %"], n_bytes=90_000_000),
    ]
    lost = replace(rows[8], test={}, counts=(), error="a | made-up\nerror <b>")
    return [*rows[:8], lost, *(row for row in rows[9:] if (row.task, row.encoder) != ("moods", "naive"))]


@pytest.fixture(scope="module")
def report(results: list[Result]) -> dict[str, Any]:
    return benchmark_report.make_report(results, "none", resamples=60)


@pytest.fixture(scope="module")
def small(results: list[Result]) -> list[Result]:
    return [row for row in results if row.family == "ner" and row.method != "lora" and row.encoder != "naive"]


@pytest.fixture(scope="module")
def written(small: list[Result], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return benchmark.write_report(small, tmp_path_factory.mktemp("report"), baseline="none")


def test_it_writes_json_markdown_and_plots(written: Path) -> None:
    found = json.loads((written.parent / "report.json").read_text("utf-8"))
    names = ("strategies-head", "gain-ner-head-10-percent", "gain-ner-head-all", "curve-ner-head", "cost-ner")
    assert found["plots"] == [f"plots/{name}.png" for name in names]
    text = written.read_text("utf-8")
    for name in found["plots"]:
        content = (written.parent / name).read_bytes()
        assert content.startswith(b"\x89PNG") and len(content) > 10_000
        assert text.count(f"({name})") == 1
    assert {path.name for path in written.parent.iterdir()} == {"report.json", "report.md", "plots"}


def test_every_family_method_and_budget_has_its_plots(report: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark_plots, "_save", lambda figure, path: path)
    families, budgets = ("ner", "classification"), ("10-percent", "all")
    names = {
        *(f"strategies-{method}" for method in ("head", "lora")),
        *(f"gain-{family}-head-{budget}" for family in families for budget in budgets),
        "gain-ner-lora-10-percent",
        *(f"curve-{family}-head" for family in families),
        *(f"cost-{family}" for family in families),
    }
    assert {path.stem for path in benchmark_plots.plot_report(report, Path("plots"))} == names


def test_the_same_results_give_the_same_bytes(
    small: list[Result], written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark_plots, "_save", lambda figure, path: path)
    again = benchmark.write_report(small[::-1], tmp_path, baseline="none")
    for name in ("report.json", "report.md"):
        assert (again.parent / name).read_bytes() == (written.parent / name).read_bytes()


def test_markdown_says_everything(report: dict[str, Any]) -> None:
    text = to_markdown(report)
    for row in report["scores"]:
        assert f"{100 * row['mean']:.1f} ({100 * row['interval'][0]:.1f} to {100 * row['interval'][1]:.1f})" in text
    for row in (*report["families"], *report["comparisons"]):
        assert points(row["gain"]) in text or ("tasks" not in row and row["second"] != "none")
    assert "- films, 10 %, head, individual, seed 2: a / made-up error &lt;b>" in text
    assert "- moods, all, head, naive, seeds 0, 1, 2" in text
    assert text.count("**average of 3**") == 6  # all of NER, and of classification what all have with `head`
    tables = [block.split("\n") for block in text.split("\n\n") if block.startswith("|")]
    assert tables and all(len({line.count("|") for line in table}) == 1 for table in tables)


def test_the_terminal_shows_the_report(report: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(benchmark, "console", Console(file=stream, width=200))
    benchmark.print_report(report)
    text = stream.getvalue()
    for table in report["tables"]:
        for row in table["rows"]:
            assert f"{100 * row['mean']:.1f}" in text
    for name in (*report["totals"]["encoders"], "films", "trolls", "Failed", "win/tie/loss"):
        assert name in text
    assert "<br>" not in text


def test_a_report_of_failures_alone_can_be_written(results: list[Result], tmp_path: Path) -> None:
    path = benchmark.write_report([row for row in results if row.error], tmp_path, baseline="individual")
    assert "0 cells, 1 failed" in path.read_text("utf-8")
    assert json.loads((tmp_path / "report.json").read_text("utf-8"))["plots"] == []


def test_what_a_plot_of_gains_shows(report: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    figures: list[Any] = []
    monkeypatch.setattr(benchmark_plots, "_save", lambda figure, path: (figures.append(figure), path)[1])
    looks = benchmark_plots._looks(report["totals"]["encoders"], "none")
    benchmark_plots.plot_gains(report, ("classification", "head", "all"), looks, tmp_path / "a.png")
    (axes,) = figures[0].axes
    drawn = sorted(round(line.get_xdata()[0], 4) for line in axes.lines if line.get_marker() not in ("None", None, ""))
    place = ("classification", "head", "all", "none")
    rows = [
        row for row in (*report["comparisons"], *report["families"])
        if (row["family"], row["method"], row["budget"], row["second"]) == place
    ]  # fmt: skip
    assert drawn == sorted(round(100 * row["gain"], 4) for row in rows)
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert sorted(labels[:-1]) == sorted(made_up.TASKS["classification"]) and labels[-1] == "average"
    assert "absolute points" in axes.get_xlabel()


def test_every_encoder_looks_different() -> None:
    looks = benchmark_plots._looks([f"e{number}" for number in range(30)], "e0")
    seen = {(look["color"], look["marker"], look.get("markerfacecolor")) for look in looks.values()}
    assert len(seen) == 30


def test_the_pareto_front() -> None:
    scores = [(1, 50), (2, 49), (2, 60), (3, 60), (4, 70), (1, 40)]
    assert benchmark_plots.pareto(scores) == [(1, 50), (2, 60), (4, 70)]


def test_numbers_and_names() -> None:
    assert (points(-0.0001), points(0.0123), points(-0.1)) == ("+0.0", "+1.2", "-10.0")
    assert plot_name("gain", "ner", "10 %") == "gain-ner-10-percent" and plot_name("../a b") == "..-a-b"
