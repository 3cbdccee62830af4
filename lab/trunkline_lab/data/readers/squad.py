"""Questions about paragraphs in the JSON of SQuAD 1.1 and 2.0 (Rajpurkar et al. 2016, 2018)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from trunkline.errors import DataError
from trunkline.text.examples import QaExample
from trunkline_lab.data.readers.base import FileOptions, list_names, require_some, shorten
from trunkline_lab.data.readers.json_items import read_json_items


class Options(FileOptions):
    """Options of SQuAD files."""

    list_keys: tuple[str, ...] = Field(default=("data",), description="The keys that lead to the list of articles.")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a question stands, for errors."""

    path: str | Path
    line: int
    id: object = None

    def error(self, given: str, expected: str, todo: str = "") -> DataError:
        """What is wrong with the question."""
        named = f"question {shorten(self.id)}: " if self.id is not None else ""
        return DataError(f"{named}{given}", path=self.path, line=self.line, expected=expected, todo=todo)


def read(path: str | Path, options: Options) -> Iterator[QaExample]:
    """Yields the questions in the order of the file; `plausible_answers` of unanswerable ones are not read.

    Raises:
        DataError: Names the line on which the article begins and the question's id.
    """
    return require_some(_examples(path, options), path, what="question")


def _examples(path: str | Path, options: Options) -> Iterator[QaExample]:
    for line, article in read_json_items(path, options.list_keys, options):
        place = Place(path, line)
        for paragraph in _list(article, "paragraphs", "an article", place):
            for item in _list(paragraph, "qas", "a paragraph", place):
                if not isinstance(item, dict):
                    raise place.error(f"the question is {shorten(item)}", "an object with question and answers")
                yield build_example(item, paragraph.get("context"), Place(path, line, item.get("id")))


def _list(value: Any, key: str, what: str, place: Place) -> list[Any]:
    if not isinstance(value, dict) or not isinstance(value.get(key), list):
        found = f"the keys {list_names(value)}" if isinstance(value, dict) else shorten(value)
        raise place.error(f"{what} has {found}", f"an object with the list {key!r}")
    items: list[Any] = value[key]
    return items


def build_example(item: dict[str, Any], context: Any, place: Place) -> QaExample:
    """A question as an example.

    Args:
        item: With `question`, `answers` (a list of `text` and `answer_start`, or two lists under these keys) and, in
            SQuAD 2.0, `is_impossible`.
        context: The paragraph.
        place: For errors.

    Raises:
        DataError: A blank question or context, an answer that does not stand where it should, or one to a question that
            has none.
    """
    for what, text in (("context", context), ("question", item.get("question"))):
        if not isinstance(text, str) or not text.strip():
            raise place.error(f"the {what} is {shorten(text)}", f"a {what} as a string that is not blank")
    if "answers" not in item:
        raise place.error(f"the keys are {list_names(item)}", "the key 'answers', an empty list where there is none")
    answers = dict.fromkeys(_span(context, *parts, place) for parts in _answers(item["answers"], place))
    impossible = item.get("is_impossible")
    if impossible not in (None, True, False) or (impossible is not None and impossible is bool(answers)):
        raise place.error(
            f"is_impossible is {shorten(impossible)} and there are {len(answers)} answers",
            "answers where it is false, and none where it is true",
        )
    return QaExample(" ".join(item["question"].split()), context, tuple(answers))


def _answers(value: Any, place: Place) -> list[tuple[Any, Any]]:
    keys = ("text", "answer_start")
    if isinstance(value, dict) and all(isinstance(value.get(key), list) for key in keys):
        texts, starts = value["text"], value["answer_start"]
        if len(texts) == len(starts):
            return list(zip(texts, starts, strict=True))
    if isinstance(value, list) and all(isinstance(one, dict) and {*keys} <= one.keys() for one in value):
        return [(one["text"], one["answer_start"]) for one in value]
    raise place.error(
        f"the answers are {shorten(value)}", "a list of objects with text and answer_start, or an object of two lists"
    )


def _span(context: str, text: Any, start: Any, place: Place) -> tuple[int, int]:
    if not isinstance(text, str) or not text.strip():
        raise place.error(f"an answer is {shorten(text)}", "a string that is not blank")
    whole = isinstance(start, int) and not isinstance(start, bool)
    if not whole or start < 0 or context[start : start + len(text)] != text:
        raise place.error(
            f"the answer {shorten(text)} does not stand at {shorten(start)} of the context",
            "answer_start as an offset in characters, from 0",
            "Check that it does not count bytes or UTF-16 units",
        )
    begin = start + len(text) - len(text.lstrip())
    return begin, start + len(text.rstrip())
