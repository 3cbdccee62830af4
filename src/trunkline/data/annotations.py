"""Which columns or keys hold what, by name and by content; and records of annotation tools in one flat form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from trunkline.data.files import data_error
from trunkline.data.records import Record, Records, list_names, shorten
from trunkline.text.examples import join_tokens

TEXT_NAMES = ("text", "sentence", "utterance", "message", "query", "comment", "review", "tweet", "body", "content")
LABEL_NAMES = (
    "label_text", "label_name", "label", "labels", "intent", "category", "class", "sentiment", "topic", "target",
)  # fmt: skip
REJECTED = "rejected by the annotator"

_ENTITY_NAMES = ("entities", "spans", "label", "labels", "annotations")
_SECOND = (
    "text", "sentence", "question", "premise", "hypothesis", "context", "passage", "title", "subject", "reply",
    "response", "headline", "description", "paragraph", "document", "summary",
)  # fmt: skip
_WORDY = 3
"""Mean words of a column's values from which it is taken for a text."""


def flatten(record: Record, path: str | Path, line: int) -> tuple[str, Record | str]:
    """The tool that a record was taken for (empty for none), and the record in a flat form.

    It has `text` and `entities` or `label`, as the tool has them (`answer` of Prodigy is kept), or is the reason why it
    has no annotation to learn from. A record with the keys of a tool and not its form raises a DataError.
    """
    for tool, needed, convert in _TOOLS:
        if needed <= record.keys():
            try:
                return tool, convert(record)
            except (TypeError, KeyError, IndexError, AttributeError, ValueError):
                given = f"the record is {shorten(record)}"
                raise data_error(path, line, given, f"the form of {tool}") from None
    return "", record


def _gliner(record: Record) -> Record:
    text, words = join_tokens(record["tokenized_text"])
    spans = [[words[first][0], words[last][1], label] for first, last, label in record["ner"]]
    return {"text": text, "entities": spans}


def _label_studio(record: Record) -> Record | str:
    done = [one["result"] for one in record["annotations"] if not one.get("was_cancelled")]
    if not done:
        return "without annotation"
    strings = [key for key, value in record["data"].items() if isinstance(value, str)]
    values = [item["value"] for item in done[0]]
    choices = [choice for value in values for choice in value.get("choices", ())]
    found: Record = {"label": choices} if choices else {"entities": [value for value in values if "labels" in value]}
    return {"text": record["data"][find_name(strings, TEXT_NAMES) or strings[0]], **found}


def _prodigy(record: Record) -> Record | str:
    answer = record["answer"]
    if answer == "ignore" or (answer == "reject" and not isinstance(record.get("label"), str)):
        return REJECTED if answer == "reject" else "ignored by the annotator"
    kept: Record = {key: record[key] for key in ("text", "label", "spans", "answer") if key in record}
    return {**kept, "label": record.get("accept", [])} if "options" in record else kept


def _cats(record: Record) -> Record:
    return {"text": record["text"], "label": [name for name, value in record["cats"].items() if float(value) >= 0.5]}


_TOOLS: tuple[tuple[str, set[str], Callable[[Record], Record | str]], ...] = (
    ("GLiNER", {"tokenized_text", "ner"}, _gliner),
    ("Label Studio", {"data", "annotations"}, _label_studio),
    ("Prodigy", {"text", "answer"}, _prodigy),
    ("spaCy", {"text", "cats"}, _cats),
)


def find_name(names: Sequence[str], wanted: Sequence[str]) -> str:
    """The first of the wanted names that is there, whatever its case; empty if none is."""
    by_lower = {name.strip().lower(): name for name in reversed(names)}
    return next((by_lower[name] for name in wanted if name in by_lower), "")


def choose_text(names: Sequence[str], asked: str | None, path: str | Path, line: int | None) -> tuple[str, ...]:
    """The columns or keys of the text: the one that was asked for, several joined by `+`, or one of `TEXT_NAMES`."""
    if asked is not None:
        parts = (asked,) if asked in names else asked.split("+")
        return tuple(require_name(names, part, "--text-column", path, line) for part in parts)
    found = find_name(names, TEXT_NAMES)
    if not found:
        todo = "Name the column of the texts with --text-column; by number, from 0, in a table without a header"
        given = f"no column of texts; there are {list_names(names)}"
        raise data_error(path, line, given, f"one of {', '.join(TEXT_NAMES)}", todo)
    return (found,)


def require_name(names: Sequence[str], asked: str, option: str, path: str | Path, line: int | None) -> str:
    """The name that was asked for, or a DataError if it is not there."""
    if asked not in names:
        given = f"no column {asked!r}; there are {list_names(names)}"
        raise data_error(path, line, given, "a column that is there", f"Name another one with {option}")
    return asked


def entity_name(records: Sequence[Record]) -> str:
    """The key under which records have entities; empty if under none."""
    for name in _ENTITY_NAMES:
        lists = [record[name] for record in records if isinstance(record.get(name), list)]
        if any(isinstance(item, dict | list) for values in lists for item in values):
            return name
    return next((name for name in ("entities", "spans") if any(isinstance(r.get(name), list) for r in records)), "")


def refuse_second_text(records: Records, used: Sequence[str], path: str | Path) -> None:
    """Raises for a column besides those in use that has texts, by its name or by its values: it would be dropped."""
    rows = [record for _, record in records]
    for name in dict.fromkeys(name for record in rows for name in record if name not in used):
        values = [value for record in rows if isinstance(value := record.get(name), str) and value.strip()]
        lower = name.strip().lower()
        named = lower in _SECOND or lower.rstrip("_-0123456789ab ") in _SECOND
        words = sum(sum(map(str.isalpha, word)) > 1 for value in values for word in value.split())
        if values and (named or (words >= _WORDY * len(values) and 2 * len(set(values)) > len(rows) > 1)):
            given = f"the column {name!r} has texts, too, such as {shorten(values[0])}"
            todo = f"Name one with --text-column {used[0]}, or join them with --text-column {f'{used[0]}+{name}'!r}"
            raise data_error(path, None, given, "one column of texts", todo)


def one_label(value: Any, path: str | Path, line: int) -> Any:
    """The label of a text, out of a list where it is one; a DataError for a list of several or none."""
    if isinstance(value, list) and len(value) != 1:
        several = f"{len(value)} labels, {shorten(value)}"
        expected = "one label a text; several are not supported yet"
        raise data_error(path, line, f"the text has {several if value else 'no label'}", expected)
    return value[0] if isinstance(value, list) else value
