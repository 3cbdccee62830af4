"""What the commands accept as data: the form of a file found by content, its lines, tables, and texts with a label.

JSON and the hub are in `records` and `annotations`, entities in `spans`, streams in `stream`, other forms in `formats`.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import logging
import re
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

from trunkline.data import values
from trunkline.data.formats import ENDINGS, FORMATS, TAGGED, decode, names_inside, read_all, read_format
from trunkline.data.values import Loaded, Record, Records, data_error, get_key, list_names, require_text, shorten
from trunkline.errors import DataError, TrunklineError
from trunkline.text.examples import Example, TextExample

_log = logging.getLogger("trunkline.data")

TASK_FAMILIES = ("classification", "multilabel", "ner", "qa")
_HEAD, _START = 50, 2000  # first lines, and bytes, that are looked at
_WORDY = 3  # mean words of a column's values from which it is taken for a text
_MOST_VALUES = 1_000  # distinct values of a column that are remembered, so as to know a swallowed row by its label
DELIMITERS = (",", ";", "\t", "|")
_TAB = {"tab": "\t", "\\t": "\t"}
LIMIT, LINE_LIMIT = 4 * 1024**3, 64 * 1024**2
"""Bytes of an unpacked file, and of one line, from which it is taken for an archive bomb."""

Row = tuple[int, list[str]]
_QUOTED = re.compile(r'(?<![^,;\t|])"(?:[^"]|"")*"')
_SEPARATORS = re.compile(f"[{values.SEPARATORS}]")
_DECIMAL = re.compile(r"[-+]?\d+[.,]\d+")
_WORD = re.compile(r"(?<!\S)(?=\S*[^\W\d_])[^\s\d]+(?!\S)")  # none are numbers, dates and most ids


def load_examples(spec: str | Path, family: str | None = None, **columns: str | None) -> tuple[str, list[Example]]:
    """Family and examples of `read_examples`; what was left out or repaired is logged as a warning."""
    loaded = read_examples(spec, family, **columns)
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
    label_separator: str | None = None,
) -> Loaded:
    """Reads labelled examples into memory.

    Args:
        spec: A file, see `trunkline.data.formats.ACCEPTED`, or `hub:NAME[:CONFIG]@SPLIT`.
        family: `classification`, `multilabel`, `ner` or `qa`; found by content where it is not given.
        text_column: Column or key of the text, or several that are joined with blanks, as `title+body`. A number,
            counted from 0, says that a table has no header.
        label_column: Column or key of the label, or several as above: see `trunkline.data.several`.
        delimiter: What parts the columns of a table, or `tab`; found by content where it is not given.
        label_separator: What parts the labels of a text, if it may have several.

    Raises:
        TrunklineError: A family or spec that is not known.
        DataError: A file that is missing, malformed or of another family; names file, line, and what it was taken for.
    """
    if family not in (None, *TASK_FAMILIES):
        raise TrunklineError(f"the family {family!r}", expected=f"one of {', '.join(TASK_FAMILIES)}")
    form = find_form(spec, delimiter)
    if form in ("text", "conll"):
        from trunkline.data.spans import read_tagged

        return read_tagged(spec, form, family)
    notes: list[str] = []
    kind, rows = open_records(spec, form, delimiter, text_column, label_column, notes=notes)
    records, read = list(rows), read_labels
    if form not in values.TABLES or any(cell.startswith(values.CELLS) for _, own in records for cell in own.values()):
        from trunkline.data.annotations import read_records as read
    label_column = None if form in FORMATS and FORMATS[form].layers else label_column
    try:
        loaded = read(records, spec, family, text_column, label_column, label_separator)
    except DataError as error:
        error.given += f" (the file was taken for {kind})"
        raise
    _log.info("%s: taken for %s, %s, %d examples", spec, kind, loaded.kind, len(loaded.examples))
    return Loaded(loaded.family, loaded.examples, f"{kind}, {loaded.kind}", [*notes, *loaded.notes])


def open_records(
    spec: str | Path, form: str, delimiter: str | None, *asked: str | None, notes: list[str] | None = None
) -> tuple[str, Records]:
    """What a source was taken for, and its records; `notes` get what is left out."""
    if form in FORMATS:
        return FORMATS[form].kind, read_format(FORMATS[form], spec, asked, [] if notes is None else notes)
    if form not in ("json", "hub"):
        return read_table(spec, delimiter=delimiter, asked=asked)
    from trunkline.data.records import hub_records, read_json_records

    return ("a data set of the hub", hub_records(str(spec))) if form == "hub" else read_json_records(spec)


def find_form(spec: str | Path, delimiter: str | None = None) -> str:
    """The form of data by its first lines and its ending: `hub`, `json`, `table`, `conll`, `text` or of `FORMATS`."""
    if isinstance(spec, str) and spec.startswith("hub:"):
        return "hub"
    if (place := Path(spec).expanduser()).is_dir() or is_zipfile(place):
        head = names_inside(place)
    else:
        with open_stream(spec) as stream:
            head = stream.read(_START)
    if special := next((name for name, form in FORMATS.items() if re.match(form.start.encode(), head)), ""):
        return special
    named = ENDINGS.get(Path(str(spec).lower().removesuffix(".gz")).suffix, "")
    lines = [line for _, line in islice(read_lines(spec), _HEAD)]
    full = [line.strip() for line in lines if line.strip() and not line.startswith(("#", "-DOCSTART-"))]
    if not full:
        raise data_error(spec, None, "the file is empty", "examples")
    if named != "json" and full[0][0] in "{[":
        from trunkline.data.records import is_json

        # A document in several lines begins with a bracket alone; a table may begin with one, too.
        named = "json" if is_json(full[0]) else named or ("json" if full[0] in ("{", "[") else "")
    if named in ("json", "table", "conll") or delimiter is not None:
        return named or "table"
    if len(full) > 1 and all(map(TAGGED.fullmatch, full)):
        return "conll"
    header = full[0].split(find_delimiter(full))
    return "table" if named != "text" and find_name(header, values.TEXT_NAMES[:3]) else "text"


def read_labels(
    records: Sequence[tuple[int, Record]], path: str | Path, family: str | None, *columns: str | None
) -> Loaded:
    """Texts with labels, by columns of both and what parts labels, if any; a DataError for blank or measured ones."""
    text, label, separator = (*columns, None)[:3]
    if not records:
        raise data_error(path, None, "there is no example", "some examples")
    if separator or family == "multilabel" or ("+" in (label or "") and label not in records[0][1]):
        from trunkline.data.several import read_several

        return read_several(records, path, text, label, separator)
    names = [name for name in records[0][1] if name not in (text or "").split("+")]
    label = find_label(names, family, label, path, records[0][0])
    texts = choose_text(records, label, text, path)
    rows = []
    for line, record in records:
        value, own = record.get(label), join_texts(record, texts, path, line).strip()
        if not isinstance(value, str) or not value.strip():
            value = require_text(get_key(record, label, path, line), "label", path, line)
        rows.append((line, TextExample(own or require_text(own, "text", path, line), value.strip())))
    known = Counter(example.label for _, example in rows)
    if all(map(_DECIMAL.fullmatch, known)) and 2 * list(known.values()).count(1) > len(known):
        given = f"all labels are numbers with decimals, such as {shorten(rows[0][1].label)}, and most occur once"
        todo = "There is no regression: make classes of the numbers, such as low and high"
        raise data_error(path, rows[0][0], given, "names of classes", todo)
    parts = {name: {part.strip() for part in _SEPARATORS.split(name)} for name in known}
    joined, times = [name for name, own in parts.items() if len(own) > 1], Counter(chain(*parts.values()))
    recur = 2 * len(joined) > len(parts) and all(times[part] > 1 for name in joined for part in parts[name])
    for line, example in rows if joined else ():
        single = parts[example.label]
        if len(single) > 1 and (recur or known.keys() >= single):
            raise values.joined_labels(path, line, example.label, len(single), known.keys() >= single)
    return Loaded("classification", [example for _, example in rows], "texts with a label")


def find_label(
    names: Sequence[str], family: str | None, asked: str | None, path: str | Path, line: int, entities: str = ""
) -> str:
    """The column or key of the labels, not of `entities`; a DataError for none, several, and another family's."""
    others = [name for name in names if name != entities]
    label = asked or find_name(others, values.LABEL_NAMES)
    if not label or family not in (None, "classification", "multilabel"):
        raise values.wrong_family(path, line, names, family, entities, label)
    named = [name for name in others if name.strip().lower() in values.LABEL_NAMES]
    # One may have the names, `label_text`, of another one's numbers.
    if not asked and len({name.strip().lower().split("_")[0].rstrip("s") for name in named}) > 1:
        todo = f"Name one with --label-column {label}"
        raise data_error(path, line, f"there are several labels: {list_names(named)}", "one column of labels", todo)
    find_columns(names, label, "--label-column", path, line)
    return label


