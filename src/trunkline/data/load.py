"""What the commands accept as data: files whose form is found by content, folders of text, and `hub:NAME@SPLIT`."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from trunkline.data.annotations import choose_text, find_name
from trunkline.data.conll import decode_sentences, read_conll
from trunkline.data.files import data_error, read_lines
from trunkline.data.labelled import LabelledRecords, Loaded, join_texts, read_questions
from trunkline.data.records import Record, Records, get_key, parse_json, read_json_records, require_some, shorten
from trunkline.data.spans import Row, build_example, parse_entities
from trunkline.data.table import find_delimiter, read_table
from trunkline.errors import DataError, TrunklineError
from trunkline.text.examples import Example, PairExample, PlainExample, join_tokens
from trunkline.text.words import split_sentences


def hub_records(spec: str) -> Iterator[tuple[int, Record]]:
    """Yields the rows of a split of the hub, or of a local folder in hub layout, with their numbers, counted from 1.

    Code that comes with a data set is never run. `spec` is `hub:NAME@SPLIT` or `hub:NAME:CONFIG@SPLIT`, with SPLIT such
    as `train` or `train[:1000]`. Numbers of a ClassLabel become its names; values of CSV files are text as it stands.

    Raises:
        TrunklineError: A data set that cannot be loaded, with what was tried; or `datasets` is not installed.
    """
    name, at, split = spec.removeprefix("hub:").rpartition("@")
    if not at or not name or not split:
        raise TrunklineError(f"{spec!r} does not say which split", expected="hub:NAME@SPLIT or hub:NAME:CONFIG@SPLIT")
    data = _load(name, split)
    # Of a ClassLabel, and of lists of them, whose feature older versions of datasets have as a list of one.
    inner = {key: part[0] if isinstance(part, list) else part for key, part in data.features.items()}
    names = {key: getattr(getattr(part, "feature", part), "names", None) or () for key, part in inner.items()}
    for row, record in enumerate(data, start=1):
        yield row, {key: _named(value, names[key]) if names[key] else value for key, value in record.items()}


def _named(value: Any, names: Sequence[str]) -> Any:
    if isinstance(value, list):
        return [_named(one, names) for one in value]
    return names[value] if isinstance(value, int) and 0 <= value < len(names) else value


def _load(spec: str, split: str) -> Any:
    try:
        import datasets
    except ImportError:
        todo = "Run `pip install 'trunkline[train]'`"
        raise TrunklineError("the package datasets is not installed", expected="it for hub: names", todo=todo) from None
    name, _, config = ("", "", "") if Path(spec).exists() else spec.rpartition(":")
    name, config = (name, config) if name and config else (spec, "")
    try:
        data = datasets.load_dataset(name, config or None, split=split)
        if data.info.builder_name == "csv":
            text = datasets.Features({column: datasets.Value("string") for column in data.features})
            data = datasets.load_dataset(name, config or None, split=split, features=text, keep_default_na=False)
    except (OSError, ValueError, RuntimeError, KeyError, datasets.exceptions.DatasetsError) as error:
        where = "the local folder" if Path(name).exists() else "the hub (no local folder has this name)"
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise TrunklineError(
            f"the data set {name!r}{f' ({config})' if config else ''}, split {split!r}, could not be loaded from "
            f"{where}: {reason}",
            expected="a hub id such as user/name or a local folder in hub layout, with data files and no script",
            todo="Check name, configuration, split and network (HF_HUB_OFFLINE=1 uses only what was fetched before)",
        ) from error
    return data


TEXT_FILES = (".txt", ".md")
MAX_WORDS = 200
"""Words of a passage; longer texts are cut, at sentence ends where there are any."""

_BLOCK_WORDS = 50_000


def read_passages(path: Path) -> Iterator[PlainExample]:
    """Yields the passages of a file, or of the text files of a folder by name; a blank line ends a text."""
    files = [path]
    if path.is_dir():
        inside = sorted(file for file in path.rglob("*") if file.suffix.lower() in TEXT_FILES and file.is_file())
        files = [file for file in inside if not any(part.startswith(".") for part in file.relative_to(path).parts)]
    if not files:
        raise data_error(path, None, "no file in the folder is text", f"files that end in {' or '.join(TEXT_FILES)}")
    for file in files:
        for block in _blocks(line for _, line in read_lines(file)):
            yield from cut_text(block)


def cut_text(text: str) -> Iterator[PlainExample]:
    """Cuts a text into passages of as many whole sentences as fit, with every run of blanks as one."""
    plain = " ".join(text.split())
    held: list[str] = []
    for start, end in split_sentences(plain, [], MAX_WORDS):
        words = plain[start:end].split()
        if held and len(held) + len(words) > MAX_WORDS:
            yield PlainExample(" ".join(held))
            held = []
        held += words
    if held:
        yield PlainExample(" ".join(held))


def _blocks(lines: Iterable[str]) -> Iterator[str]:
    """Joins lines up to a blank one, or up to so many words that the memory stays bounded."""
    held: list[str] = []
    words = 0
    for line in lines:
        words += len(line.split())
        if line.strip():
            held.append(line)
        if held and (not line.strip() or words >= _BLOCK_WORDS):
            yield "\n".join(held)
            held, words = [], 0
    if held:
        yield "\n".join(held)


_log = logging.getLogger("trunkline.data")

TASK_FAMILIES = ("classification", "ner", "qa")
FAMILIES = (*TASK_FAMILIES, "pairs", "plain")
_ENDINGS = {
    **dict.fromkeys((".json", ".jsonl", ".ndjson"), "json"),
    **dict.fromkeys((".csv", ".tsv", ".tab"), "table"),
    **dict.fromkeys((".conll", ".conllu", ".bio", ".iob", ".iob2", ".bioes", ".bilou"), "conll"),
    **dict.fromkeys(TEXT_FILES, "text"),
}
_TAGGED = re.compile(r"\S+[ \t](?:.*[ \t])?(?:O|[BIESLU]-\S+)")
_HEAD = 50

ACCEPTED = (
    "a table (.csv, .tsv) with a column of texts and one of labels; JSON (.json, .jsonl, .ndjson) with text and label, "
    "text and entities, tokens and tags, or question, context and answers, also as Prodigy, doccano, Label Studio, "
    "Rasa, GLiNER and spaCy write it; CoNLL with a token and its tag a line; each also gzipped; or hub:NAME@SPLIT"
)


def load_examples(spec: str | Path, family: str | None = None, **columns: str | None) -> tuple[str, list[Example]]:
    """Family and examples of `read_examples`; what was left out or repaired is logged as a warning."""
    loaded = read_examples(spec, family, **columns)
    _log.info("%s: taken for %s, %d examples of %s", spec, loaded.kind, len(loaded.examples), loaded.family)
    for note in loaded.notes:
        _log.warning("%s: %s", spec, note)
    return loaded.family, loaded.examples


def read_examples(
    spec: str | Path,
    family: str | None = None,
    *,
    text_column: str | None = None,
    label_column: str | None = None,
    delimiter: str | None = None,
) -> Loaded:
    """Reads labelled examples into memory.

    Args:
        spec: A file, see `ACCEPTED`, or `hub:NAME[:CONFIG]@SPLIT`.
        family: `classification`, `ner` or `qa`; found by content where it is not given.
        text_column: Column or key of the text, or several that are joined with blanks, as `title+body`. A number,
            counted from 0, says that a table has no header.
        label_column: Column or key of the label; a number as for `text_column`.
        delimiter: What parts the columns of a table, `tab` for a tab; found by content where it is not given.

    Raises:
        TrunklineError: A family or spec that is not known.
        DataError: A file that is missing, malformed or of another family; names file, line, and what the file was taken
            for.
    """
    if family not in (None, *TASK_FAMILIES):
        raise TrunklineError(f"the family {family!r}", expected=f"one of {', '.join(TASK_FAMILIES)}")
    form = find_form(spec, delimiter)
    if form == "text" or (form == "conll" and family not in (None, "ner")):
        given = "no form of labelled data that is known" if form == "text" else "tokens with tags, one a line"
        raise data_error(spec, None, given, f"data for {family}: {ACCEPTED}" if family else ACCEPTED)
    if form == "conll":
        found, scheme = decode_sentences(list(read_conll(Path(spec).expanduser())), spec)
        return Loaded("ner", list(require_some(found, spec, what="sentence")), f"CoNLL with {scheme}")
    kind, records = _records(spec, form, delimiter, text_column, label_column)
    try:
        loaded = LabelledRecords(list(records), spec, text_column, label_column).load(family)
    except DataError as error:
        error.given += f" (the file was taken for {kind})"
        raise
    return Loaded(loaded.family, loaded.examples, f"{kind}, {loaded.kind}", loaded.notes)


def load_texts(
    spec: str | Path, *, text_column: str | None = None, delimiter: str | None = None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the texts to predict on with the other keys of their records, one at a time.

    `spec` is what `read_examples` takes, with or without labels, or a text file with a text a line. `text_column` is
    needed where no column has a usual name, unless there is only one.

    Raises:
        DataError: A file that is missing or malformed, or a text that is null or no string; names file and line.
    """
    form = find_form(spec, delimiter)
    path = Path(spec).expanduser()
    if form == "text":
        return ((line, {}) for _, line in read_lines(path) if line.strip())
    if form == "conll":
        return ((join_tokens(list(sentence.tokens))[0], {}) for sentence in read_conll(path, tags=False))
    return _texts(_records(spec, form, delimiter, text_column)[1], spec, text_column)


