"""Two files with one line for each example: tokens and tags, or texts and labels."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from trunkline.data.load import read_lines
from trunkline.errors import DataError
from trunkline.text.examples import NerExample, TextExample
from trunkline_lab.data.readers.base import LabelOptions, SentenceBuilder, TaggedOptions, TextBuilder


class ParallelOptions(TaggedOptions, LabelOptions):
    """Options of parallel files; the second file is named from the folder of the first."""

    tags: str | None = Field(default=None, description="File with a tag for each token of the first file.")
    labels: str | None = Field(default=None, description="File with a label for each text of the first file.")

    @model_validator(mode="after")
    def _one_second_file(self) -> Self:
        if (self.tags is None) == (self.labels is None):
            raise ValueError("give exactly one of tags (a file of tags) and labels (a file of labels)")
        return self


def read_parallel(path: str | Path, options: ParallelOptions) -> Iterator[NerExample | TextExample]:
    """Yields an example for each pair of lines; pairs of empty lines are passed over."""
    second = Path(path).parent / (options.tags or options.labels or "")
    builder = SentenceBuilder(second, options.scheme)
    texts = TextBuilder(path, options, label_path=second)
    for line, text, other in _pairs(path, second, options):
        if options.labels is not None:
            if (example := texts.build(text, other, line)) is not None:
                yield example
            continue
        tokens, tags = text.split(), other.split()
        if len(tokens) != len(tags):
            raise DataError(
                f"{len(tags)} tags for the {len(tokens)} tokens in {path}",
                path=second,
                line=line,
                expected="as many tags as tokens, separated by blanks",
            )
        yield builder.build(tokens, tags, (line,))
    builder.report()
    texts.report()


def _pairs(path: str | Path, second: Path, options: ParallelOptions) -> Iterator[tuple[int, str, str]]:
    left = read_lines(path, encoding=options.encoding)
    right = read_lines(second, encoding=options.encoding)
    for one, two in zip_longest(left, right):
        blank = not (one and one[1].strip()), not (two and two[1].strip())
        if all(blank):
            continue
        if one is None or two is None:
            shorter, longer = (path, second) if one is None else (second, path)
            line = (one or two or (0, ""))[0]
            raise DataError(
                f"this line has no partner, because {shorter} ends before it",
                path=longer,
                line=line,
                expected="two files with the same number of lines",
            )
        yield one[0], one[1], two[1]
