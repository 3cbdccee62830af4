"""How many modules of ours a stranger reads to follow one `fit`, and one text through `predict`.

A module counts if a function of it runs, comprehensions and methods included, on the second of two equal calls: what
is imported on the way is read by Python. One does not count that holds data or classes alone, nor methods that
`dataclasses` makes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import deployed
import trunkline
from trunkline.cli import tasks
from trunkline.encoder.bundle_files import Loaded

HOME = str(Path(trunkline.__file__).parent)
FIT, PREDICT = 12, 8
"""The most modules."""


def modules_of(work: Callable[[], Any]) -> list[str]:
    """The modules of ours whose functions run in some work, in the order in which they are entered."""
    seen: dict[str, None] = {}

    def look(frame: FrameType, event: str, argument: Any) -> None:
        name = frame.f_code.co_filename
        if event == "call" and name.startswith(HOME):
            seen.setdefault(name.removeprefix(HOME + "/"))

    work()
    sys.setprofile(look)
    try:
        work()
    finally:
        sys.setprofile(None)
    return list(seen)


@pytest.fixture
def folder(tiny: Loaded, tmp_path: Path) -> Path:
    return deployed.deploy(tiny, tmp_path / "bundle")


def test_a_fit_from_the_command_to_the_task_file(folder: Path, tmp_path: Path) -> None:
    """At most `FIT` modules, from the function of the command to the file of the task."""
    train = tmp_path / "train.csv"
    train.write_text("text,label\n" + "ann met bob,name\ncarla and dan,name\nparis and rome,place\noslo,place\n" * 3)

    def work() -> None:
        tasks.fit("kinds", str(train), model=str(folder), replace=True, as_json=True)

    found = modules_of(work)
    sys.stdout.write(f"fit runs {len(found)} modules: {', '.join(found)}\n")
    assert "heads/linear.py" in found
    assert len(found) <= FIT, found


def test_one_text_through_predict(tiny: Loaded, tmp_path: Path) -> None:
    """At most `PREDICT` modules, from `Model.predict` to the predictions."""
    model = trunkline.load(deployed.deploy(deployed.whole(tiny), tmp_path / "whole"))
    counts = {}
    for tasks_of in (["topic"], ["names"], None):
        found = modules_of(lambda chosen=tasks_of: model.predict(["ann lives in berlin"], chosen))  # type: ignore[misc]
        counts[str(tasks_of)] = len(found)
        sys.stdout.write(f"predict of {tasks_of or 'all'} runs {len(found)} modules: {', '.join(found)}\n")
        assert "engine/onnx.py" in found
    assert max(counts.values()) <= PREDICT, counts
