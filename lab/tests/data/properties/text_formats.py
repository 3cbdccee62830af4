"""The formats of labelled texts and of plain ones."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable

from properties.disk import ARCHIVES, Sample
from properties.drawn import FREE, LINE, ONE_BLANK, labelled, plain, some
from properties.form import Format, to_csv, to_json_lines, to_lines
from trunkline.text.examples import PlainExample, TextExample


def one_line_end(examples: list[TextExample]) -> list[TextExample]:
    """A carriage return before a line feed is part of the line's end, also between quotes."""
    return [TextExample(item.text.replace("\r\n", "\n"), item.label) for item in examples]


def _table(delimiter: str, quoting: int) -> Callable[[list[TextExample]], Sample]:
    def encode(examples: list[TextExample]) -> Sample:
        rows = [["id", "label", "text"], *([number, e.label, e.text] for number, e in enumerate(examples))]
        return Sample(to_csv(rows, delimiter, quoting), {"delimiter": delimiter})

    return encode


def _bare_table(examples: list[TextExample]) -> Sample:
    options = {"delimiter": "\t", "header": False, "quoting": False, "text_column": -1, "label_column": 0}
    return Sample(to_lines([f"{e.label}\t{e.text}" for e in examples], "\r\n"), options)


def _jsonl(examples: list[TextExample]) -> Sample:
    return Sample(to_json_lines([{"text": e.text, "label": e.label} for e in examples]))


def _label_first(examples: list[TextExample]) -> Sample:
    return Sample(to_lines([f"{e.label} {e.text}" for e in examples]))


def _label_last(examples: list[TextExample]) -> Sample:
    options = {"separator": "@@", "label_first": False}
    return Sample(to_lines([f"{e.text}@@{e.label}" for e in examples], "\r\n"), options)


def _parallel(examples: list[TextExample]) -> Sample:
    return Sample(to_lines([e.text for e in examples]), beside={"labels": to_lines([e.label for e in examples])})


def _json_lists(examples: list[TextExample]) -> Sample:
    document = {"val": [["no", "x"]], "train": [[e.text, e.label] for e in examples]}
    return Sample(json.dumps(document).encode(), {"list_keys": ["train"]})


def _posts(examples: list[TextExample]) -> Sample:
    members = {f"all/{e.label}/{n}": f"From: x\nSubject: y\n\n{e.text}\n".encode() for n, e in enumerate(examples)}
    name, content = next(iter(members.items()))
    return Sample(content, member=name, members={key: members[key] for key in members if key != name})


def _plain_jsonl(examples: list[PlainExample]) -> Sample:
    return Sample(to_json_lines([{"text": e.text.replace(" ", " \n")} for e in examples]))


def _corpus_archive(examples: list[PlainExample]) -> Sample:
    members = {f"all/{number}.txt": e.text.replace(" ", "\n", 1).encode() for number, e in enumerate(examples)}
    name, content = next(iter(members.items()))
    return Sample(content, member=name, members={key: members[key] for key in members if key != name})


TEXT = (
    Format("table-csv", "table", some(labelled(FREE)), _table(",", csv.QUOTE_MINIMAL), expect=one_line_end),
    Format("table-tsv", "table", some(labelled(FREE)), _table("\t", csv.QUOTE_ALL), expect=one_line_end),
    Format("table-bare", "table", some(labelled(LINE)), _bare_table, rows=True),
    Format("jsonl_text", "jsonl_text", some(labelled(FREE)), _jsonl, rows=True, json="lines"),
    Format("label_text", "label_text", some(labelled(LINE)), _label_first, rows=True),
    Format("label_text-last", "label_text", some(labelled(LINE)), _label_last, rows=True),
    Format("parallel-labels", "parallel", some(labelled(LINE)), _parallel),
    Format("json_lists", "json_lists", some(labelled(FREE)), _json_lists, json="file"),
    Format("posts", "posts", some(labelled(FREE)), _posts, ARCHIVES),
    Format("corpus", "corpus", some(plain(ONE_BLANK)), _corpus_archive, ARCHIVES),
    Format("plain_jsonl", "plain_jsonl", some(plain(ONE_BLANK)), _plain_jsonl, rows=True, json="lines"),
)
