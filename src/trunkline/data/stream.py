"""Data that is read one at a time: texts to predict on, pairs, plain texts, the sources of pre-finetuning."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, islice
from pathlib import Path
from typing import Any

from trunkline.data.annotations import entity_row, find_family, flat_questions, read_questions, read_tokens, unfold
from trunkline.data.formats import TEXT_FILES
from trunkline.data.load import choose_text, find_form, join_texts, load_examples, open_records, read_lines
from trunkline.data.records import read_json_records
from trunkline.data.spans import build_example, read_conll
from trunkline.data.values import TABLES, Records, data_error, require_some, require_text
from trunkline.text.examples import Example, PairExample, PlainExample, QaExample, join_tokens
from trunkline.text.words import split_sentences

_log = logging.getLogger("trunkline.data")

MAX_WORDS, _MOST_LINES = 200, 10_000
"""Words of a passage, beyond which a text is cut, at sentence ends if it has any; lines of a text held at once."""


def load_texts(
    spec: str | Path, *, text_column: str | None = None, delimiter: str | None = None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the texts to predict on with the other keys of their records, one at a time.

    `spec` is what `read_examples` takes, with or without labels, or a text file with a text a line. `text_column` is
    needed where no column has a usual name, unless JSON has only one key. A question and its context are one text, with
    a line feed between them. Blank lines of a text file are left out, and counted in a warning.

    Raises:
        DataError: A file that is missing or malformed, or a text that is null or no string; names file and line.
    """
    form = find_form(spec, delimiter)
    if form == "text":
        return ((line, {}) for line in full_lines((line for _, line in read_lines(spec)), spec))
    if form == "conll":
        return ((join_tokens(list(sentence.tokens))[0], {}) for sentence in read_conll(spec, tags=False))
    notes: list[str] = []
    records = open_records(spec, form, delimiter, text_column, notes=notes)[1]
    return _texts(records, spec, text_column, form in TABLES, notes)


def full_lines(lines: Iterable[str], source: str | Path) -> Iterator[str]:
    """The lines that are not blank; how many are is logged as a warning."""
    blank = 0
    for line in lines:
        blank += not line.strip()
        if line.strip():
            yield line
    if blank:
        _log.warning("%s: blank lines left out: %d", source, blank)


def _texts(
    records: Records, path: str | Path, asked: str | None, table: bool, notes: Sequence[str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The texts; `notes`, which readers fill, are logged at the end."""
    columns: tuple[str, ...] = ()
    for line, record in require_some(records, path, what="text"):
        record = unfold(record)
        tokens = next((name for name in ("tokens", "tokenized_text") if isinstance(record.get(name), list)), "")
        if tokens and asked is None and not columns and all(isinstance(token, str) for token in record[tokens]):
            yield join_tokens(record.pop(tokens))[0], record
            continue
        if not (asked or columns or table) and ("paragraphs" in record or {"question", "context"} <= record.keys()):
            for item in flat_questions(record, path, line):
                require_text(item.get("question"), "question", path, line)
                require_text(item.get("context"), "context", path, line)
                yield QaExample(item.pop("question"), item.pop("context")).text, item
            continue
        if not columns:
            only = asked is None and len(record) == 1 and not table  # a table may have no header
            columns = tuple(record) if only else choose_text([(line, record)], "", asked, path)
        text = join_texts(record, columns, path, line)
        yield text, {key: value for key, value in record.items() if key not in columns}
    for note in notes:
        _log.warning("%s: %s", path, note)


def stream_examples(spec: str | Path, family: str) -> Iterator[Example]:
    """Yields the examples of a family, of `pairs` or of `plain` texts, as they are asked for where the form allows it.

    `pairs` are a table or JSON with `left` and `right` and, if at all, `group`; `plain` also text files and folders of
    them, whose paragraphs come in passages. JSON lines with entities or questions are sources of pre-finetuning, in
    which entities may overlap; other data of tasks is read as `load_examples` does.

    Raises:
        DataError: Files that are missing, malformed or of another family.
    """
    if family in ("plain", "pairs"):
        return require_some((_plain if family == "plain" else _pairs)(spec), spec)
    if family in ("ner", "qa") and Path(spec).suffix == ".jsonl":
        records = read_json_records(spec)[1]
        return require_some(read_questions(records, spec) if family == "qa" else _sentences(records, spec), spec)
    return iter(load_examples(spec, family)[1])


def _sentences(records: Records, path: str | Path) -> Iterator[Example]:
    for line, record in records:
        what, key = find_family([(line, record)], path, "ner", None)
        if what == "tokens":
            yield from read_tokens([(line, record)], key, path).examples
        else:
            yield build_example(entity_row(line, record, ("text",), key, path), path, overlap=True)


def _pairs(spec: str | Path) -> Iterator[Example]:
    """Pairs in the order of the file; those with a blank side are passed over."""
    for line, record in open_records(spec, find_form(spec), None)[1]:
        left, right = (join_texts(record, (key,), spec, line).strip() for key in ("left", "right"))
        if left and right:
            group = record.get("group")
            yield PairExample(left, right, "" if group is None else str(group))


def _plain(spec: str | Path) -> Iterator[Example]:
    path = Path(spec).expanduser()
    if not path.is_dir() and find_form(spec) != "text":
        for text, _ in load_texts(spec):
            yield from cut_text(text)
        return
    for file in find_files(path, TEXT_FILES) if path.is_dir() else [path]:
        for blank, lines in groupby((line for _, line in read_lines(file)), lambda line: not line.strip()):
            while not blank and (held := list(islice(lines, _MOST_LINES))):
                yield from cut_text("\n".join(held))


def find_files(path: Path, endings: Sequence[str]) -> list[Path]:
    """A file, or the files of a folder that are not hidden, with such an ending; a DataError if there is none."""
    inside = [file for file in sorted(path.rglob("*")) if "/." not in f"/{file.relative_to(path).as_posix()}"]
    found = [file for file in inside or [path] if file.is_file() and ends_in(file, endings)]
    if not found:
        given = "there is no file of a form that is read here" if path.exists() else "no such file"
        raise data_error(path, None, given, f"files that end in {', '.join(endings)} (or those with .gz)")
    return found


def ends_in(path: Path, endings: Sequence[str]) -> bool:
    """Whether the name of a file, gzipped or not, ends in one of some endings."""
    return path.name.lower().removesuffix(".gz").endswith(tuple(endings))


def cut_text(text: str) -> Iterator[PlainExample]:
    """Cuts a text into passages of as many whole sentences as fit, with every run of blanks as one."""
    held: list[str] = []
    for sentence in split_sentences(text, MAX_WORDS):
        words = sentence.split()
        if held and len(held) + len(words) > MAX_WORDS:
            yield PlainExample(" ".join(held))
            held = []
        held += words
    if held:
        yield PlainExample(" ".join(held))
