"""What a check says: findings, and the report of one data set."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from trunkline.text.examples import Example, PairExample, QaExample

Severity = Literal["leak", "error", "warning", "info"]
SAMPLES = 3
SAMPLE_LENGTH = 160
CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
"""Control characters other than tab and line end; those from U+0080 are Windows-1252 read as Latin-1."""


@dataclass(frozen=True)
class Finding:
    """One thing that a check saw in a split, or in `all`.

    `severity` is `leak` where what is scored was learnt from, and `error` where the data is not what it should be.
    `share` is `count` as a share of the split's texts or labels, from 0 to 1; None where there is nothing to divide by.
    `waived` says why somebody has accepted the finding; `details` has more numbers, for machines.
    """

    check: str
    severity: Severity
    split: str
    count: int
    share: float | None
    message: str
    samples: tuple[str, ...] = ()
    waived: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """The findings of one data set; `counts` is the number of examples of each split."""

    name: str
    counts: Mapping[str, int]
    findings: tuple[Finding, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return asdict(self)


def example_texts(example: Example) -> tuple[str, ...]:
    """The texts of an example: two for a pair and for a question with its context, else one."""
    if isinstance(example, QaExample):
        return example.question, example.context
    return (example.left, example.right) if isinstance(example, PairExample) else (example.text,)


def whole_text(example: Example) -> str:
    """One text that stands for an example; the sides of a pair are joined by a line feed."""
    return "\n".join(example_texts(example))


def shorten(text: str) -> str:
    """A text as a sample: one line without control characters, at most `SAMPLE_LENGTH` characters."""
    line = CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", " ".join(text.split()))
    return line if len(line) <= SAMPLE_LENGTH else f"{line[: SAMPLE_LENGTH - 3]}..."
