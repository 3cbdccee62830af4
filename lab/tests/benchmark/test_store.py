"""The folder of results: what is in it is whole, one run at a time writes, and what is damaged counts as missing."""

from __future__ import annotations

import errno
import json
import logging
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from trunkline.errors import DataError, TrunklineError
from trunkline.tasks import FAMILIES
from trunkline.text.examples import NerExample, Span, TextExample
from trunkline.text.words import split_words
from trunkline_lab.benchmark.cells import Cell
from trunkline_lab.benchmark.results import Result
from trunkline_lab.benchmark.store import ResultStore, baseline_of, compact, pack, read_results
from trunkline_lab.benchmark.suite import LabelBudget

HOLD = """
import sys, time
from pathlib import Path
from trunkline_lab.benchmark.store import ResultStore
with ResultStore(Path(sys.argv[1])).lock():
    print("held", flush=True)
    time.sleep(60)
"""


def result_of(key: str = "k0", **changes: Any) -> Result:
    values: dict[str, Any] = {
        "key": key,
        "task": "kinds",
        "family": "classification",
        "measure": "accuracy",
        "encoder": "none",
        "method": "head",
        "budget": "all",
        "seed": 0,
        "test": {"accuracy": 0.5},
        "counts": [[1, 1], [0, 1]],
    }
    return Result(**{**values, **changes})


def cell_of(result: Result) -> Cell:
    return Cell(
        key=result.key,
        card=result.task,
        task=result.task,
        family=result.family,
        encoder=result.encoder,
        source="default",
        method=result.method,
        budget=LabelBudget(all=True),
        seed=result.seed,
        section=None,
    )