def find_columns(names: Sequence[str], asked: str, option: str, path: str | Path, line: int | None) -> tuple[str, ...]:
    """The column of a name, or those of several joined by `+`; a DataError for one that is not there."""
    found = (asked,) if asked in names else tuple(asked.split("+"))
    if missing := [part for part in found if part not in names]:
        given = f"no column {missing[0]!r}; there are {list_names(names)}"
        raise data_error(path, line, given, "a column that is there", f"Name another one with {option}")
    return found


def find_name(names: Sequence[str], wanted: Sequence[str]) -> str:
    """The first of the wanted names that is there, whatever its case; empty if none is."""
    by_lower = {name.strip().lower(): name for name in reversed(names)}
    return next((by_lower[name] for name in wanted if name in by_lower), "")


def choose_text(
    records: Sequence[tuple[int, Record]], label: str, asked: str | None, path: str | Path
) -> tuple[str, ...]:
    """The columns or keys of the text: the one that was asked for, several joined by `+`, or one of `TEXT_NAMES`.

    Raises:
        DataError: No such column; or, beside a `label`, another one that has texts, too, by its name or its values: it
            would be dropped.
    """
    (line, first), rows = records[0], [record for _, record in records] if label else []
    names = [name for name in first if name != label]
    if asked is not None:
        return find_columns(names, asked, "--text-column", path, line)
    if not (found := find_name(names, values.TEXT_NAMES)):
        given = f"no column of texts; there are {list_names(names)}"
        todo = "Name the column of the texts with --text-column, or, if there is no header, --text-column 0"
        raise data_error(path, line, given, f"one of {', '.join(values.TEXT_NAMES)}", todo)
    for name in dict.fromkeys(name for record in rows for name in record if name not in (found, label)):
        texts = [value for record in rows if isinstance(value := record.get(name), str) and value.strip()]
        lower = name.strip().lower()
        named = {lower, lower.rstrip("_-0123456789ab ")} & values.SECOND_NAMES and any(map(_WORD.search, texts))
        words = sum(sum(map(str.isalpha, word)) > 1 for value in texts for word in value.split())
        if texts and (named or (words >= _WORDY * len(texts) and 2 * len(set(texts)) > len(rows) > 1)):
            given = f"the column {name!r} has texts, too, such as {shorten(texts[0])}"
            todo = f"Name one with --text-column {found}, or join them with --text-column {f'{found}+{name}'!r}"
            raise data_error(path, None, given, "one column of texts", todo)
    return (found,)


