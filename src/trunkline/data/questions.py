"""Questions about contexts: SQuAD 1.1 and 2.0 (Rajpurkar et al. 2016, 2018), as articles or as records."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trunkline.data.files import data_error
from trunkline.data.records import Record, Records, get_key, shorten
from trunkline.text.examples import QaExample


def is_question(record: Record) -> bool:
    """Whether a record is an article of SQuAD or a question with its context."""
    return "paragraphs" in record or {"question", "context", "answers"} <= record.keys()


def read_questions(records: Records, path: str | Path) -> Iterator[QaExample]:
    """Yields the questions of records in their order; `plausible_answers` of unanswerable ones are not read.

    `answers` are objects with `text` and `answer_start`, or two lists under these keys, none where there is no answer.

    Raises:
        DataError: A blank question or context, an answer that does not stand where it should, or one to a question that
            `is_impossible`; names the line on which the record begins and the question's id.
    """
    for line, record in records:
        if "paragraphs" not in record:
            yield _question(record, record.get("context"), path, line)
            continue
        for paragraph in _objects(record["paragraphs"], "paragraphs", path, line):
            for item in _objects(paragraph.get("qas"), "qas", path, line):
                yield _question(item, paragraph.get("context"), path, line)


def _question(item: Record, context: Any, path: str | Path, line: int) -> QaExample:
    where = f"question {shorten(item['id'])}: " if item.get("id") is not None else ""
    question, answers, spans = item.get("question"), get_key(item, "answers", path, line), []
    for what, text in (("context", context), ("question", question)):
        if not isinstance(text, str) or not text.strip():
            raise data_error(path, line, f"{where}the {what} is {shorten(text)}", f"a {what} as a string")
    try:
        if isinstance(answers, dict):
            pairs = list(zip(answers["text"], answers["answer_start"], strict=True))
        else:
            pairs = [(one["text"], one["answer_start"]) for one in answers]
    except (KeyError, TypeError, ValueError):
        expected = "a list of objects with text and answer_start, or an object of two lists"
        raise data_error(path, line, f"{where}the answers are {shorten(answers)}", expected) from None
    for text, start in pairs:
        given = f"{where}the answer {shorten(text)} does not stand at {shorten(start)} of the context"
        whole = isinstance(text, str) and text.strip() and isinstance(start, int) and not isinstance(start, bool)
        if not whole or start < 0 or context[start : start + len(text)] != text:
            todo = "Check that it does not count bytes or UTF-16 units"
            raise data_error(path, line, given, "answer_start as an offset in characters, from 0", todo)
        spans.append((start + len(text) - len(text.lstrip()), start + len(text.rstrip())))
    impossible = item.get("is_impossible")
    if impossible not in (None, True, False) or (impossible is not None and impossible is bool(spans)):
        given = f"{where}is_impossible is {shorten(impossible)} and there are {len(spans)} answers"
        raise data_error(path, line, given, "answers where it is false, and none where it is true")
    return QaExample(" ".join(str(question).split()), context, tuple(dict.fromkeys(spans)))


def _objects(value: Any, key: str, path: str | Path, line: int) -> list[Record]:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise data_error(path, line, f"{key} is {shorten(value)}", "a list of objects, as in SQuAD")
    return value
