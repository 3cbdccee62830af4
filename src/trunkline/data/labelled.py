"""Records as labelled examples: which keys hold what is found by content, and nothing is left out without a note."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trunkline.data.annotations import (
    LABEL_NAMES,
    REJECTED,
    Record,
    choose_text,
    entity_name,
    find_name,
    flatten,
    refuse_second_text,
    require_name,
)
from trunkline.data.conll import Sentence, decode_sentences
from trunkline.data.questions import is_question, read_questions
from trunkline.data.records import get_key, list_names, require_text, shorten
from trunkline.data.spans import Row, build_example, check_borders, parse_entities
from trunkline.errors import DataError
from trunkline.text.examples import Example, TextExample

_SEPARATORS = re.compile(r"[|;,/]")
_TAGS = ("tags", "ner_tags", "labels")

Lines = Sequence[tuple[int, Record]]


@dataclass(frozen=True)
class Loaded:
    """What a file gave.

    Attributes:
        family: `classification`, `ner` or `qa`.
        examples: In the order of the file.
        kind: What the file was taken for, in words.
        notes: What was left out or repaired, and what a user should look at.
    """

    family: str
    examples: list[Example]
    kind: str
    notes: list[str] = field(default_factory=list)


def load_records(
    records: Lines, path: str | Path, family: str | None, text_column: str | None, label_column: str | None
) -> Loaded:
    """Records of a table, of JSON, of an annotation tool or of `datasets` as examples.

    Args:
        records: Line and values of each.
        path: For errors.
        family: The family; found by the keys where it is None.
        text_column: The key of the text, or several joined by `+`.
        label_column: The key of the label.

    Raises:
        DataError: Records that fit no family or two, a second text, several labels, or values that are no text.
    """
    left_out: Counter[str] = Counter()
    tools: dict[str, None] = {}
    flat = []
    for line, record in records:
        tool, found = flatten(record, path, line)
        tools[tool] = None
        if isinstance(found, str):
            left_out[found] += 1
        else:
            flat.append((line, found))
    if not flat:
        reasons = "; ".join(f"{count} {reason}" for reason, count in left_out.items())
        raise DataError(f"there is no example{f' ({reasons})' if reasons else ''}", path=path, expected="some examples")
    reader = _Reader(flat, path, text_column, label_column, [tool for tool in tools if tool], left_out)
    loaded = reader.load(family)
    loaded.notes.extend(f"left out: {count} {reason}" for reason, count in left_out.items())
    return loaded


@dataclass
class _Reader:
    records: Lines
    path: str | Path
    text_column: str | None
    label_column: str | None
    tools: list[str]
    left_out: Counter[str]

    def load(self, family: str | None) -> Loaded:
        names = list(dict.fromkeys(name for _, record in self.records for name in record))
        first = self.records[0]
        if family in (None, "qa") and is_question(first[1]):
            return Loaded("qa", list(read_questions(self.records, self.path)), "questions about contexts")
        tags = next((name for name in _TAGS if isinstance(first[1].get(name), list)), "")
        if tags and isinstance(first[1].get("tokens"), list) and not self.label_column:
            return self._expect("ner", family, lambda: self._tokens(tags))
        entities = "" if self.label_column else entity_name([record for _, record in self.records])
        label = self.label_column or find_name([name for name in names if name != entities], LABEL_NAMES)
        some = any(record.get(entities) for _, record in self.records)
        if family is None and entities and label and some:
            raise DataError(
                f"the records have entities ({entities!r}) and labels ({label!r})",
                path=self.path,
                line=first[0],
                expected="one of both",
                todo="Choose with --family ner or --family classification",
            )
        if entities and (family == "ner" or (family is None and (some or not label))):
            return self._entities(entities)
        if label and family in (None, "classification"):
            return self._labels(require_name(names, label, "--label-column", self.path, first[0]))
        wanted = "tokens and tags, or a text and entities" if family == "ner" else "a text and a label"
        raise DataError(
            f"there are {list_names(names)}",
            path=self.path,
            line=first[0],
            expected="question, context and answers" if family == "qa" else wanted,
            todo="Name the columns with --text-column and --label-column; by number, from 0, in a table without header",
        )

    def _expect(self, found: str, family: str | None, load: Any) -> Loaded:
        if family not in (None, found):
            raise DataError(f"the records are for {found}", path=self.path, expected=f"records for {family}")
        loaded: Loaded = load()
        return loaded

    def _kind(self, what: str) -> str:
        return f"{what} of {' and '.join(self.tools)}" if self.tools else what

    def _text(self, record: Record, columns: tuple[str, ...], line: int) -> str:
        parts = [get_key(record, column, self.path, line) for column in columns]
        for part in parts:
            if not isinstance(part, str):
                raise DataError(
                    f"the text is {shorten(part)}", path=self.path, line=line, expected="a text as a string"
                )
        return " ".join(part for part in parts if part.strip())

    def _columns(self, used: str) -> tuple[str, ...]:
        line, first = self.records[0]
        columns = choose_text([name for name in first if name != used], self.text_column, self.path, line)
        if self.text_column is None and not self.tools:
            refuse_second_text(self.records, (*columns, used), self.path)
        return columns

    def _tokens(self, tags: str) -> Loaded:
        sentences = []
        for line, record in self.records:
            tokens, marks = (get_key(record, name, self.path, line) for name in ("tokens", tags))
            if not isinstance(tokens, list) or not isinstance(marks, list) or len(tokens) != len(marks) or not tokens:
                raise DataError(
                    "tokens and tags are not two lists of one length",
                    path=self.path,
                    line=line,
                    expected="a tag for each token",
                )
            words = tuple(require_text(token, "token", self.path, line) for token in tokens)
            names = tuple(require_text(mark, "tag", self.path, line) for mark in marks)
            sentences.append(Sentence(words, names, (line,)))
        examples, scheme = decode_sentences(sentences, self.path)
        return Loaded("ner", list(examples), f"tokens and {scheme}")

    def _entities(self, name: str) -> Loaded:
        columns = self._columns(name)
        if len(columns) > 1:
            raise DataError("several columns of texts", path=self.path, expected="one, because offsets count in it")
        rows, without = [], 0
        for line, record in self.records:
            values = record.get(name)
            without += values is None
            if values is not None and not isinstance(values, list):
                raise DataError(
                    f"{name} is {shorten(values)}", path=self.path, line=line, expected="a list of entities"
                )
            found = parse_entities(values or (), self.path, line)
            rows.append(Row(line, self._text(record, columns, line), found))
        note = check_borders(rows, self.path)
        notes = [note] if note else []
        if without:
            notes.append(f"{without} records without the key {name!r} were taken to have no entity")
        examples = [build_example(row, self.path) for row in rows]
        return Loaded("ner", list(examples), self._kind("texts with entities"), notes)

    def _labels(self, name: str) -> Loaded:
        columns = self._columns(name)
        accepted = [
            (line, record) for line, record in self.records if record.get("answer") != "reject" or not self.tools
        ]
        rejected = [pair for pair in self.records if pair not in accepted] if len(accepted) < len(self.records) else []
        labels = [_one_label(get_key(record, name, self.path, line), self.path, line) for line, record in accepted]
        notes = []
        if rejected and len({*labels, *(str(record[name]) for _, record in rejected)}) == 1:
            other = f"not {labels[0]}" if labels else f"not {rejected[0][1][name]}"
            accepted, labels = [*accepted, *rejected], [*labels, *([other] * len(rejected))]
            notes.append(f"{len(rejected)} texts for which {other[4:]!r} was rejected have the label {other!r}")
        else:
            self.left_out[REJECTED] += len(rejected)
            self.left_out += Counter()
        examples = [
            TextExample(require_text(self._text(record, columns, line), "text", self.path, line), label)
            for (line, record), label in zip(accepted, labels, strict=True)
        ]
        self._refuse_joined(accepted, labels)
        return Loaded("classification", list(examples), self._kind("texts with a label"), notes)

    def _refuse_joined(self, records: Lines, labels: Sequence[str]) -> None:
        """Raises where labels are joined to one, such as `food|price` where `food` and `price` occur, too."""
        known = set(labels)
        for (line, _), label in zip(records, labels, strict=True):
            parts = [part.strip() for part in _SEPARATORS.split(label)]
            if len(parts) > 1 and known.issuperset(parts):
                raise DataError(
                    f"the label {shorten(label)} seems to be {len(parts)} labels, which also occur alone",
                    path=self.path,
                    line=line,
                    expected="one label a text; several are not supported yet",
                    todo="Fit one task a label, or, if it is one label, give it a name without the separator",
                )


def _one_label(value: Any, path: str | Path, line: int) -> str:
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, list):
        raise DataError(
            f"the text has {f'{len(value)} labels, {shorten(value)}' if value else 'no label'}",
            path=path,
            line=line,
            expected="one label a text" + ("; several are not supported yet" if value else ""),
        )
    return require_text(value, "label", path, line)
