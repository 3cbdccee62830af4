"""Cutting a document into passages, and telling questions, answers and headings apart."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from statistics import median

from trunkline.label.mining.options import Passages

_PEEK = 1000
"""Lines in which a blank line is looked for; a document need not fit the memory."""

_WRAPPED = 120
"""Characters; where half of the lines are longer, a line is a whole paragraph."""

_LONGEST = 1_000_000
"""Characters after which a passage is cut; no side of a pair is that long."""

_QUESTION_END = re.compile(r"[?？؟՞፧\u037e][\"'”’»)\]]*$")
_FENCE = re.compile(r"\s*(```+|~~~+)([^`]*)$")
_HEADING = re.compile(r"#{1,6}\s+(\S.*?)\s*#*$")


def settle(lines: Iterable[str], how: Passages) -> tuple[Passages, Iterator[str]]:
    """Decides by its first lines what separates the passages of a document.

    It is blank lines where there are any and the lines are no longer than a text is wrapped at; else each line is a
    passage.

    Returns:
        `paragraphs` or `lines`, and all the lines, stripped.
    """
    stripped = (line.strip() for line in lines)
    if how != "auto":
        return how, stripped
    head = list(islice(stripped, _PEEK))
    has_blank = "\n\n" in "\n".join(head).strip("\n")
    wrapped = median(len(line) for line in head if line) <= _WRAPPED if has_blank else False
    return "paragraphs" if wrapped else "lines", chain(head, stripped)


def split_passages(
    lines: Iterable[str],
    how: Passages,
    *,
    starts: Callable[[str], bool] = lambda line: False,
    ends: Callable[[str], bool] = lambda line: False,
) -> Iterator[str]:
    """Yields the passages of a document; the lines of a paragraph are joined by blanks.

    Args:
        lines: The lines of one document.
        how: What separates passages.
        starts: Whether a line begins a passage in any case.
        ends: Whether a line ends its passage in any case.
    """
    how, lines = settle(lines, how)
    held: list[str] = []
    length = 0
    for line in lines:
        if held and (not line or how == "lines" or length > _LONGEST or starts(line)):
            yield " ".join(held)
            held, length = [], 0
        if line:
            held.append(line)
            length += len(line)
            if ends(line):
                yield " ".join(held)
                held, length = [], 0
    if held:
        yield " ".join(held)


def without_code(lines: Iterable[str]) -> Iterator[str]:
    """The lines of a Markdown text, each fenced block of code as one blank line."""
    fence = ""
    for line in lines:
        match = _FENCE.match(line)
        if not fence and match:
            fence = match.group(1)
            yield ""
        elif not fence:
            yield line
        elif match and match.group(1).startswith(fence) and not match.group(2).strip():
            fence = ""


def heading(line: str) -> str:
    """The text of a Markdown heading, or nothing if the line is none."""
    match = _HEADING.match(line)
    return match.group(1) if match else ""


def is_question(line: str) -> bool:
    """Whether a text ends in a question mark of any script, quotes and brackets after it aside."""
    return _QUESTION_END.search(unmarked(line)) is not None


def unmarked(line: str) -> str:
    """A line without the marks of a Markdown heading or of bold type around its beginning."""
    text = heading(line) or line
    return text.replace("**", "", 2).strip() if text.startswith("**") else text


def mark(words: Sequence[str]) -> re.Pattern[str]:
    """Matches one of the words, a number perhaps and a colon, as in `Q3: `, and what follows."""
    either = "|".join(re.escape(word) for word in words)
    return re.compile(rf"(?:{either})\s*\d*\s*[:：]\s*(.*)$", re.IGNORECASE | re.DOTALL)
