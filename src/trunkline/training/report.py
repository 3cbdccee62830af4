"""How a caller follows a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Report:
    """`say` gets a line of text now and then; `progress` gets steps done, all steps and the last logged values."""

    say: Callable[[str], None] = lambda text: None
    progress: Callable[[int, int, dict[str, float]], None] = lambda done, steps, values: None