def join_texts(record: Record, columns: Sequence[str], path: str | Path, line: int) -> str:
    """The text of a record: one column as it stands, or several joined with blanks; a DataError for what is no text."""
    for column in columns:
        if not isinstance(record.get(column), str):
            require_text(get_key(record, column, path, line), "text", path, line)
    parts: list[str] = [record[column] for column in columns]
    return parts[0] if len(parts) == 1 else " ".join(part for part in parts if part.strip())


def read_table(
    path: str | Path, *, delimiter: str | None = None, asked: Sequence[str | None] = ()
) -> tuple[str, Iterator[tuple[int, Record]]]:
    """What a table was taken for, in words, and its rows as records with the lines on which they begin.

    The delimiter is one character or `tab`, by default the one of `DELIMITERS` that gives the first rows most columns.
    Where all columns that are `asked` for are numbers, the columns are `0`, `1`, ... Values are text, `001` too.

    Raises:
        DataError: Rows of different widths, quotes that do not close, a header that names a column twice.
    """
    lines = read_lines(path)
    head = list(islice(lines, _HEAD))
    found = find_delimiter([line for _, line in head]) if delimiter is None else _TAB.get(delimiter, delimiter)
    if len(found) != 1:
        raise data_error(path, None, f"the delimiter {delimiter!r}", "one character, or tab")
    names, records = name_columns(read_rows(chain(head, lines), found, path), asked, path)
    kind = f"a table with {len(names)} columns parted by {repr(found) if found != chr(9) else 'tabs'}"
    return kind + (", without a header" if names[0] == "0" else ""), records


