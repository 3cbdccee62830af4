"""What all cases share, and where what they run lies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

RANK = 8
TARGETS = ("query", "value")
WIDE = ("query", "key", "value", "out", "up", "down")
EIGHT, TWENTY = 8, 20
FORK = 4


@dataclass(frozen=True)
class Options:
    """The options.

    Attributes:
        bundle: A training bundle, whose backbone all bundles here have.
        work: Where bundles are made; those that are there already are used as they are.
        length: Tokens of a text, special ones included.
        repeats: How often each case is measured.
        seconds: Processor time of one repeat, at least.
        core: The core that all cases are pinned to; -1 for the last one.
        litert_python: Interpreter of an environment with LiteRT's packages; empty to leave LiteRT out.
        limit: Examples of a real task's training part in the section on fidelity; half as many of its dev part.
        judged: Examples of its dev part that scores are taken on, at most; one of 150 would be 0.7 points.
    """

    bundle: str = "runs/strategies/task-primary-0/bundle"
    work: str = "runs/deployment"
    length: int = 32
    repeats: int = 5
    seconds: float = 0.3
    core: int = -1
    litert_python: str = ""
    limit: int = 400
    judged: int = 1000

    def place(self, name: str) -> Path:
        """A folder or file among what is made."""
        return Path(self.work) / name
