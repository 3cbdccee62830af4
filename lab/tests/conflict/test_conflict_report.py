"""What measurements of conflict say over time, between runs, and of an encoder or a bundle."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from scipy.stats import t
from typer.testing import CliRunner

import tiny_models
from trunkline.errors import DataError
from trunkline.prefinetune import Report, prefinetune
from trunkline.training import read_rows
from trunkline_lab.cli.measure import conflict
from trunkline_lab.conflict.measure import ConflictLog
from trunkline_lab.conflict.report import ConflictWatch, levels, summarise_conflict

Folders = Callable[[str], Path]


def row(group: str, cosine: float | None, *, adapters: bool = False, **changes: Any) -> dict[str, Any]:
    return {
        "adapters": adapters,
        "families": ["ner", "classification"],
        "group": group,
        "batches": 8,
        "cosine": cosine,
        "cosine_se": 0.01,
        "conflict": 0.25,
        "norm_ratio": 2.0,
        "log_ratio_se": 0.1,
        "within": {"ner": 0.2, "classification": 0.4},
        "within_se": {"ner": 0.01, "classification": 0.01},
        **changes,
    }


def write_run(folder: Path, measured: dict[int, list[dict[str, Any]]]) -> Path:
    folder.mkdir()
    log = ConflictLog(folder / "conflict.jsonl")
    for step, rows in measured.items():
        log.write(step, {"rows": rows})
    return folder


def test_means_over_time_leave_the_random_start_out_and_keep_the_error_of_one_step(tmp_path: Path) -> None:
    measured = {
        0: [row("layer-0", 0.9, norm_ratio=100.0, conflict=1.0)],
        10: [row("layer-0", -0.1, norm_ratio=1.0, conflict=1.0, within={"ner": 0.1, "classification": 0.5})],
        20: [row("layer-0", 0.2, norm_ratio=4.0, conflict=0.5, within={"ner": -0.1, "classification": None})],
        30: [row("layer-0", 0.5, norm_ratio=2.0, conflict=0.0, within={"ner": 0.6, "classification": 0.3})],
    }
    (line,) = summarise_conflict({"naive": write_run(tmp_path / "run", measured)})["lines"]
    assert (line["label"], line["run"], line["steps"]) == ("naive", "naive", [0, 10, 20, 30])
    mean = line["groups"]["layer-0"]
    assert mean["cosine"] == pytest.approx(0.2)
    assert mean["conflict"] == pytest.approx(0.5)
    assert mean["norm_ratio"] == pytest.approx(2.0)
    assert mean["within"] == pytest.approx({"ner": 0.2, "classification": 0.4})
    assert mean["corrected"] == pytest.approx(0.2 / math.sqrt(0.2 * 0.4))
    spread = math.hypot(0.01 / 0.2, 0.01 / 0.4) / 2
    expected = math.hypot(0.01 / math.sqrt(0.2 * 0.4), mean["corrected"] * spread)
    assert mean["corrected_se"] == pytest.approx(expected)
    assert mean["margin"] == pytest.approx(0.01 * t.ppf(0.975, 7))
    assert [moment["conflict"] for moment in line["over_time"]] == [1.0, 1.0, 0.5, 0.0]


def test_conflict_over_time_is_the_mean_over_layers_not_over_their_halves(tmp_path: Path) -> None:
    rows = [
        row("embeddings", 0.1, conflict=0.0),
        row("layer-0", 0.1, conflict=0.5),
        row("layer-0/attention", 0.1, conflict=1.0),
        row("layer-1", 0.1, conflict=None),
        row("whole", -0.3, conflict=0.75),
    ]
    (line,) = summarise_conflict({"a": write_run(tmp_path / "run", {5: rows})})["lines"]
    (moment,) = line["over_time"]
    assert (moment["conflict"], moment["conflict_whole"], moment["cosine_whole"]) == (0.25, 0.75, -0.3)


def test_layers_are_ordered_by_number() -> None:
    names = ["layer-10", "whole", "layer-2", "layer-2/attention", "embeddings", "layer-0"]
    assert levels(names) == ["embeddings", "layer-0", "layer-2", "layer-10"]


def test_findings_say_what_is_certain_only(tmp_path: Path) -> None:
    naive = [row("embeddings", 0.2), row("layer-0", 0.01), row("layer-1", -0.2), row("whole", -0.5)]
    primary = [row("embeddings", 0.2), row("layer-0", 0.02), row("layer-1", 0.1)]
    with_adapters = [{**part, "adapters": True} for part in primary]
    out = [row("embeddings", 0.2), row("layer-0", 0.02), row("layer-1", -0.1)]
    folders = {
        "naive": write_run(tmp_path / "a", {1: naive}),
        "primary": write_run(tmp_path / "b", {1: out + with_adapters}),
    }
    report = summarise_conflict(folders)
    assert [line["label"] for line in report["lines"]] == ["naive", "primary", "primary, adapters out"]
    joined = "ner and classification"
    assert report["findings"] == [
        f"naive: {joined} collide in layer-1 (-0.200); they agree in embeddings (+0.200); "
        "elsewhere their cosine cannot be told from 0",
        f"primary: {joined} collide in no layer; they agree in embeddings (+0.200), layer-1 (+0.100); "
        "elsewhere their cosine cannot be told from 0",
        f"primary, adapters out: {joined} collide in layer-1 (-0.100); they agree in embeddings (+0.200); "
        "elsewhere their cosine cannot be told from 0",
        f"primary against naive: the cosine of {joined} rises in layer-1 (+0.300) and falls in no layer",
        f"primary, adapters out against naive: the cosine of {joined} rises in layer-1 (+0.100) and falls in no layer",
        f"primary, adapters out against primary: the cosine of {joined} rises in no layer "
        "and falls in layer-1 (-0.200)",
    ]


def test_a_difference_within_the_intervals_is_no_finding(tmp_path: Path) -> None:
    margin = 0.01 * float(t.ppf(0.975, 7)) * math.sqrt(2)
    for number, (difference, word) in enumerate(((0.98 * margin, "no layer"), (1.02 * margin, "layer-0"))):
        folders = {
            "a": write_run(tmp_path / f"a{number}", {1: [row("layer-0", 0.1)]}),
            "b": write_run(tmp_path / f"b{number}", {1: [row("layer-0", 0.1 + difference)]}),
        }
        assert f"rises in {word}" in summarise_conflict(folders)["findings"][-1]


def test_rows_without_a_cosine_or_an_error_are_handled(tmp_path: Path) -> None:
    empty = {"cosine_se": None, "conflict": None, "norm_ratio": None, "log_ratio_se": None, "batches": 0}
    rows = [row("embeddings", None, **empty), row("layer-0", 0.3, cosine_se=None, batches=1)]
    (line,) = summarise_conflict({"a": write_run(tmp_path / "run", {1: rows})})["lines"]
    assert line["groups"]["embeddings"]["cosine"] is None
    assert line["groups"]["layer-0"]["margin"] is None
    json.dumps(line, allow_nan=False)


def test_a_folder_without_measurements_and_foreign_rows_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"conflict\.jsonl: no such file.*switches the conflict report on"):
        summarise_conflict({"a": tmp_path})
    (tmp_path / "conflict.jsonl").write_text("")
    with pytest.raises(DataError, match="no measurement of conflict"):
        summarise_conflict({"a": tmp_path})
    good = {"step": 1, **row("whole", 0.1)}
    bad = {key: value for key, value in good.items() if key != "conflict"}
    tiny_models.write_jsonl(tmp_path / "conflict.jsonl", [good, bad])
    with pytest.raises(DataError, match=r"conflict\.jsonl:2: row without conflict"):
        summarise_conflict({"a": tmp_path})


def test_a_watched_run_measures_conflict_and_ends_in_the_same_weights(tiny_folder: Folders, tmp_path: Path) -> None:
    recipe = tiny_models.recipe_of(tiny_folder("bert"), tmp_path)
    stop = Report(progress=lambda done, steps, values: exec("raise KeyboardInterrupt") if done == 7 else None)
    plain = prefinetune(recipe, tmp_path / "off")
    with pytest.raises(KeyboardInterrupt):
        prefinetune(recipe, tmp_path / "on", stop, watch=ConflictWatch(4, 2))
    assert {row["step"] for row in read_rows(tmp_path / "on" / "conflict.jsonl")} == {0, 4}
    watched = prefinetune(recipe, tmp_path / "on", watch=ConflictWatch(4, 2))
    assert tiny_models.same_bits(*(tiny_models.bundle_tensors(bundle) for bundle in (plain, watched)))
    rows = read_rows(tmp_path / "on" / "conflict.jsonl")
    assert {row["step"] for row in rows} == {0, 4, 8}
    assert len(rows) == 3 * len([row for row in rows if row["step"] == 0]), "no step is measured twice"


def test_a_run_of_one_family_has_nothing_to_watch(tiny_folder: Folders, tmp_path: Path) -> None:
    families = {"ner": tiny_models.recipe_of(tiny_folder("bert"), tmp_path).families["ner"].model_dump()}
    changes = {"families": families, "strategy": "individual", "optimizer": {"steps": 2}}
    prefinetune(
        tiny_models.recipe_of(tiny_folder("bert"), tmp_path, **changes), tmp_path / "run", watch=ConflictWatch(1)
    )
    assert not (tmp_path / "run" / "conflict.jsonl").exists()


def test_the_command_compares_runs(tiny_folder: Folders, tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(conflict)
    recipe = tiny_models.recipe_of(tiny_folder("bert"), tmp_path, optimizer={"steps": 2}, monitor={"every": 0})
    prefinetune(recipe, tmp_path / "on", watch=ConflictWatch(1, 2))
    result = CliRunner().invoke(app, [str(tmp_path / "on"), "--out", str(tmp_path / "report"), "--json"])
    assert result.exit_code == 0, result.output + str(result.exception)
    assert (tmp_path / "report" / "conflict.json").is_file() and list((tmp_path / "report").glob("*.png"))
