"""Records as labelled examples: which keys hold what is found by content, and nothing is left out without a note."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trunkline.data.annotations import (
    LABEL_NAMES,
    REJECTED,
    choose_text,
    entity_name,
    find_name,
    flatten,
    one_label,
    refuse_second_text,
    require_name,
)
from trunkline.data.conll import Sentence, decode_sentences
from trunkline.data.files import data_error
from trunkline.data.records import Record, Records, get_key, list_names, require_text, shorten
from trunkline.data.spans import Row, build_example, check_borders, parse_entities
from trunkline.text.examples import Example, QaExample, TextExample


def is_question(record: Record) -> bool:
    """Whether a record is an article of SQuAD or a question with its context."""
    return "paragraphs" in record or {"question", "context", "answers"} <= record.keys()


def read_questions(records: Records, path: str | Path) -> Iterator[QaExample]:
    """Yields the questions of records in their order; `plausible_answers` of unanswerable ones are not read.

    `answers` are objects with `text` and `answer_start`, or two lists under these keys, none where there is no answer.
    One that does not stand where it should raises a DataError with the line and the question's id.
    """
    for line, record in records:
        if "paragraphs" not in record:
            yield _question(record, record.get("context"), path, line)
            continue
        for paragraph in _objects(record["paragraphs"], "paragraphs", path, line):
            for item in _objects(paragraph.get("qas"), "qas", path, line):
                yield _question(item, paragraph.get("context"), path, line)


def _question(item: Record, context: Any, path: str | Path, line: int) -> QaExample:
    where = f"question {shorten(item['id'])}: " if item.get("id") is not None else ""
    question, answers, spans = item.get("question"), get_key(item, "answers", path, line), []
    for what, text in (("context", context), ("question", question)):
        if not isinstance(text, str) or not text.strip():
            raise data_error(path, line, f"{where}the {what} is {shorten(text)}", f"a {what} as a string")
    try:
        if isinstance(answers, dict):
            pairs = list(zip(answers["text"], answers["answer_start"], strict=True))
        else:
            pairs = [(one["text"], one["answer_start"]) for one in answers]
    except (KeyError, TypeError, ValueError):
        expected = "a list of objects with text and answer_start, or an object of two lists"
        raise data_error(path, line, f"{where}the answers are {shorten(answers)}", expected) from None
    for text, start in pairs:
        given = f"{where}the answer {shorten(text)} does not stand at {shorten(start)} of the context"
        whole = isinstance(text, str) and text.strip() and isinstance(start, int) and not isinstance(start, bool)
        if not whole or start < 0 or context[start : start + len(text)] != text:
            todo = "Check that it does not count bytes or UTF-16 units"
            raise data_error(path, line, given, "answer_start as an offset in characters, from 0", todo)
        spans.append((start + len(text) - len(text.lstrip()), start + len(text.rstrip())))
    impossible = item.get("is_impossible")
    if impossible not in (None, True, False) or (impossible is not None and impossible is bool(spans)):
        given = f"{where}is_impossible is {shorten(impossible)} and there are {len(spans)} answers"
        raise data_error(path, line, given, "answers where it is false, and none where it is true")
    return QaExample(" ".join(str(question).split()), context, tuple(dict.fromkeys(spans)))


def _objects(value: Any, key: str, path: str | Path, line: int) -> list[Record]:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise data_error(path, line, f"{key} is {shorten(value)}", "a list of objects, as in SQuAD")
    return value


_SEPARATORS = re.compile(r"[|;,/]")


@dataclass(frozen=True)
class Loaded:
    """What a file gave: examples in the order of the file, and what it was taken for (`kind`), in words.

    `notes` say what was left out or repaired, and what a user should look at.
    """

    family: str
    examples: list[Example]
    kind: str
    notes: list[str] = field(default_factory=list)


class LabelledRecords:
    """Records of a table, of JSON, of an annotation tool or of `datasets`, with their lines, to be read as examples.

    `text_column` is the key of the text, or several joined by `+`. Records without any annotation raise a DataError.
    """

    def __init__(
        self, records: Sequence[tuple[int, Record]], path: str | Path, text_column: str | None, label_column: str | None
    ) -> None:
        self.path, self.text_column, self.label_column = path, text_column, label_column
        self.left_out: Counter[str] = Counter()
        self.records: list[tuple[int, Record]] = []
        tools: dict[str, None] = {}
        for line, record in records:
            tool, found = flatten(record, path, line)
            tools[tool] = None
            if isinstance(found, str):
                self.left_out[found] += 1
            else:
                self.records.append((line, found))
        self.tool = " and ".join(filter(None, tools))
        if not self.records:
            reasons = "; ".join(f"{count} {reason}" for reason, count in self.left_out.items())
            raise data_error(path, None, f"there is no example{f' ({reasons})' if reasons else ''}", "some examples")

    def load(self, family: str | None) -> Loaded:
        """The examples of a family; of the one that the keys say where it is None.

        Raises:
            DataError: Records that fit no family or two, a second text, several labels, or values that are no text.
        """
        loaded = self._load(family)
        loaded.notes.extend(f"left out: {count} {reason}" for reason, count in self.left_out.items())
        return loaded

    def _load(self, family: str | None) -> Loaded:
        line, first = self.records[0]
        names = list(dict.fromkeys(name for _, record in self.records for name in record))
        entities = "" if self.label_column else entity_name([record for _, record in self.records])
        label = self.label_column or find_name([name for name in names if name != entities], LABEL_NAMES)
        some = any(record.get(entities) for _, record in self.records)
        tags = next((name for name in ("tags", "ner_tags", "labels") if isinstance(first.get(name), list)), "")
        if family in (None, "qa") and is_question(first):
            return Loaded("qa", list(read_questions(self.records, self.path)), "questions about contexts")
        if family in (None, "ner") and tags and isinstance(first.get("tokens"), list) and not self.label_column:
            return self._tokens(tags)
        if family is None and entities and label and some:
            given = f"the records have entities ({entities!r}) and labels ({label!r})"
            todo = "Choose with --family ner or --family classification"
            raise data_error(self.path, line, given, "one of both", todo)
        if entities and (family == "ner" or (family is None and (some or not label))):
            return self._entities(entities)
        if label and family in (None, "classification"):
            return self._labels(require_name(names, label, "--label-column", self.path, line))
        wanted = {"ner": "tokens and tags, or a text and entities", "qa": "question, context and answers"}
        todo = "Name columns with --text-column and --label-column; by number, from 0, in a table without a header"
        expected = wanted.get(family or "", "a text and a label")
        raise data_error(self.path, line, f"there are {list_names(names)}", expected, todo)

    def _columns(self, used: str) -> tuple[str, ...]:
        line, first = self.records[0]
        columns = choose_text([name for name in first if name != used], self.text_column, self.path, line)
        if self.text_column is None and not self.tool:
            refuse_second_text(self.records, (*columns, used), self.path)
        return columns

    def _tokens(self, tags: str) -> Loaded:
        sentences = []
        for line, record in self.records:
            tokens, marks = (get_key(record, name, self.path, line) for name in ("tokens", tags))
            if not isinstance(tokens, list) or not isinstance(marks, list) or len(tokens) != len(marks) or not tokens:
                raise data_error(self.path, line, "tokens and tags are not two lists of one length", "a tag a token")
            words, names = (
                tuple(require_text(value, what, self.path, line) for value in values)
                for what, values in (("token", tokens), ("tag", marks))
            )
            sentences.append(Sentence(words, names, (line,)))
        examples, scheme = decode_sentences(sentences, self.path)
        return Loaded("ner", list(examples), f"tokens and {scheme}")

    def _entities(self, name: str) -> Loaded:
        columns = self._columns(name)
        if len(columns) > 1:
            raise data_error(self.path, None, "several columns of texts", "one, because offsets count in it")
        rows = []
        for line, record in self.records:
            values = record.get(name) or []
            if not isinstance(values, list):
                raise data_error(self.path, line, f"{name} is {shorten(values)}", "a list of entities")
            text = join_texts(record, columns, self.path, line)
            rows.append(Row(line, text, parse_entities(values, self.path, line)))
        notes = list(filter(None, [check_borders(rows, self.path)]))
        if without := sum(name not in record for _, record in self.records):
            notes.append(f"{without} records without the key {name!r} were taken to have no entity")
        return Loaded("ner", [build_example(row, self.path) for row in rows], self._kind("texts with entities"), notes)

    def _labels(self, name: str) -> Loaded:
        columns = self._columns(name)
        rejected = [pair for pair in self.records if self.tool and pair[1].get("answer") == "reject"]
        rows = [pair for pair in self.records if not self.tool or pair[1].get("answer") != "reject"]
        labels = [
            require_text(one_label(get_key(record, name, self.path, line), self.path, line), "label", self.path, line)
            for line, record in rows
        ]
        notes = []
        named = {*labels, *(str(record[name]) for _, record in rejected)}
        if rejected and len(named) == 1:  # one question, answered by yes and no
            label = named.pop()
            rows, labels = [*rows, *rejected], labels + [f"not {label}"] * len(rejected)
            notes.append(f"{len(rejected)} texts for which {label!r} was rejected have the label 'not {label}'")
        elif rejected:
            self.left_out[REJECTED] += len(rejected)
        examples: list[Example] = []
        known = set(labels)
        for (line, record), label in zip(rows, labels, strict=True):
            text = require_text(join_texts(record, columns, self.path, line), "text", self.path, line)
            parts = [part.strip() for part in _SEPARATORS.split(label)]
            if len(parts) > 1 and known.issuperset(parts):
                given = f"the label {shorten(label)} seems to be {len(parts)} labels, which also occur alone"
                todo = "Fit one task a label, or, if it is one label, give it a name without the separator"
                raise data_error(self.path, line, given, "one label a text; several are not supported yet", todo)
            examples.append(TextExample(text, label))
        return Loaded("classification", examples, self._kind("texts with a label"), notes)

    def _kind(self, what: str) -> str:
        return f"{what} of {self.tool}" if self.tool else what


def join_texts(record: Record, columns: Sequence[str], path: str | Path, line: int) -> str:
    """The text of a record: one column as it stands, or several joined with blanks; a DataError for what is no text."""
    parts = [get_key(record, column, path, line) for column in columns]
    for part in parts:
        if not isinstance(part, str):
            given = f"the text is {'null' if part is None else shorten(part)}"
            raise data_error(path, line, given, "a text as a string", "Fill it in or remove the record")
    return parts[0] if len(parts) == 1 else " ".join(part for part in parts if part.strip())