def test_what_is_written_is_read(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    result = result_of()
    store.write(result, [{"label": "a", "score": 0.5, "probabilities": {"a": 0.5, "b": 0.5}}] * 2)
    assert store.keep_current([cell_of(result)]) == {"k0": replace(result, counts=[[1, 1], [0, 1]])}
    assert store.predictions("k0") == [{"label": "a", "score": 0.5}] * 2
    assert read_results(tmp_path) == [replace(result, counts=[[1, 1], [0, 1]])]
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["cells", "k0.json", "k0.json.gz", "predictions"]


def test_every_metric_can_be_computed_from_stored_predictions() -> None:
    gold = [NerExample("Ana is in Rome", split_words("Ana is in Rome"), (Span(0, 3, "person"), Span(10, 14, "place")))]
    entity = {"start": 0, "end": 3, "text": "Ana", "label": "person", "score": 0.9}
    found = json.loads(json.dumps(compact([[entity]])))
    assert found == [[{"start": 0, "end": 3, "label": "person", "score": 0.9}]]
    ner, classification = FAMILIES["ner"], FAMILIES["classification"]
    assert ner.score(gold, found) == ner.score(gold, [[entity]])
    whole = [{"label": "b", "score": 0.7, "probabilities": {"b": 0.7, "a": 0.3}}]
    texts = [TextExample("x", "b")]
    assert classification.score(texts, compact(whole)) == classification.score(texts, whole)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "null",
        '{"key": "k1"}',
        json.dumps({**result_of("k1").to_json(), "counts": "x"}),
        json.dumps({**result_of("k1").to_json(), "counts": result_of().to_json()["counts"][:-6]}),
        json.dumps({**result_of("k1").to_json(), "extra": 1}),
        json.dumps({**result_of("k1").to_json(), "test": {}}),
        json.dumps(result_of("k2").to_json()),
        "[" * 100_000,
    ],
)
def test_a_damaged_cell_counts_as_missing_and_is_named(
    content: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = ResultStore(tmp_path)
    store.write(result_of())
    (tmp_path / "cells" / "k1.json").write_text(content, encoding="utf-8")
    with caplog.at_level(logging.WARNING):
        found = store.keep_current([cell_of(result_of()), cell_of(result_of("k1", seed=1))])
        assert set(found) == {"k0"}
        assert store.damaged == ["k1.json"]
        assert [result.key for result in read_results(tmp_path)] == ["k0"]
    assert str(tmp_path / "cells" / "k1.json") in caplog.text
    store.write(result_of("k1", seed=1))
    assert set(store.keep_current([cell_of(result_of("k1", seed=1))])) == {"k1"}
    assert store.damaged == []


def test_damaged_predictions_are_named(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    store.write(result_of(), [{"label": "a", "score": 1.0}])
    path = tmp_path / "predictions" / "k0.json.gz"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match=r"k0\.json\.gz"):
        store.predictions("k0")
    with pytest.raises(DataError, match="no such file"):
        store.predictions("k1")


def test_a_failure_is_kept_with_its_error_and_its_traceback_apart(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    broken = result_of(test={}, counts=(), error="DataError: no such file")
    store.write(broken, traceback="Traceback: line 3")
    assert store.keep_current([cell_of(broken)])["k0"].error == "DataError: no such file"
    assert "k0\nTraceback: line 3" in (tmp_path / "failures.log").read_text(encoding="utf-8")
    assert "Traceback" not in (tmp_path / "cells" / "k0.json").read_text(encoding="utf-8")


def test_a_result_of_another_key_at_the_same_place_is_set_aside_and_comes_back(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    old, new, other = result_of("old"), result_of("new"), result_of("other", seed=5)
    store.write(old)
    store.write(other)
    assert store.keep_current([cell_of(new)]) == {}
    assert {result.key for result in read_results(tmp_path)} == {"other"}
    store.write(new)
    assert set(store.keep_current([cell_of(new)])) == {"new"}
    assert set(store.keep_current([cell_of(old)])) == {"old"}
    assert {result.key for result in read_results(tmp_path)} == {"old", "other"}
    assert set(store.keep_current([cell_of(new)])) == {"new"}
    store.write(result_of("failed", seed=9, test={}, counts=(), error="no"))
    store.keep_current([cell_of(result_of("newer", seed=9))])
    assert not list(tmp_path.rglob("failed.json"))


@pytest.mark.parametrize("number", range(1, 5))
def test_a_full_disk_is_an_error_that_says_what_to_do_and_leaves_nothing_half_written(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ResultStore(tmp_path)
    store.write(result_of(), [{"label": "a", "score": 1.0}])
    done = [0]
    for owner, name in ((os, "fsync"), (Path, "replace")):
        original = getattr(owner, name)

        def operation(*args: Any, original: Any = original, **options: Any) -> Any:
            done[0] += 1
            if done[0] >= number:
                raise OSError(errno.ENOSPC, "No space left on device")
            return original(*args, **options)

        monkeypatch.setattr(owner, name, operation)
    with pytest.raises(
        TrunklineError, match=r"No space left on device.*the results stored before are intact.*Make room"
    ):
        store.write(result_of("k1", seed=1), [{"label": "b", "score": 1.0}])
    monkeypatch.undo()
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith(".part")]
    assert set(store.stored()) == {"k0"}
    assert store.damaged == []


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(TrunklineError, match="could not be written"), ResultStore(tmp_path / "file" / "in").lock():
        pass


def test_two_runs_in_one_folder_are_refused_until_the_first_is_dead(tmp_path: Path) -> None:
    held = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert held.stdout is not None
        assert held.stdout.readline() == "held\n"
        refused = pytest.raises(TrunklineError, match=rf"process {held.pid} runs here since 20\d\d-.*--out")
        with refused, ResultStore(tmp_path).lock():
            pass
        with ResultStore(tmp_path / "other").lock():
            pass
    finally:
        held.kill()
        held.wait()
    assert str(held.pid) in (tmp_path / "run.lock").read_text(encoding="utf-8")
    with ResultStore(tmp_path).lock():
        assert json.loads((tmp_path / "run.lock").read_text(encoding="utf-8"))["pid"] == os.getpid()
    assert (tmp_path / "run.lock").read_text(encoding="utf-8") == ""


def test_packed_results_are_the_same_sorted_and_without_failures(tmp_path: Path) -> None:
    store = ResultStore(tmp_path / "run")
    results = [
        replace(result_of(f"k{number}", task=task, seed=seed), counts=[[1, 1]])
        for number, (task, seed) in enumerate([("b", 1), ("a", 0), ("b", 0)])
    ]
    for result in results:
        store.write(result)
    store.write(result_of("k9", test={}, counts=(), error="no"))
    store.write_suite({"baseline": "none"})
    paths = pack(tmp_path / "run", tmp_path / "packed")
    assert [path.name for path in paths] == ["a.jsonl", "b.jsonl"]
    assert read_results(tmp_path / "packed") == [results[1], results[2], results[0]]
    assert baseline_of(tmp_path / "packed") == "none"
    before = [path.read_bytes() for path in paths]
    assert [path.read_bytes() for path in pack(tmp_path / "packed", tmp_path / "packed")] == before


def test_some_cells_are_packed(tmp_path: Path) -> None:
    store = ResultStore(tmp_path / "run")
    places = [(task, "head", encoder, seed) for task in "ab" for encoder in ("none", "own") for seed in (0, 1)]
    places += [("a", "head", "half", 0), ("a", "lora", "none", 0), ("b", "lora", "none", 0)]
    places.remove(("b", "head", "own", 1))
    for number, (task, method, encoder, seed) in enumerate(places):
        store.write(result_of(f"k{number}", task=task, method=method, encoder=encoder, seed=seed))

    def packed(name: str, **options: Any) -> set[tuple[str, str, str, int]]:
        pack(tmp_path / "run", tmp_path / name, **options)
        return {(r.task, r.method, r.encoder, r.seed) for r in read_results(tmp_path / name)}

    assert packed("all") == set(places)
    assert packed("encoder", encoders=["half"]) == {("a", "head", "half", 0)}
    assert packed("method", methods=["lora"]) == {("a", "lora", "none", 0), ("b", "lora", "none", 0)}
    # Task b has no encoder `half`, and not both seeds of `own`.
    assert packed("complete", complete=True) == {place for place in places if place[0] == "a" or place[1] == "lora"}
    two = packed("two", encoders=["none", "own"], methods=["head"], complete=True)
    assert two == {place for place in places if place[:2] == ("a", "head") and place[2] != "half"}
    with pytest.raises(TrunklineError, match=r"none of the cells has the encoder 'naive'\. Expected one of half, none"):
        packed("no", encoders=["naive"])


def test_a_damaged_line_of_a_packed_file_is_named_and_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = ResultStore(tmp_path)
    store.write(result_of("k0"))
    store.write(result_of("k1", seed=1))
    (path,) = pack(tmp_path, tmp_path / "packed")
    first, second = path.read_text(encoding="utf-8").splitlines()
    path.write_text(f"{first[:-20]}\n{second}\n", encoding="utf-8")
    with caplog.at_level(logging.WARNING):
        assert [result.key for result in read_results(tmp_path / "packed")] == ["k1"]
    assert f"{path}:1" in caplog.text


def test_a_folder_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrunklineError, match="holds no results of a benchmark"):
        read_results(tmp_path)
    with pytest.raises(TrunklineError, match="--baseline"):
        baseline_of(tmp_path)
