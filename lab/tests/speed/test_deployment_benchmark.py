"""The benchmark of deployed bundles: what it asks, how ratios are taken, and what its page says."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tiny_deployed
from trunkline.bundle.files import read_manifest
from trunkline.encoder.bundle_files import Loaded
from trunkline.errors import TrunklineError
from trunkline_lab.speed.deployment import torch_workers, workers
from trunkline_lab.speed.deployment.cases import Options, _ratio, cut, parts
from trunkline_lab.speed.deployment.memory import measured, part_sizes
from trunkline_lab.speed.deployment.report import page, summarise
from trunkline_lab.speed.deployment.timing import best_round
from trunkline_lab.speed.side_by_side import Case, Part


def results(**milliseconds: list[float]) -> dict[str, Any]:
    return {
        name: {"says": f"what {name} is", "repeats": [{"milliseconds": value} for value in values]}
        for name, values in milliseconds.items()
    }


def test_every_case_has_a_worker_and_every_ratio_its_cases() -> None:
    for part in parts(Options()).values():
        names = {case.name for case in part.cases}
        assert len(names) == len(part.cases)
        assert {name for ratio in part.ratios for name in (ratio.over, ratio.under)} <= {*names, ""}
        for case in part.cases:
            module = torch_workers if case.kind.startswith("torch_") else workers
            assert case.kind == "litert" or callable(getattr(module, case.kind))


def test_ratios_are_paired_by_repeat() -> None:
    found = summarise(results(a=[2.0, 9.0, 8.0], b=[1.0, 3.0, 2.0]), [_ratio("a / b", "a", "b", at_least=3.5)])
    (row,) = found["ratios"]
    assert row["median"] == 3.0  # of 2, 3 and 4; the medians' own ratio would be 4
    assert row["met"] is False
    assert found["summary"]["b"]["median"] == 2.0


@pytest.mark.parametrize(("most", "met"), [(0.06, True), (0.04, False), (None, None)])
def test_milliseconds_alone_can_be_asked_for(most: float | None, met: bool | None) -> None:
    (row,) = summarise(results(a=[0.05, 0.05]), [_ratio("ms", "a", at_most=most)])["ratios"]
    assert (row["median"], row["met"]) == (0.05, met)


def test_a_case_that_cannot_run_has_no_ratio_and_says_why() -> None:
    given = results(a=[1.0], b=[])
    given["b"]["missing"] = "is not installed"
    part = Part("A part", (Case("a", "passes", "x"), Case("b", "litert", "y")), (_ratio("a / b", "a", "b"),))
    found = summarise(given, part.ratios)
    assert found["ratios"] == []
    when = {"at": "now", "minutes": 1.0, "load": 0.5}
    machine = {"cores": 2, "processor": "P", "memory_bytes": 2**30}
    shown = page(
        {"machine": machine, "versions": {}, "parts": {"one": {"cases": given, **found, **when}}}, {"one": part}
    )
    assert "| b | is not installed | what b is |" in shown
    assert "| a | 1 | what a is |" in shown


def test_what_is_not_met_stands_out() -> None:
    part = Part("A part", (Case("a", "passes", "x"),), (_ratio("ms", "a", at_most=1),))
    given = results(a=[2.0])
    record = {"cases": given, **summarise(given, part.ratios), "at": "now", "minutes": 1.0, "load": 0.5}
    machine = {"cores": 2, "processor": "P", "memory_bytes": 2**30}
    shown = page({"machine": machine, "versions": {}, "parts": {"one": record}}, {"one": part})
    assert "| ms | milliseconds | 2 | at most 1 | **no** |" in shown


def test_rank_grows_by_joining_and_zero_leaves_the_adapter_out() -> None:
    feeds = {"lora.0.qkv.a": np.ones((4, 2)), "lora.0.qkv.b": np.ones((2, 12)), "head.bias": np.ones(3)}
    twice = workers.times_rank(feeds, 2)
    assert twice["lora.0.qkv.a"].shape == (4, 4)
    assert twice["lora.0.qkv.b"].shape == (4, 12)
    assert set(workers.times_rank(feeds, 0)) == {"head.bias"}
    with pytest.raises(SystemExit, match="measure nothing"):
        workers.check_rank(workers.times_rank(feeds, 0), 1)


def test_time_is_that_of_the_processor() -> None:
    assert best_round(lambda: time.sleep(0.01), 2) < 5


class Words:
    """A tokenizer that splits words into pieces of three letters."""

    def encode(self, text: str) -> Any:
        pieces = sum(-(-len(word) // 3) for word in text.split())
        return type("Encoding", (), {"ids": [0] * (pieces + 2)})


def test_rows_have_exactly_the_length() -> None:
    words = ["lengthy", "of", "extraordinary", "and"] * 10
    for length in range(8, 20):
        assert len(Words().encode(cut(Words(), words, length)).ids) == length


def test_memory_is_that_of_a_process_of_its_own(tiny: Loaded, tmp_path: Path) -> None:
    tiny_deployed.exported(tiny, tmp_path)
    folder = tmp_path / "deployed"
    manifest = read_manifest(folder)
    sizes = part_sizes(manifest)
    on_disk = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    assert sizes.pop("total") == on_disk == sum(sizes.values())
    graphs = [str(folder / manifest.graphs[name]) for name in ("trunk", "branch")]
    for request in ({"folder": str(folder)}, {"paths": [graphs] * 3, "length": 8}):
        found = measured(request)
        assert 0 < found["resident"] <= found["peak"]
    with pytest.raises(TrunklineError, match="ended with code"):
        measured({})
