"""Texts with any number of labels: lists, cells with a separator, or a column for each label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trunkline.data.load import choose_text, find_columns, find_label, join_texts
from trunkline.data.values import Loaded, Record, data_error, get_key, require_text, shorten
from trunkline.text.examples import MultiLabelExample

_MARKS = {"": False, "0": False, "no": False, "false": False, "1": True, "yes": True, "true": True}
"""Values of columns that are named by a label each."""


def read_several(
    records: Sequence[tuple[int, Record]], path: str | Path, text: str | None, label: str | None, separator: str | None
) -> Loaded:
    """Texts with the labels of a list, of a text with a separator, or of columns whose names are joined by `+`.

    Columns that hold nothing but 0 and 1, or no and yes, are labels by their names, others have a label or are blank.

    Raises:
        DataError: A label that is blank, twice there or no text; one text where a list or a separator is needed.
    """
    line, first = records[0]
    names = [name for name in first if name not in (text or "").split("+")]
    label = find_label(names, None, label, path, line)
    columns = find_columns(names, label, "--label-column", path, line)
    kept = [(at, {k: v for k, v in record.items() if k not in columns or k == columns[0]}) for at, record in records]
    texts = choose_text(kept, columns[0], text, path)
    cells = [str(record.get(name)).strip().lower() for _, record in records for name in columns]
    marks = len(columns) > 1 and all(cell in _MARKS for cell in cells) and any(cells)
    examples = []
    for at, record in records:
        if marks:
            found = [name for name in columns if _MARKS[str(record[name]).strip().lower()]]
        elif len(columns) > 1:
            own = [get_key(record, name, path, at) for name in columns]
            full = [value for value in own if value not in (None, "")]
            found = [part for value in full for part in _parts(value, separator or "", path, at)]
        else:
            # Who annotated a text in Label Studio and chose nothing has said so.
            value = [] if record.get("entities") == [] and label not in record else get_key(record, label, path, at)
            found = _parts(value, separator, path, at)
        own_labels = tuple(require_text(one, "label", path, at) for one in found)
        if twice := [one for one, times in Counter(own_labels).items() if times > 1]:
            raise data_error(path, at, f"the label {shorten(twice[0])} stands there twice", "each label of a text once")
        content = require_text(join_texts(record, texts, path, at), "text", path, at)
        examples.append(MultiLabelExample(content, own_labels))
    without = sum(not example.labels for example in examples)
    return Loaded("multilabel", list(examples), f"texts with any number of labels, {without} of them with none")


def _parts(value: Any, separator: str | None, path: str | Path, line: int) -> list[Any]:
    """The labels of a value; an empty separator says that a text is one label."""
    if isinstance(value, list):
        return value
    if isinstance(value, str) and separator is not None:
        return value.split(separator) if separator and value.strip() else [value] * bool(value.strip())
    todo = "Name what parts labels, as --label-separator '|', or several columns, as --label-column food+price"
    given = f"the label is {'null' if value is None else shorten(value)}"
    raise data_error(path, line, given, "a list of labels, empty for none", todo)