def name_columns(
    rows: Iterator[Row], asked: Sequence[str | None], path: str | Path
) -> tuple[list[str], Iterator[tuple[int, Record]]]:
    """The names of columns by the first row, or numbers where all that are asked for are, and the rows as records."""
    first = next(rows, None)
    if first is None:
        raise data_error(path, None, "the file is empty", "a header and rows")
    names = [cell.strip() or f"column {number}" for number, cell in enumerate(first[1], start=1)]
    parts = [part for column in asked if column for part in column.split("+")]
    if parts and all(part.isdecimal() and part not in names for part in parts):
        names, rows = [str(number) for number in range(len(names))], chain([first], rows)
    if len(set(names)) < len(names):
        raise data_error(path, first[0], f"the header is {list_names(names)}", "each column named once")
    return names, ((line, dict(zip(names, row, strict=True))) for line, row in rows)


def find_delimiter(lines: Sequence[str]) -> str:
    """The delimiter that divides the first line into most columns and the lines after it most evenly."""
    full = [line for line in lines if line.strip()]

    def fit(delimiter: str) -> tuple[float, int]:
        widths = [1 + _QUOTED.sub("", line).count(delimiter) for line in full]
        even = sum(width == widths[0] for width in widths) / len(widths)
        return (even if widths[0] > 1 else 0.0), widths[0]

    return max(DELIMITERS, key=fit) if full else ","


