"""The study of few labels: draws, cells that are run once, and what is measured of an answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trunkline_lab.few_labels import methods
from trunkline_lab.few_labels.draws import Draw, Pool, calibration_error
from trunkline_lab.few_labels.methods import Answer, Options
from trunkline_lab.few_labels.report import cells_of, compare, report, write_page
from trunkline_lab.few_labels.run import Plan, read_all, run

CARD = "sample_triage"


def test_calibration_error_is_the_distance_of_what_is_said_and_what_is_right() -> None:
    right = np.arange(3000) % 4 != 0
    assert calibration_error(np.full(3000, 0.75), right) == pytest.approx(0.0, abs=1e-9)
    assert calibration_error(np.full(3000, 0.95), right) == pytest.approx(0.2)
    assert calibration_error(np.zeros(0), np.zeros(0)) == 0


def test_draws_have_the_same_number_in_all() -> None:
    pool = Pool.of(CARD)
    balanced, natural = (pool.draw(kind, 8, 3) for kind in ("balanced", "natural"))
    assert len(balanced.train) == len(natural.train) == 8 * 8
    assert {sum(e.label == name for e in balanced.train) for name in {e.label for e in pool.pool}} == {8}
    assert pool.draw("natural", 8, 3) == natural != pool.draw("natural", 8, 4)


def test_cells_are_run_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def always(found: Sequence[Draw], test: Sequence[Any]) -> Iterator[tuple[Draw, Answer]]:
        for one in found:
            asked.append(one.seed)
            chances = {e.label: 0.5 if e.label == test[0].label else 0.5 / 7 for e in one.train}
            yield one, Answer([{"label": test[0].label, "probabilities": chances}] * len(test), 0.5, 7)

    monkeypatch.setattr(methods, "METHODS", {"always": (("classification",), lambda options: always)})
    monkeypatch.setattr("trunkline_lab.few_labels.run.METHODS", methods.METHODS)
    for seeds in (1, 3):
        run(tmp_path, Plan([CARD], ["always"], ["balanced"], [8], seeds), Options(), lambda line: None)
    run(tmp_path, Plan([CARD], ["always"], ["balanced"], [8], 1, again=True), Options(), lambda line: None)
    assert asked == [0, 1, 2, 0]
    rows = read_all(tmp_path)
    assert [(row["method"], row["seed"], row["examples"], row["bytes"]) for row in rows] == [
        ("always", seed, 64, 7) for seed in (0, 1, 2)
    ]
    test = Pool.of(CARD).test
    share = sum(example.label == test[0].label for example in test) / len(test)
    assert rows[0]["accuracy"] == pytest.approx(share, abs=1e-5)
    assert rows[0]["calibration_error"] == pytest.approx(0.5 - share, abs=0.1)


def test_a_saved_bundle_says_what_is_scored() -> None:
    pool = Pool.of(CARD)
    draws = [pool.draw("balanced", 2, seed) for seed in (0, 1)]
    found = list(methods.ours("head", Options())(draws, pool.test[:5]))
    assert [draw.seed for draw, _ in found] == [0, 1]
    assert {len(answer.predictions) for _, answer in found} == {5}
    assert found[0][1].predictions != found[1][1].predictions


def cell(task: str, method: str, seed: int, accuracy: float, **more: Any) -> dict[str, Any]:
    place = {"task": task, "family": "classification", "kind": "natural", "size": 8, "seed": seed, "method": method}
    rest = {"macro_f1": accuracy, "log_loss": 1.0, "calibration_error": 0.05, "seconds": 2.0, "bytes": 2000}
    return place | rest | {"accuracy": accuracy} | more


def test_methods_are_compared_draw_by_draw() -> None:
    steady = [cell("cr", "head", n, 0.6 + 0.01 * n) for n in range(5)] + [cell("sst5", "head", 0, 0.4)]
    other = [cell("cr", "tf_idf", n, 0.7 + 0.011 * n) for n in range(5)] + [cell("sst2", "tf_idf", 0, 0.1)]
    cells = cells_of(steady + other, "classification")
    found = compare(cells["head"], cells["tf_idf"], "accuracy")
    assert found and list(found.differences) == ["cr"]
    assert found.mean == pytest.approx(-10.2)
    assert found.bounds[0] <= found.mean <= found.bounds[1]
    assert found.worst == (pytest.approx(-10.2), "cr")
    assert found.below == ["cr (natural, 8)"]
    assert compare(cells["head"], {}, "accuracy") is None


def test_the_report_says_what_is_met(tmp_path: Path) -> None:
    rows = [cell("cr", "auto", n, 0.8, seconds=1.0) for n in range(3)]
    rows += [cell("cr", "setfit", n, 0.7, seconds=25.0) for n in range(3)]
    text = report(rows)
    assert "`auto` in a twentieth of `setfit`'s time, median over tasks | 1/25 | yes |" in text
    assert "`auto` 2 above `setfit` at 8 | +10.0 on 3 draws | yes |" in text
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- the report -->\nold\n<!-- the report ends -->\nafter\n", encoding="utf-8")
    write_page(page, text)
    assert page.read_text(encoding="utf-8").startswith("before")
    assert "old" not in page.read_text(encoding="utf-8") and text in page.read_text(encoding="utf-8")


def test_the_page_has_the_report_of_the_committed_cells() -> None:
    lab = Path(__file__).parents[1]
    text = report(read_all(lab / "results" / "few-labels"))
    assert text in (lab / "docs" / "few-labels.md").read_text(encoding="utf-8")
