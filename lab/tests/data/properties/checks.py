"""What every reader owes, whatever the file: valid examples, or an error that names the file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from trunkline.errors import TrunklineError
from trunkline.text.examples import Example, NerExample, PairExample, QaExample, TextExample
from trunkline.text.words import split_words
from trunkline_lab.data.readers import READERS

MESSAGE_LIMIT = 2000
"""Characters of an error message; a longer one quotes the file instead of naming the place."""


def read_or_refuse(reader: str, path: Path, options: Mapping[str, Any]) -> list[Any] | None:
    """The examples, all valid; or None if an error was raised that is as errors should be."""
    try:
        examples = list(READERS[reader].read(path, options))
    except TrunklineError as error:
        message = str(error)
        beside = [value for value in options.values() if isinstance(value, str) and (path.parent / value).is_file()]
        assert any(name in message for name in (path.name, *beside)), message
        assert len(message) <= MESSAGE_LIMIT, message[:300]
        return None
    assert examples, "no example and no error"
    for example in examples:
        check_example(example)
    return examples


def check_example(example: Example) -> None:
    if isinstance(example, PairExample):
        _check_texts((example.left, example.right))
        assert isinstance(example.group, str)
        return
    if isinstance(example, QaExample):
        _check_texts((example.question, example.context))
        for start, end in example.answers:
            assert 0 <= start < end <= len(example.context)
            assert example.context[start:end] == example.context[start:end].strip()
        return
    _check_texts((example.text,))
    if isinstance(example, TextExample):
        _check_texts((example.label,))
        assert example.label == example.label.strip()
    if isinstance(example, NerExample):
        _check_sentence(example)


def _check_texts(texts: Iterable[str]) -> None:
    for text in texts:
        assert isinstance(text, str)
        assert text.strip()
        text.encode("utf-8")  # tokenizers take no lone surrogates


def _check_sentence(example: NerExample) -> None:
    assert example.words or not split_words(example.text)
    for start, end in example.words:
        assert 0 <= start < end <= len(example.text)
        assert example.text[start:end].strip()
    for (_, end), (start, _) in pairwise(example.words):
        assert end <= start
    for span in example.spans:
        assert 0 <= span.start < span.end <= len(example.text)
        assert any(start < span.end and end > span.start for start, end in example.words)
        assert example.text[span.start : span.end] == example.text[span.start : span.end].strip()
        _check_texts((span.label,))
