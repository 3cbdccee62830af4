"""The file formats that can be read, by name; a format's module is imported when it is first used."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from trunkline.data.readers.base import FileOptions
from trunkline.errors import RecipeError
from trunkline.problems import list_problems
from trunkline.text.examples import Example

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
    rasa=("ner", "text"),
    table=("text",),
    jsonl_text=("text",),
    pair_table=("pair",),
    pair_jsonl=("pair",),
    corpus=("plain",),
    plain_jsonl=("plain",),
    squad=("qa",),
    qa_jsonl=("qa",),
)
