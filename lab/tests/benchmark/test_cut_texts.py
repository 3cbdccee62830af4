"""Texts that a suite cuts: the same for every method, never inside a label, and other results than whole texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny_suites

from trunkline.errors import RecipeError
from trunkline_lab.benchmark.inputs import cut, load_task
from trunkline_lab.benchmark.run import list_cells, run_suite

LONG = "one two three four five six seven eight nine ten eleven twelve"


@pytest.mark.parametrize(
    ("text", "most", "left"),
    [
        ("one two", 7, "one two"),
        ("one two", 6, "one"),
        ("one two.", 7, "one two"),
        ("one\n\ntwo", 4, "one"),
        ("overlong", 4, "over"),
        ("", 4, ""),
    ],
)
def test_a_text_is_cut_before_the_word_that_does_not_fit(text: str, most: int, left: str) -> None:
    assert cut(text, most) == left


def _task(folder: Path) -> Path:
    path = tiny_suites.write_task(folder, "long", "classification", {"train": 12, "dev": 6, "test": 6})
    for file in folder.glob("long-*.jsonl"):
        file.write_text(file.read_text().replace('"text": "', f'"text": "{LONG} '))
    return path


def test_all_parts_are_cut_and_the_results_are_others_than_of_whole_texts(tiny_folder: Any, tmp_path: Path) -> None:
    card = _task(tmp_path)
    whole, cut_task = load_task(str(card))[0], load_task(str(card), 32)[0]
    for part, before in ((cut_task.train, whole.train), (cut_task.dev, whole.dev), (cut_task.test, whole.test)):
        assert [e.label for e in part] == [e.label for e in before]
        assert {e.text for e in part} == {"one two three four five six"}
        assert all(e.text.startswith(LONG) for e in before)
    encoder = tiny_folder("bert")
    recipes = [
        tiny_suites.suite(encoder, {"long": card}, tasks=[{"card": str(card), **extra}])
        for extra in ({}, {"max_chars": 32}, {"max_chars": 40})
    ]
    keys = [{cell.key for cell in list_cells(recipe)} for recipe in recipes]
    assert not keys[0] & keys[1] and not keys[1] & keys[2]
    results = run_suite(recipes[1], tmp_path / "out").results
    # Nothing is left to tell the classes apart, so a head can only name one of them.
    assert {result.test["accuracy"] for result in results} == {1 / 3}


def test_a_task_of_entities_is_not_cut(tiny_folder: Any, tmp_path: Path) -> None:
    card = tiny_suites.write_tasks(tmp_path)["people"]
    with pytest.raises(RecipeError, match=r"max_chars is for classification; .* has labels inside its texts"):
        tiny_suites.suite(tiny_folder("bert"), {}, tasks=[{"card": str(card), "max_chars": 100}])
