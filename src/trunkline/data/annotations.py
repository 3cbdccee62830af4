"""Records of annotation tools and of plain tables in one flat form: text with entities, or text with a label."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from trunkline.data.records import list_names, shorten
from trunkline.errors import DataError
from trunkline.text.examples import join_tokens

Record = dict[str, Any]

TEXT_NAMES = ("text", "sentence", "utterance", "message", "query", "comment", "review", "tweet", "body", "content")
LABEL_NAMES = (
    "label_text", "label_name", "label", "labels", "intent", "category", "class", "sentiment", "topic", "target",
)  # fmt: skip
ENTITY_NAMES = ("entities", "spans", "label", "labels", "annotations")
_SECOND = (
    "text", "sentence", "question", "premise", "hypothesis", "context", "passage", "title", "subject", "reply",
    "response", "headline", "description", "paragraph", "document", "summary",
)  # fmt: skip
_WORDY = 3
"""Mean words of a column's values from which it is taken for a text."""

REJECTED = "rejected by the annotator"


def flatten(record: Record, path: str | Path, line: int) -> tuple[str, Record | str]:
    """A record of any tool in a flat form.

    Returns:
        The tool that it was taken for (empty for none), and a record with `text` and `entities` or `label`, as the tool
        has them; or the reason why it has no annotation to learn from. `answer` of Prodigy is kept.

    Raises:
        DataError: A record that has the keys of a tool, and not its form.
    """
    try:
        for tool, (needed, convert) in _TOOLS.items():
            if needed <= record.keys():
                return tool, convert(record)
    except (TypeError, KeyError, IndexError, AttributeError, ValueError):
        raise DataError(
            f"the record is {shorten(record)}", path=path, line=line, expected=f"the form of {tool}"
        ) from None
    return "", record


def _gliner(record: Record) -> Record:
    text, words = join_tokens(record["tokenized_text"])
    return {
        "text": text,
        "entities": [[words[first][0], words[last][1], label] for first, last, label in record["ner"]],
    }


def _label_studio(record: Record) -> Record | str:
    done = [one for one in record["annotations"] if not one.get("was_cancelled")]
    if not done:
        return "without annotation"
    data = record["data"]
    strings = [key for key, value in data.items() if isinstance(value, str)]
    key = find_name(strings, TEXT_NAMES) or (strings[0] if len(strings) == 1 else "")
    values = [item["value"] for item in done[0]["result"]]
    choices = [choice for value in values for choice in value.get("choices", ())]
    entities = [value for value in values if "labels" in value]
    return {"text": data[key], **({"label": choices} if choices else {"entities": entities})}


def _prodigy(record: Record) -> Record | str:
    if record["answer"] == "ignore" or (record["answer"] == "reject" and not isinstance(record.get("label"), str)):
        return REJECTED if record["answer"] == "reject" else "ignored by the annotator"
    kept: Record = {key: record[key] for key in ("text", "label", "spans", "answer") if key in record}
    if "options" in record:
        kept["label"] = record.get("accept", [])
    return kept


def _cats(record: Record) -> Record:
    return {"text": record["text"], "label": [name for name, value in record["cats"].items() if float(value) >= 0.5]}


_TOOLS: dict[str, tuple[set[str], Callable[[Record], Record | str]]] = {
    "GLiNER": ({"tokenized_text", "ner"}, _gliner),
    "Label Studio": ({"data", "annotations"}, _label_studio),
    "Prodigy": ({"text", "answer"}, _prodigy),
    "spaCy": ({"text", "cats"}, _cats),
}


def find_name(names: Sequence[str], wanted: Sequence[str]) -> str:
    """The first of the wanted names that is there, whatever its case; empty if none is."""
    by_lower = {name.strip().lower(): name for name in reversed(names)}
    return next((by_lower[name] for name in wanted if name in by_lower), "")


def choose_text(names: Sequence[str], asked: str | None, path: str | Path, line: int | None = None) -> tuple[str, ...]:
    """The columns or keys of the text: the one that was asked for, several joined by `+`, or one of `TEXT_NAMES`."""
    if asked is not None:
        parts = (asked,) if asked in names else tuple(part.strip() for part in asked.split("+"))
        for part in parts:
            require_name(names, part, "--text-column", path, line)
        return parts
    found = find_name(names, TEXT_NAMES)
    if not found:
        raise DataError(
            f"no column of texts; there are {list_names(names)}",
            path=path,
            line=line,
            expected=f"one of {', '.join(TEXT_NAMES)}",
            todo="Name the column of the texts with --text-column; by number, from 0, in a table without a header",
        )
    return (found,)


def require_name(names: Sequence[str], asked: str, option: str, path: str | Path, line: int | None = None) -> str:
    """The name that was asked for, or a DataError if it is not there."""
    if asked not in names:
        raise DataError(
            f"no column {asked!r}; there are {list_names(names)}",
            path=path,
            line=line,
            expected="a column that is there",
            todo=f"Name another one with {option}",
        )
    return asked


def entity_name(records: Sequence[Mapping[str, Any]]) -> str:
    """The key under which records have entities; empty if under none."""
    for name in ENTITY_NAMES:
        lists = [record[name] for record in records if isinstance(record.get(name), list)]
        if any(isinstance(item, dict | list) for values in lists for item in values):
            return name
    return next((name for name in ("entities", "spans") if any(isinstance(r.get(name), list) for r in records)), "")


def refuse_second_text(records: Sequence[tuple[int, Mapping[str, Any]]], used: Sequence[str], path: str | Path) -> None:
    """Raises for a column besides those in use that has texts, by its name or by its values: it would be dropped."""
    names = dict.fromkeys(name for _, record in records for name in record if name not in used)
    for name in names:
        values = [value for _, record in records if isinstance(value := record.get(name), str) and value.strip()]
        stem = name.strip().lower().rstrip("_-0123456789ab ")
        named = any(name.strip().lower() == second or stem == second for second in _SECOND)
        words = sum(len(value.split()) for value in values)
        if values and (named or (words >= _WORDY * len(values) and 2 * len(set(values)) > len(records) > 1)):
            raise DataError(
                f"the column {name!r} has texts, too, such as {shorten(values[0])}",
                path=path,
                line=records[0][0],
                expected="one column of texts",
                todo=f"Name the one to use with --text-column {used[0]}, or join them with "
                f"--text-column {shorten(f'{used[0]}+{name}')}",
            )