def _texts(records: Records, path: str | Path, asked: str | None) -> Iterator[tuple[str, dict[str, Any]]]:
    columns: tuple[str, ...] = ()
    for line, record in require_some(records, path, what="text"):
        tokens = next((name for name in ("tokens", "tokenized_text") if isinstance(record.get(name), list)), "")
        if tokens and asked is None and not columns and all(isinstance(token, str) for token in record[tokens]):
            yield join_tokens(record.pop(tokens))[0], record
            continue
        if not columns:
            only = asked is None and len(record) == 1
            columns = tuple(record) if only else choose_text(list(record), asked, path, line)
        text = join_texts(record, columns, path, line)
        yield text, {key: value for key, value in record.items() if key not in columns}


def find_form(spec: str | Path, delimiter: str | None = None) -> str:
    """The form of data by its first lines and its ending: `hub`, `json`, `table`, `conll` or `text`."""
    if isinstance(spec, str) and spec.startswith("hub:"):
        return "hub"
    path = Path(spec).expanduser()
    endings = [ending.lower() for ending in path.suffixes if ending.lower() != ".gz"]
    named = _ENDINGS.get(endings[-1] if endings else "", "")
    lines = [line for _, line in islice(read_lines(path), _HEAD)]
    full = [line.strip() for line in lines if line.strip() and not line.startswith(("#", "-DOCSTART-"))]
    if not full:
        raise data_error(spec, None, "the file is empty", "examples")
    if named != "json" and full[0][0] in "{[":
        try:
            named = "json" if isinstance(parse_json(full[0]), dict | list) else named
        except ValueError:
            named = named or ("json" if full[0] in ("{", "[") else "")
    if named in ("json", "table", "conll") or delimiter is not None:
        return named or "table"
    if len(full) > 1 and all(map(_TAGGED.fullmatch, full)):
        return "conll"
    header = full[0].split(find_delimiter(full))
    return "table" if named != "text" and find_name(header, ("text", "sentence", "utterance")) else "text"


