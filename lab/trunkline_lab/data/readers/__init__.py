"""The file formats of public data sets, by name; a format's module is imported when it is first used."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from trunkline.errors import RecipeError
from trunkline.problems import list_problems
from trunkline.text.examples import Example
from trunkline_lab.data.readers.base import FileOptions

Kind = Literal["ner", "text", "pair", "plain", "qa"]


@dataclass(frozen=True, slots=True)
class Reader:
    """One file format: `read` turns a file into examples as its options say.

    The module of the same name has `Options`, a frozen pydantic model, and `read(path, options)`.
    """

    name: str
    kinds: tuple[Kind, ...]

    @property
    def options_type(self) -> type[FileOptions]:
        """The pydantic model of the format's options."""
        model: type[FileOptions] = self._module().Options
        return model

    def options(self, values: Mapping[str, Any] | None = None, *, where: str | Path = "options") -> FileOptions:
        """Checks the options of a file.

        Args:
            values: Options by name; those left out have defaults.
            where: The file that they come from, for the message.

        Raises:
            RecipeError: Unknown options or wrong values, all of them.
        """
        model = self.options_type
        try:
            return model.model_validate(dict(values or {}))
        except ValidationError as error:
            raise RecipeError(where, list_problems(error, model, prefix=f"reader {self.name}: ")) from None

    def read(self, path: str | Path, options: FileOptions | Mapping[str, Any] | None = None) -> Iterator[Example]:
        """Yields the examples of a file; problems raise a DataError with file and line."""
        checked = options if isinstance(options, FileOptions) else self.options(options, where=path)
        examples: Iterator[Example] = self._module().read(path, checked)
        return examples

    def _module(self) -> Any:
        return importlib.import_module(f"{__name__}.{self.name}")


def _table(**kinds: tuple[Kind, ...]) -> dict[str, Reader]:
    return {name: Reader(name, kind) for name, kind in kinds.items()}


READERS: dict[str, Reader] = _table(
    conll=("ner",),
    spans=("ner",),
    tokens=("ner",),
    token_table=("ner",),
    rasa=("ner", "text"),
    sgd_spans=("ner",),
    linked_gazetteer=("ner",),
    tabfact=("ner",),
    typed_mentions=("ner",),
    table=("text",),
    jsonl_text=("text",),
    label_text=("text",),
    json_lists=("text",),
    posts=("text",),
    parallel=("ner", "text"),
    pair_table=("pair",),
    pair_jsonl=("pair",),
    sgd_turns=("pair",),
    captions=("pair",),
    trivia=("pair",),
    reuters=("pair",),
    medquad=("pair",),
    aligned_lines=("pair",),
    scored_pairs=("pair",),
    tagged_records=("pair",),
    sgd_same_intent=("pair",),
    corpus=("plain",),
    corpus_archive=("plain",),
    plain_jsonl=("plain",),
    squad=("qa",),
    qa_jsonl=("qa",),
    ner_questions=("qa",),
)
