"""The benchmark's commands, as a user runs them, on the tiny encoder."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_suites
import yaml
from typer.testing import CliRunner

from trunkline.errors import TrunklineError
from trunkline_lab.benchmark import store
from trunkline_lab.cli import app, benchmark_app

runner = CliRunner()
Tasks = dict[str, Path]
Folder = Callable[[str], Path]


def call(*arguments: object) -> Any:
    return runner.invoke(app, ["benchmark", *map(str, arguments)])


@pytest.fixture
def suite(tasks: Tasks, tiny_folder: Folder, tmp_path: Path) -> Path:
    raw = tiny_suites.raw_suite(
        tiny_folder("bert"), tasks, encoders={n: str(tiny_folder("bert")) for n in ("none", "b")}
    )
    path = tmp_path / "suite.yaml"
    path.write_text(yaml.safe_dump(raw), encoding="utf-8")
    return path


def test_every_command_has_help_with_an_example() -> None:
    names = [command.name for command in benchmark_app.registered_commands]
    assert names == ["run", "list", "report", "pack"]
    for name in names:
        result = call(name, "--help")
        assert result.exit_code == 0
        assert f"Example: trunkline-lab benchmark {name} " in " ".join(result.output.split())


def test_run_list_and_pack(suite: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ("--out", out, "--workers", 1, "--threads", 1)
    made = call("run", suite, *options, "--only", "kinds", "--json")
    assert made.exit_code == 0, made.output
    assert json.loads(made.stdout) == {
        "folder": str(out),
        "cells": 4,
        "done": 4,
        "ran": 4,
        "damaged": [],
        "failed": [],
    }
    listed = json.loads(call("list", suite, "--out", out, "--json").stdout)
    assert [(row["task"], row["cells"], row["done"]) for row in listed] == [("kinds", 4, 4), ("people", 4, 0)]
    assert "kinds" in call("list", suite, "--out", out).stdout
    rest = call("run", suite, *options)
    assert rest.exit_code == 0
    assert "8 of 8 cells are done, 4 were run now" in rest.stdout
    packed = call("pack", out, "--out", tmp_path / "packed")
    assert packed.stdout.split() == [str(tmp_path / "packed" / "cells" / f"{n}.jsonl") for n in ("kinds", "people")]
    assert store.read_results(tmp_path / "packed") == store.read_results(out)


def test_failed_cells_end_in_exit_code_one(suite: Path, tasks: Tasks, tmp_path: Path) -> None:
    (tasks["kinds"].parent / "kinds-dev.jsonl").unlink()
    made = call("run", suite, "--out", tmp_path / "out", "--workers", 1, "--threads", 1)
    assert made.exit_code == 1
    assert "4 of 8 cells are done" in made.stdout
    assert "kinds-dev.jsonl" in made.stdout
    assert "Traceback (most recent" not in made.output


def test_a_full_disk_stops_the_run_and_the_next_goes_on(
    suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, written = store.write_atomic, []

    def full(path: Path, content: Any) -> None:
        written.append(path)
        if len(written) > 6:
            raise OSError(errno.ENOSPC, "No space left on device")
        original(path, content)

    monkeypatch.setattr(store, "write_atomic", full)
    options = ("--out", tmp_path / "out", "--workers", 1, "--threads", 1, "--json")
    stopped = call("run", suite, *options)
    assert isinstance(stopped.exception, TrunklineError)
    assert "No space left on device" in str(stopped.exception)
    monkeypatch.undo()
    done = len(store.read_results(tmp_path / "out"))
    assert 0 < done < 8
    assert json.loads(call("run", suite, *options).stdout)["ran"] == 8 - done


def test_the_report_of_a_run_is_that_of_its_packed_results(suite: Path, tmp_path: Path) -> None:
    call("run", suite, "--out", tmp_path / "out", "--workers", 1, "--threads", 1)
    call("pack", tmp_path / "out", "--out", tmp_path / "packed")
    first = call("report", tmp_path / "out", "--json")
    assert first.exit_code == 0, first.exception
    second = call("report", tmp_path / "packed", "--out", tmp_path / "report", "--json")
    assert json.loads(second.stdout) == json.loads(first.stdout)
    assert json.loads(first.stdout)["baseline"] == "none"
    assert (tmp_path / "out" / "report" / "report.md").is_file()
    usual = {(row["first"], row["second"]) for row in json.loads(second.stdout)["families"]}
    pairs = call("report", tmp_path / "packed", "--out", tmp_path / "report", "--pair", "none,b", "--json")
    assert {(row["first"], row["second"]) for row in json.loads(pairs.stdout)["families"]} == usual | {("none", "b")}
    for wrong, said in (("none", "two names"), ("none,b,c", "two names"), ("none,c", "c")):
        refused = call("report", tmp_path / "packed", "--pair", wrong)
        assert refused.exit_code and said in str(refused.exception)
    other = call("report", tmp_path / "packed", "--out", tmp_path / "report", "--baseline", "b")
    assert other.exit_code == 0, other.exception
    assert other.stdout.splitlines()[-1] == str(tmp_path / "report" / "report.md")
    assert json.loads((tmp_path / "report" / "report.json").read_text(encoding="utf-8"))["baseline"] == "b"
