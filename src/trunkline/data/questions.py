"""Questions about contexts: SQuAD 1.1 and 2.0 (Rajpurkar et al. 2016, 2018), as articles or as records."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from trunkline.data.records import get_key, list_names, shorten
from trunkline.errors import DataError
from trunkline.text.examples import QaExample


def is_question(record: dict[str, Any]) -> bool:
    """Whether a record is an article of SQuAD or a question with its context."""
    return "paragraphs" in record or {"question", "context", "answers"} <= record.keys()


def read_questions(records: Iterable[tuple[int, dict[str, Any]]], path: str | Path) -> Iterator[QaExample]:
    """Yields the questions of records in their order; `plausible_answers` of unanswerable ones are not read.

    Raises:
        DataError: Names the line on which the record begins and the question's id.
    """
    for line, record in records:
        if "paragraphs" not in record:
            yield build_question(record, get_key(record, "context", path, line), path, line)
            continue
        for paragraph in _objects(record["paragraphs"], "paragraphs", path, line):
            for item in _objects(paragraph.get("qas"), "qas", path, line):
                yield build_question(item, paragraph.get("context"), path, line)


def build_question(item: dict[str, Any], context: Any, path: str | Path, line: int | None) -> QaExample:
    """A question as an example.

    Args:
        item: With `question`, `answers` (a list of `text` and `answer_start`, or two lists under these keys) and, in
            SQuAD 2.0, `is_impossible`.
        context: The paragraph.
        path: For errors.
        line: For errors.

    Raises:
        DataError: A blank question or context, an answer that does not stand where it should, or one to a question that
            has none.
    """

    def error(given: str, expected: str, todo: str = "") -> DataError:
        named = f"question {shorten(item['id'])}: " if item.get("id") is not None else ""
        return DataError(f"{named}{given}", path=path, line=line, expected=expected, todo=todo)

    for what, text in (("context", context), ("question", item.get("question"))):
        if not isinstance(text, str) or not text.strip():
            raise error(f"the {what} is {shorten(text)}", f"a {what} as a string that is not blank")
    if "answers" not in item:
        raise error(f"the keys are {list_names(item)}", "the key 'answers', an empty list where there is none")
    pairs = _pairs(item["answers"])
    if pairs is None:
        raise error(
            f"the answers are {shorten(item['answers'])}",
            "a list of objects with text and answer_start, or an object of two lists",
        )
    spans = []
    for text, start in pairs:
        if not isinstance(text, str) or not text.strip():
            raise error(f"an answer is {shorten(text)}", "a string that is not blank")
        whole = isinstance(start, int) and not isinstance(start, bool)
        if not whole or start < 0 or context[start : start + len(text)] != text:
            raise error(
                f"the answer {shorten(text)} does not stand at {shorten(start)} of the context",
                "answer_start as an offset in characters, from 0",
                "Check that it does not count bytes or UTF-16 units",
            )
        spans.append((start + len(text) - len(text.lstrip()), start + len(text.rstrip())))
    impossible = item.get("is_impossible")
    if impossible not in (None, True, False) or (impossible is not None and impossible is bool(spans)):
        raise error(
            f"is_impossible is {shorten(impossible)} and there are {len(spans)} answers",
            "answers where it is false, and none where it is true",
        )
    return QaExample(" ".join(item["question"].split()), context, tuple(dict.fromkeys(spans)))


def _pairs(value: Any) -> list[tuple[Any, Any]] | None:
    keys = ("text", "answer_start")
    if isinstance(value, dict) and all(isinstance(value.get(key), list) for key in keys):
        texts, starts = value["text"], value["answer_start"]
        if len(texts) == len(starts):
            return list(zip(texts, starts, strict=True))
    if isinstance(value, list) and all(isinstance(one, dict) and {*keys} <= one.keys() for one in value):
        return [(one["text"], one["answer_start"]) for one in value]
    return None


def _objects(value: Any, key: str, path: str | Path, line: int) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise DataError(f"{key} is {shorten(value)}", path=path, line=line, expected="a list of objects, as in SQuAD")
    return value
