"""The file formats of public data sets, by name; a format's module is imported when it is first used."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from trunkline.config import list_problems
from trunkline.data.values import require_some
from trunkline.errors import RecipeError
from trunkline.text.examples import Example
from trunkline_lab.data.readers.base import FileOptions

Kind = Literal["ner", "text", "pair", "plain", "qa"]


@dataclass(frozen=True, slots=True)
class Reader:
    """One file format, `name`: its `module` has `read_NAME(path, options)` and the options' pydantic model."""

    name: str
    kinds: tuple[Kind, ...]
    module: str

    @property
    def options_type(self) -> type[FileOptions]:
        """The pydantic model of the format's options."""
        words = self.name.split("_")
        model: type[FileOptions] = getattr(self._module(), "".join(map(str.capitalize, words)) + "Options")
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
            problems = [f"reader {self.name}: {problem}" for problem in list_problems(error, model)]
            raise RecipeError(where, problems) from None

    def read(self, path: str | Path, options: FileOptions | Mapping[str, Any] | None = None) -> Iterator[Example]:
        """Yields the examples of a file; problems, and a file without any, raise a DataError with file and line."""
        checked = options if isinstance(options, FileOptions) else self.options(options, where=path)
        return require_some(getattr(self._module(), f"read_{self.name}")(path, checked), path)

    def _module(self) -> Any:
        return importlib.import_module(f"{__name__}.{self.module}")


_MODULES: dict[str, dict[str, tuple[Kind, ...]]] = {
    "conll": {"conll": ("ner",)},
    "spans": {"spans": ("ner",)},
    "tokenised": {"tokens": ("ner",), "token_table": ("ner",), "typed_mentions": ("ner",)},
    "parallel": {"parallel": ("ner", "text")},
    "linked_gazetteer": {"linked_gazetteer": ("ner",)},
    "tabfact": {"tabfact": ("ner",)},
    "sgd": {"sgd_spans": ("ner",), "sgd_turns": ("pair",), "sgd_same_intent": ("pair",)},
    "texts": {
        "table": ("text",),
        "jsonl_text": ("text",),
        "label_text": ("text",),
        "json_lists": ("text",),
        "posts": ("text",),
    },
    "pairs": {
        "pair_table": ("pair",),
        "pair_jsonl": ("pair",),
        "scored_pairs": ("pair",),
        "aligned_lines": ("pair",),
        "captions": ("pair",),
    },
    "documents": {"tagged_records": ("pair",), "trivia": ("pair",), "reuters": ("pair",), "medquad": ("pair",)},
    "plain": {"corpus": ("plain",), "plain_jsonl": ("plain",)},
    "ner_questions": {"ner_questions": ("qa",)},
}

READERS: dict[str, Reader] = {
    name: Reader(name, kinds, module) for module, formats in _MODULES.items() for name, kinds in formats.items()
}
