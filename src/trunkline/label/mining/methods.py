"""The ways to find texts that belong together."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from trunkline.label.mining.options import MinePairsConfig, Passages
from trunkline.label.mining.passages import heading, is_question, mark, settle, split_passages, unmarked
from trunkline.label.mining.sources import Document, read_documents, read_table

_EARLIER = 32
"""Earlier rows of a group that are remembered, so that memory grows with the groups and not with the rows."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """Two texts that may belong together; `document` numbers what they were found in."""

    document: int
    left: str
    right: str
    group: str = ""


def find_candidates(sources: Sequence[str | Path], config: MinePairsConfig) -> Iterator[Candidate]:
    """Yields what the configured method finds, document by document and in the order of the sources.

    Raises:
        DataError: A source that is missing or malformed.
    """
    if config.method == "columns":
        return _columns(sources, config)
    if config.method == "duplicates":
        return _duplicates(sources, config)
    if config.conversation_column is not None:
        return _turns(sources, config)
    return _of_documents(sources, config)


def adjacent(document: Document, config: MinePairsConfig) -> Iterator[tuple[str, str]]:
    """Each passage with the next one."""
    return pairwise(split_passages(document.lines, config.passages))


def question_answer(document: Document, config: MinePairsConfig) -> Iterator[tuple[str, str]]:
    """Each question with the passage after it.

    A question is what begins with a mark such as `Q:` or ends in a question mark; of several in a row the last one
    is answered. What begins with a mark such as `A:` is an answer even if it ends in a question mark. A Markdown
    heading answers nothing.
    """
    asks, answers = mark(config.question_marks), mark(config.answer_marks)

    def starts(line: str) -> bool:
        text = unmarked(line)
        return bool(_is_heading(line) or asks.match(text) or answers.match(text))

    def ends(line: str) -> bool:
        return _is_heading(line) or is_question(line)

    question = ""
    for passage in split_passages(document.lines, config.passages, starts=starts, ends=ends):
        text = unmarked(passage)
        asked, answered = asks.match(text), answers.match(text)
        if asked or (not answered and is_question(text)):
            question = asked.group(1) if asked else text
        elif _is_heading(passage):
            question = ""
        elif question:
            yield question, answered.group(1) if answered else text
            question = ""


def title_body(document: Document, config: MinePairsConfig) -> Iterator[tuple[str, str]]:
    """The first line, and each Markdown heading, with the passage after it."""
    how: Passages
    how, lines = settle(document.lines, config.passages)
    title = next((line for line in lines if line), "")
    title = unmarked(title)
    for passage in split_passages(lines, how, starts=_is_heading, ends=_is_heading):
        if heading(passage):
            title = heading(passage)
        elif title:
            yield title, passage
            title = ""


_OF_DOCUMENT = {"adjacent": adjacent, "question-answer": question_answer, "title-body": title_body}


def _is_heading(line: str) -> bool:
    return bool(heading(line))


def _of_documents(sources: Sequence[str | Path], config: MinePairsConfig) -> Iterator[Candidate]:
    find = _OF_DOCUMENT[config.method]
    for number, document in enumerate(read_documents(sources, config)):
        group = str(number) if config.group_documents else ""
        for left, right in find(document, config):
            yield Candidate(number, left, right, group)


def _columns(sources: Sequence[str | Path], config: MinePairsConfig) -> Iterator[Candidate]:
    columns = [name for name in (config.left_column, config.right_column, config.group_column) if name is not None]
    for number, (_, (left, right, *group)) in enumerate(read_table(sources, columns, config)):
        yield Candidate(number, left, right, *group)


def _turns(sources: Sequence[str | Path], config: MinePairsConfig) -> Iterator[Candidate]:
    number, before, last = -1, (-1, ""), ""
    for file, (conversation, text) in read_table(sources, (str(config.conversation_column), config.text), config):
        if (file, conversation) == before and conversation:
            yield Candidate(number, last, text, str(number) if config.group_documents else "")
        else:
            number += 1
        before, last = (file, conversation), text


def _duplicates(sources: Sequence[str | Path], config: MinePairsConfig) -> Iterator[Candidate]:
    """Pairs each row with a draw from the earlier rows of its group, of which a fair sample is remembered."""
    draw = random.Random(config.seed)
    numbers: dict[str, int] = {}
    remembered: list[list[str]] = []
    rows: Counter[int] = Counter()
    for _, (group, text) in read_table(sources, (str(config.group_column), config.text), config):
        if not group or not text:
            continue
        number = numbers.setdefault(group, len(numbers))
        if number == len(remembered):
            remembered.append([])
        earlier = remembered[number]
        for left in draw.sample(earlier, min(config.per_row, len(earlier))):
            yield Candidate(number, left, text, group)
        rows[number] += 1
        if len(earlier) < _EARLIER:
            earlier.append(text)
        elif (slot := draw.randrange(rows[number])) < _EARLIER:
            earlier[slot] = text
