"""What the formats of labelled texts share: names for their labels, and what to do with texts that are blank."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal

from pydantic import Field

from trunkline.text.examples import TextExample
from trunkline_lab.data.readers.base import FileOptions, require_text

_log = logging.getLogger("trunkline.data")


class LabelOptions(FileOptions):
    """Options of the formats that hold one label a text."""

    label_names: dict[str, str] = Field(default={}, description="Labels by what stands in the file.")
    empty_texts: Literal["error", "skip"] = Field(
        default="error", description="With `skip`, labelled texts that are blank are dropped and counted in the log."
    )


class TextBuilder:
    """Turns texts and labels into examples, and reports once how many blank texts of a file were dropped."""

    def __init__(self, path: str | Path, options: LabelOptions, *, label_path: str | Path | None = None) -> None:
        self._path = path
        self._label_path = label_path or path
        self._options = options
        self.dropped = 0

    def build(self, text: object, label: object, line: int, *, path: str | Path | None = None) -> TextExample | None:
        """One example, or None for a blank text that is to be skipped.

        Args:
            text: The text of the file.
            label: What the file has as its label.
            line: Where both stand.
            path: The member of an archive that they come from, if it is one.

        Raises:
            DataError: A blank text (unless it is skipped), a blank label, or a value that is no text.
        """
        if self._options.empty_texts == "skip" and isinstance(text, str) and not text.strip():
            self.dropped += 1
            return None
        content = require_text(text, "text", path or self._path, line)
        name = require_text(label, "label", path or self._label_path, line)
        return TextExample(content, self._options.label_names.get(name, name))

    def report(self) -> None:
        """Logs the number of dropped texts, if there were any."""
        if self.dropped:
            _log.warning("%s: %d blank texts were dropped (empty_texts: skip)", self._path, self.dropped)
