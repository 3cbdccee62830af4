"""Sizes: bytes add up to the folder, memory and times come from a process of its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import tiny_deployed
from trunkline.bundle.files import open_bundle
from trunkline.encoder.bundle_files import Loaded
from trunkline.engine.base import open_tokenizer
from trunkline.errors import TrunklineError
from trunkline_lab.cli.measure import size
from trunkline_lab.size import worker as size_worker
from trunkline_lab.size.report import SizeOptions, report_size, run_worker

app = typer.Typer(add_completion=False)
app.command()(size)

FEW = SizeOptions(lengths=(8, 16, 10_000), repeats=2)


@pytest.fixture
def bundle(tiny: Loaded, tmp_path: Path) -> Path:
    tiny_deployed.exported(tiny, tmp_path)
    return tmp_path / "deployed"


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
    tokenizer = open_tokenizer(deployed.tokenizer, deployed.manifest.encoder)
    for length in (8, 16):
        tokens = len(tokenizer.encode([size_worker.sized(tokenizer, length)])[0].offsets) + 2
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


def test_command(bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "sizes.json"
    arguments = [str(bundle), "--length", "8", "--report", str(out)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "3 separate models" in done.output
    assert "tokenizer on disk" in done.output
    assert json.loads(out.read_text(encoding="utf-8"))[0]["name"] == "tiny"


def test_command_as_json(bundle: Path) -> None:
    done = CliRunner().invoke(app, [str(bundle), "--length", "8", "--no-separate", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.output)[0]["bytes"]["total"] > 0
