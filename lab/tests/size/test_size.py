"""Sizes: bytes add up to the folder, memory and times come from a process of its own, and costs are compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

import tiny_deployed
from trunkline.bundle.files import open_bundle
from trunkline.encoder.bundle_files import Loaded
from trunkline.engine.rows import TextReader
from trunkline.errors import DataError, TrunklineError
from trunkline_lab.size import worker as size_worker
from trunkline_lab.size.command import size
from trunkline_lab.size.report import SizeOptions, pareto, read_scores, report_size, run_worker
from trunkline_lab.size.show import pareto_plot

app = typer.Typer(add_completion=False)
app.command()(size)

FEW = SizeOptions(lengths=(8, 16, 10_000), repeats=2)


@pytest.fixture
def bundle(tiny: Loaded, tmp_path: Path) -> Path:
    tiny_deployed.exported(tiny, tmp_path)
    return tmp_path / "deployed"


def record(name: str, milliseconds: float, megabytes: float, scores: dict[str, float] | None = None) -> dict[str, Any]:
    times = {"32": {"total": milliseconds}}
    return {"name": name, "times": times, "bytes": {"total": 1e6 * megabytes}, "scores": scores or {}}


def test_report_adds_up_and_stands_beside_separate_models(bundle: Path) -> None:
    found = report_size(bundle, FEW)
    on_disk = sum(path.stat().st_size for path in bundle.rglob("*") if path.is_file())
    sizes = dict(found["bytes"])
    assert sizes.pop("total") == on_disk == sum(sizes.values())
    assert found["tasks"] == ["own", "people", "topics"]
    assert list(found["times"]) == ["8", "16"]  # the window of the tiny encoder holds no more
    for row in found["times"].values():
        assert all(value > 0 for value in row.values())
        assert row["total"] >= row["trunk"] + row["branches"]
    assert 0 < found["memory"]["resident"] <= found["memory"]["peak"]
    assert found["separate"]["models"] == 3
    assert found["separate"]["bytes"] == 3 * sum(sizes[name] for name in ("tokenizer", "trunk", "branch"))
    row = found["times"]["16"]
    assert found["separate"]["times"]["16"] == 3 * (row["trunk"] + row["branch"]) + row["tokenizer"]


def test_only_some_tasks_and_no_separate_models(bundle: Path) -> None:
    found = report_size(bundle, SizeOptions(tasks=("topics",), lengths=(8,), repeats=1, separate=False))
    assert found["tasks"] == ["topics"]
    assert "separate" not in found


def test_a_branch_is_run_once_for_tasks_that_share_it(bundle: Path) -> None:
    deployed = open_bundle(bundle)
    groups = size_worker.branches(deployed, ["own", "people", "topics"])
    assert [[task.name for task in group.tasks] for group in groups] == [["own"], ["people"], ["topics"]]
    assert [bool(group.lora) for group in groups] == [True, True, False]


def test_texts_have_the_asked_length(bundle: Path) -> None:
    deployed = open_bundle(bundle)
    reader = TextReader.open(deployed.tokenizer, deployed.manifest.encoder)
    for length in (8, 16):
        tokens = len(reader.read([size_worker.sized(reader, length)])[0].tokens.offsets) + 2
        assert length - 8 < tokens <= length


def test_the_worker_loads_no_torch(bundle: Path) -> None:
    import subprocess
    import sys

    code = "import sys, trunkline_lab.size.worker as w; assert 'torch' not in sys.modules, 'torch'"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (SizeOptions(tasks=("nobody",)), "task nobody"),
        (SizeOptions(tasks=()), "without tasks"),
        (SizeOptions(lengths=()), "lengths"),
        (SizeOptions(lengths=(2,)), "lengths"),
        (SizeOptions(lengths=(10_000,)), "lengths"),
        (SizeOptions(repeats=0), "0 repeats"),
    ],
)
def test_what_cannot_be_measured_is_refused(bundle: Path, options: SizeOptions, said: str) -> None:
    with pytest.raises(TrunklineError, match=said):
        report_size(bundle, options)


def test_errors_of_the_worker_come_through(tmp_path: Path) -> None:
    with pytest.raises(TrunklineError, match="manifest"):
        run_worker({"kind": "bundle", "folder": str(tmp_path), "tasks": [], "lengths": [], "repeats": 1})
    with pytest.raises(TrunklineError, match="ended with code"):
        run_worker({"kind": "bundle"})


def test_pareto_keeps_what_nothing_beats_in_everything() -> None:
    rows = pareto([record("a", 1, 20), record("b", 2, 10), record("c", 2, 20), record("d", 1, 20)], 32)
    assert {row["name"]: row["best"] for row in rows} == {"a": True, "b": True, "c": False, "d": True}


def test_pareto_counts_scores_where_there_are() -> None:
    records = [record("a", 1, 10, {"x": 0.5, "y": 0.7}), record("b", 2, 20), record("c", 2, 30, {"x": 0.4})]
    rows = pareto(records, 32, {"b": 0.9})
    assert [row["score"] for row in rows] == pytest.approx([0.6, 0.9, 0.4])
    assert [row["best"] for row in rows] == [True, True, False]


def test_pareto_refuses_what_does_not_belong() -> None:
    with pytest.raises(TrunklineError, match="bundle b"):
        pareto([record("a", 1, 1)], 32, {"b": 0.9})
    with pytest.raises(TrunklineError, match="64 tokens"):
        pareto([record("a", 1, 1)], 64)


@pytest.mark.parametrize("content", ['{"a": 2}', "[0.5]", '{"a": "x"}', "{"])
def test_scores_must_be_scores(tmp_path: Path, content: str) -> None:
    path = tmp_path / "scores.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(TrunklineError, match=r"scores\.json"):
        read_scores(path)
    path.write_text('{"a": 0.5, "b": 1}', encoding="utf-8")
    assert read_scores(path) == {"a": 0.5, "b": 1.0}
    with pytest.raises(DataError):
        read_scores(tmp_path / "missing.json")


@pytest.mark.parametrize("scores", [None, {"a": 0.8, "b": 0.9}])
def test_plot_is_a_picture(tmp_path: Path, scores: dict[str, float] | None) -> None:
    rows = pareto([record("a", 1, 10), record("b", 2, 20), record("c", 3, 30)], 32, scores)
    path = pareto_plot(rows, 32, tmp_path / "plot.png")
    assert path.read_bytes().startswith(b"\x89PNG")


def test_command(bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "sizes.json"
    arguments = [
        str(bundle),
        "--length",
        "8",
        "--plot",
        str(tmp_path / "plot.png"),
        "--report",
        str(out),
    ]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "3 separate models" in done.output
    assert "tokenizer on disk" in done.output
    assert json.loads(out.read_text(encoding="utf-8"))[0]["name"] == "tiny"
    assert (tmp_path / "plot.png").is_file()


def test_command_as_json(bundle: Path) -> None:
    done = CliRunner().invoke(app, [str(bundle), "--length", "8", "--no-separate", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.output)[0]["bytes"]["total"] > 0