def _records(spec: str | Path, form: str, delimiter: str | None, *columns: str | None) -> tuple[str, Records]:
    """What a source of records was taken for, and its records with their lines."""
    if form == "hub":
        return "a data set of the hub", hub_records(str(spec))
    path = Path(spec).expanduser()
    if form == "json":
        return read_json_records(path)
    found, names, records = read_table(path, delimiter=delimiter)
    parts = [part for column in columns if column for part in column.split("+")]
    bare = bool(parts) and all(part.isdecimal() and part not in names for part in parts)
    if bare:
        found, names, records = read_table(path, delimiter=delimiter, header=False)
    shown = "tabs" if found == "\t" else repr(found)
    return f"a table with {len(names)} columns parted by {shown}{', without a header' if bare else ''}", records


def stream_examples(spec: str | Path, family: str) -> Iterator[Example]:
    """Yields the examples of one of `FAMILIES`; those of `pairs` and `plain` as they are asked for.

    `pairs` are a table or JSON with `left` and `right` and, if at all, `group`; `plain` also text files and folders of
    them, whose paragraphs come in passages.

    Raises:
        DataError: Files that are missing, malformed or of another family.
    """
    if family not in FAMILIES:
        raise TrunklineError(f"the family {family!r}", expected=f"one of {', '.join(FAMILIES)}")
    if family == "pairs":
        return require_some(_pairs(spec), spec, what="pair")
    return require_some(_plain(spec), spec, what="text") if family == "plain" else iter(load_examples(spec, family)[1])


def stream_source(path: Path, family: str) -> Iterator[Example]:
    """Yields a JSON file as a source of pre-finetuning: entities may overlap, and nothing is held in memory.

    For `classification` these are pairs.
    """
    if family == "classification":
        return stream_examples(path, "pairs")
    found = _sentences(path) if family == "ner" else read_questions(read_json_records(path)[1], path)
    return require_some(found, path, what="sentence" if family == "ner" else "question")


def _sentences(path: Path) -> Iterator[Example]:
    for line, record in read_json_records(path)[1]:
        if "tokens" in record:
            yield from LabelledRecords([(line, record)], path, None, None).load("ner").examples
            continue
        name = "spans" if "spans" in record and "entities" not in record else "entities"
        values = get_key(record, name, path, line)
        if not isinstance(values, list):
            raise data_error(path, line, f"{name} is {shorten(values)}", "a list of entities")
        text = join_texts(record, ("text",), path, line)
        yield build_example(Row(line, text, parse_entities(values, path, line)), path, overlap=True)


def _pairs(spec: str | Path) -> Iterator[Example]:
    """Pairs in the order of the file; those with a blank side are passed over."""
    for line, record in _records(spec, find_form(spec), None)[1]:
        left, right = (join_texts(record, (key,), spec, line).strip() for key in ("left", "right"))
        if left and right:
            group = record.get("group")
            yield PairExample(left, right, "" if group is None else str(group))


def _plain(spec: str | Path) -> Iterator[PlainExample]:
    path = Path(spec).expanduser()
    if path.is_dir() or find_form(spec) == "text":
        yield from read_passages(path)
        return
    for text, _ in load_texts(spec):
        yield from cut_text(text)
