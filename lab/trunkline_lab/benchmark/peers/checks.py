"""What every peer asks of a task before it begins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from trunkline.errors import TrunklineError
from trunkline.tasks import get_family

if TYPE_CHECKING:
    from trunkline_lab.fitting import TaskData


def check_task(name: str, families: Sequence[str], task: TaskData) -> None:
    """Refuses a task that a peer cannot learn.

    Raises:
        TrunklineError: Another family than the peer's, no train or dev part, or too few classes.
    """
    if task.family not in families:
        raise TrunklineError(
            f"the peer {name} was given {task.name}, a task of the family {task.family}",
            expected=f"a task of {' or '.join(families)}",
        )
    if not task.train or not task.dev:
        raise TrunklineError(
            f"task {task.name} has {len(task.train)} train and {len(task.dev)} dev examples",
            expected="both, because peers are chosen or stopped on dev",
            todo="Set a part of train aside for dev",
        )
    classes = set().union(*(get_family(task.family).classes(example) for example in task.train))
    least = 2 if task.family == "classification" else 1
    if len(classes) < least:
        raise TrunklineError(
            f"task {task.name} has {len(classes)} classes in train: {', '.join(sorted(classes)) or 'none'}",
            expected=f"at least {least}",
            todo="Give more labelled examples",
        )
