"""Kills at every step of what is written: a process of its own runs the work and ends without cleaning up."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

_STEPS = ((Path, "open"), (Path, "replace"), (Path, "rename"), (Path, "unlink"), (Path, "mkdir"), (Path, "rmdir"))
KILLED, MOST = 9, 200


def killed_everywhere(prepare: Callable[[], None], work: Callable[[], Any]) -> Iterator[int]:
    """Runs work in a forked process that is killed before its n-th step on files, for n = 0, 1, ... until it ends.

    Yields:
        n, each time the process is dead. `prepare` is called before each.
    """
    for number in range(MOST):
        prepare()
        child = os.fork()
        if not child:
            _run(number, work)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert status in (0, KILLED), f"the work failed with {status}"
        yield number
        if not status:
            return
    raise AssertionError(f"the work has more than {MOST} steps")


def _run(number: int, work: Callable[[], Any]) -> None:
    left = number
    code = 1

    def counted(original: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any, **options: Any) -> Any:
            nonlocal left
            if not left:
                os._exit(KILLED)
            left -= 1
            return original(*arguments, **options)

        return step

    try:
        for owner, name in _STEPS:
            setattr(owner, name, counted(getattr(owner, name)))
        work()
        code = 0
    finally:
        # Nothing of the test run that was copied into this process may go on in it.
        os._exit(code)
