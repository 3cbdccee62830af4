"""Questions as JSON lines: `question`, `context` and `answers` as in the rows of SQuAD on the hub."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from trunkline.text.examples import QaExample
from trunkline_lab.data.readers.base import FileOptions, get_key, read_json_lines, require_some
from trunkline_lab.data.readers.squad import Place, build_example


class Options(FileOptions):
    """Options of question lines."""

    question_key: str = "question"
    context_key: str = "context"
    answers_key: str = "answers"


def read(path: str | Path, options: Options) -> Iterator[QaExample]:
    """Yields a question a line; see `trunkline_lab.data.readers.squad.build_example`."""
    return require_some(_examples(path, options), path, what="question")


def _examples(path: str | Path, options: Options) -> Iterator[QaExample]:
    for line, record in read_json_lines(path, options):
        item = {
            "question": get_key(record, options.question_key, path, line),
            "answers": get_key(record, options.answers_key, path, line),
            "is_impossible": record.get("is_impossible"),
        }
        context = get_key(record, options.context_key, path, line)
        yield build_example(item, context, Place(path, line, record.get("id")))
