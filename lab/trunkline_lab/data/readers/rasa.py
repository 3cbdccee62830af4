"""Rasa NLU training data in JSON: texts with an intent, and with entities as character offsets.

Format: the documentation of Rasa 1, "Training data format", JSON.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from trunkline.errors import DataError
from trunkline.text.examples import NerExample, TextExample
from trunkline_lab.data.readers import spans
from trunkline_lab.data.readers.base import get_key, require_some, shorten
from trunkline_lab.data.readers.json_items import read_json_items
from trunkline_lab.data.readers.labelled import LabelOptions, TextBuilder

_SPAN_OPTIONS = spans.Options(label_key="entity")


class Options(LabelOptions):
    """Options of Rasa files; `value` is not checked, because Rasa puts an entity's normal form there."""

    list_keys: tuple[str, ...] = Field(
        default=("rasa_nlu_data", "common_examples"), description="The keys that lead to the list of examples."
    )
    labels: Literal["entities", "intent"] = Field(
        default="entities", description="Whether sentences with entities or texts with their intent are read."
    )


def read(path: str | Path, options: Options) -> Iterator[NerExample | TextExample]:
    """Yields an example an item; one without the key `entities` has none."""
    return require_some(_examples(path, options), path)


def _examples(path: str | Path, options: Options) -> Iterator[NerExample | TextExample]:
    builder = TextBuilder(path, options)
    for line, item in read_json_items(path, options.list_keys, options):
        if not isinstance(item, dict):
            raise DataError(
                f"the example is {shorten(item)}", path=path, line=line, expected="an object with text and intent"
            )
        example = _intent(item, builder, path, line) if options.labels == "intent" else _entities(item, path, line)
        if example is not None:
            yield example
    builder.report()


def _intent(item: dict[str, Any], builder: TextBuilder, path: str | Path, line: int) -> TextExample | None:
    return builder.build(get_key(item, "text", path, line), get_key(item, "intent", path, line), line)


def _entities(item: dict[str, Any], path: str | Path, line: int) -> NerExample:
    return spans.build_example({"entities": [], **item}, _SPAN_OPTIONS, path, line)