def read_rows(lines: Iterable[tuple[int, str]], delimiter: str, path: str | Path) -> Iterator[Row]:
    """Yields rows of cells, as `csv` parses them, with the line on which each begins; blank rows are passed over.

    In tables with tabs a line with as many tabs as the first is a row, whatever quotes it has. Rows of another width
    than the first and quotes that do not close raise a DataError, and so do, at the end, lines between quotes that seem
    to be rows by themselves: each of them has, in one column, a value that the column has in other rows.
    """
    seen: defaultdict[int, set[str]] = defaultdict(set)
    suspects: list[tuple[int, list[list[str]]]] = []
    held: list[tuple[int, str]] = []
    tabs = width = 0

    def hold() -> Iterator[str]:
        nonlocal tabs
        for number, line in lines:
            tabs = tabs or line.count("\t")
            if delimiter == "\t" and not held and line.count("\t") == tabs:
                cells = (c if _QUOTED.fullmatch(c) else '"' + c.replace('"', '""') + '"' for c in line.split("\t"))
                line = "\t".join(cells)
            held.append((number, line))
            yield f"{line}\n"

    rows = csv.reader(hold(), delimiter=delimiter, strict=True)
    while True:
        held.clear()
        try:
            row = next(rows)
        except StopIteration:
            break
        except csv.Error as error:
            raise values.open_quote(path, held[0][0], held[-1][0], error) from None
        if not any(cell.strip() for cell in row):
            continue
        width = width or len(row)
        if len(row) != width:
            expected = f"{width} columns separated by {delimiter!r}, as in the first row"
            todo = "Put quotes around values that hold the delimiter, or name another one (--delimiter)"
            raise data_error(path, held[0][0], f"{len(row)} column{'s' if len(row) != 1 else ''}", expected, todo)
        for column, cell in enumerate(row):
            if len(seen[column]) < _MOST_VALUES:
                seen[column].add(cell)
        inner = [line.split(delimiter) for _, line in held] if len(held) > 1 else []
        if inner and all(len(cells) == width > 1 for cells in inner):
            suspects.append((held[0][0], inner))
        yield held[0][0], row
    for line, inner in suspects:
        if any(all(cells[column] in seen[column] for cells in inner) for column in range(width)):
            raise values.open_quote(path, line, line + len(inner) - 1)


def read_lines(path: str | Path, *, encoding: str = "utf-8", limit: int = LIMIT) -> Iterator[tuple[int, str]]:
    """Yields the numbers, counted from 1, and lines of a plain or gzipped text file; one is in memory at a time.

    Only a line feed ends a line, so that U+2028 and the like stay inside a text. A carriage return before it and a byte
    order mark at the start are dropped; that of UTF-16 is believed whatever `encoding` says, in which a line feed has
    to be one byte. `path` may be any object with the methods of a path, such as a `zipfile.Path`, and `limit` is the
    most bytes of the unpacked file.

    Raises:
        DataError: No such file, a damaged one, bytes that are not text in `encoding`, or too many of them.
    """
    codec, number, left = codecs.lookup(encoding), 0, limit
    with open_stream(path) as stream:
        if stream.peek(2).startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            text = decode(read_all(stream, path, limit), "utf-16", path)
            stream, codec = io.BytesIO(text.encode()), codecs.lookup("utf-8")
        while raw := stream.readline(min(left, LINE_LIMIT) + 1):
            number, left = number + 1, left - len(raw)
            if left < 0 or len(raw) > LINE_LIMIT:
                raise values.too_large(path, number, *((limit, "") if left < 0 else (LINE_LIMIT, "a line of ")))
            if b"\0" in raw:
                raise values.wrong_bytes(None, path, number)
            if number == 1 and codec.name == "utf-8":
                raw = raw.removeprefix(codecs.BOM_UTF8)
            try:
                text = codec.decode(raw)[0]
            except UnicodeDecodeError as error:
                raise values.wrong_bytes(error, path, number) from None
            yield number, text.removesuffix("\n").removesuffix("\r")


@contextmanager
def open_stream(path: str | Path) -> Iterator[Any]:
    """Opens the unpacked bytes of a file; what goes wrong while they are read is a DataError."""
    file: Any = Path(path).expanduser() if isinstance(path, str | Path) else path
    try:
        if not file.exists() or file.is_dir():
            raise values.no_file(path, file)
        with file.open("rb") as raw:
            stream = raw if hasattr(raw, "peek") else io.BufferedReader(raw)
            start = stream.peek(4)
            if start.startswith(b"PK\x03\x04"):
                raise values.no_file(path, None)
            packed = start.startswith(b"\x1f\x8b") or str(path).lower().endswith(".gz")
            yield gzip.GzipFile(fileobj=stream) if packed else stream
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        given = f"the archive is damaged ({error or type(error).__name__})"
        raise data_error(path, None, given, "a complete .gz file", "Get the file again") from error
    except OSError as error:
        raise data_error(path, None, f"the file cannot be read ({error.strerror or error})") from error
