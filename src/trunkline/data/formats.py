"""The forms of data that have a reader of their own; a new one is one more row of `FORMATS`, with its reader.

A reader is called as `reader(path, asked, notes)`. It yields records with the lines, or rows, on which they begin,
counted from 1, which have `text` and, as far as they are labelled, `label` or `intent`, `entities` as `parse_entities`
takes them, or `tokens` and `tags`; other keys are kept by `predict`. `asked` are the text and label columns, which may
be None, and what is left out is added to `notes`. Files are from anywhere: a reader limits what it unpacks, raises a
DataError for what is damaged, imports its library inside, with `needs("formats", ...)`, and runs nothing of the file.

Records of JSON that have the keys of a tool are in `annotations`, `_TOOLS`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import IO, NamedTuple
from zipfile import ZipFile

from trunkline.data.values import Record, data_error, too_large, wrong_bytes
from trunkline.errors import TrunklineError

Found = Iterator[tuple[int, Record]]
"""What a reader yields."""

ACCEPTED = (
    "a table (.csv, .tsv) with a column of texts and one of labels; JSON (.json, .jsonl, .ndjson) with text and label, "
    "text and entities, tokens and tags, or question, context and answers, also as Prodigy, doccano, Label Studio, "
    "Rasa, Snips, GLiNER and spaCy write it; CoNLL with a token and its tag a line; each also gzipped; CoNLL-U, Excel, "
    "Parquet, DocBin, brat, WebAnno TSV, UIMA CAS, Rasa and Snips YAML, fastText; or hub:NAME@SPLIT"
)

TEXT_FILES = (".txt", ".md")
ENDINGS = {
    **dict.fromkeys((".json", ".jsonl", ".ndjson"), "json"),
    **dict.fromkeys((".csv", ".tsv", ".tab"), "table"),
    **dict.fromkeys((".conll", ".conllu", ".bio", ".iob", ".iob2", ".bioes", ".bilou"), "conll"),
    **dict.fromkeys(TEXT_FILES, "text"),
}
"""What a file is taken for by its name, where its content does not tell."""

TAGGED = re.compile(r"\S+[ \t](?:.*[ \t])?(?:O|[BIESLU]-\S+)")
"""A line of CoNLL."""

DOCUMENT_LIMIT = 256 * 1024**2
"""Bytes of a document that is parsed as a whole, unpacked; larger data belongs into a table or JSON lines."""


class Format(NamedTuple):
    """A form of data: what messages call it, how it begins, its reader, and whether `--label-column` names a layer.

    `start`, a pattern, is matched with the first bytes of a file, unpacked if it is gzipped; of a zip archive and of a
    folder with the line `archive` or `folder` and the sorted names of what is inside, one a line.
    """

    kind: str
    start: str
    reader: str
    layers: bool = False


_BOM, _COMMENTS = r"(?:\xef\xbb\xbf)?", r"(?:[ \t]*(?:#[^\n]*|---[ \t]*)?\r?\n)*"

FORMATS = {
    "xlsx": Format("an Excel sheet", r"archive\n(?:.*\n)*?xl/workbook\.xml\n", "sheets.read_xlsx"),
    "parquet": Format("Parquet", r"PAR1", "sheets.read_parquet"),
    "saved": Format("a folder of save_to_disk", r"folder\n(?:.*\n)*?dataset_(?:dict|info)\.json", "sheets.read_saved"),
    "docbin": Format("a DocBin of spaCy", r"\x78[\x01\x5e\x9c\xda]", "documents.read_docbin"),
    "brat": Format("brat", r"folder\n(?:.*\n)*?.*\.ann\n|T\d+\t\S+ \d+ \d+", "documents.read_brat"),
    "webanno": Format("WebAnno TSV", rf"{_BOM}#FORMAT=WebAnno TSV 3", "documents.read_webanno", layers=True),
    "xmi": Format("UIMA CAS", rf"{_BOM}\s*<(?:(?s:.)*<)?xmi:XMI", "documents.read_cas", layers=True),
    "cas": Format("UIMA CAS in JSON", r"\s*\{\s*\x22%TYPES\x22", "documents.read_cas", layers=True),
    "conllu": Format("CoNLL-U", rf"{_BOM}{_COMMENTS}1(?:-\d+)?(?:\t[^\t\n]+){{8}}\t[^\t\n]*\n", "conllu.read_conllu"),
    "rasa": Format("Rasa YAML", rf"{_BOM}{_COMMENTS}(?:version:.*\n)?{_COMMENTS}nlu:\s*\n", "intents.read_rasa"),
    "snips": Format("Snips YAML", rf"{_BOM}{_COMMENTS}type:\s*(?:intent|entity)\s*\n", "intents.read_snips"),
    "fasttext": Format("fastText", rf"{_BOM}\x22?__label__\S+ ", "intents.read_fasttext"),
}  # fmt: skip


def names_inside(path: Path) -> bytes:
    """How a folder or zip archive begins for `Format.start`."""
    names = [file.name for file in path.iterdir()] if path.is_dir() else ZipFile(path).namelist()
    return "\n".join(("folder" if path.is_dir() else "archive", *sorted(names), "")).encode("utf-8", "replace")


def read_format(form: Format, path: str | Path, asked: tuple[str | None, ...], notes: list[str]) -> Found:
    """The records of a file of a form; what its library raises is a DataError that names the form."""
    module, _, name = form.reader.partition(".")
    try:
        yield from getattr(import_module(f"trunkline.data.{module}"), name)(path, asked, notes)
    except TrunklineError:
        raise
    except Exception as error:  # what the libraries of other people raise for damaged files
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        given = f"the file was taken for {form.kind} and cannot be read: {type(error).__name__}: {reason[:200]}"
        raise data_error(path, None, given, "a complete file", "Write the file again") from error


def read_content(path: str | Path, most: int = DOCUMENT_LIMIT) -> bytes:
    """The unpacked bytes of a file; a DataError for more than `most`."""
    from trunkline.data.load import open_stream

    with open_stream(path) as stream:
        return read_all(stream, path, most)


def read_all(stream: IO[bytes], path: str | Path, most: int) -> bytes:
    """The bytes of a stream; a DataError for more than `most`."""
    if len(content := stream.read(most + 1)) > most:
        raise too_large(path, None, most)
    return content


def read_text(path: str | Path) -> str:
    """The text of a file as it stands, in UTF-8, line ends and all, but for a byte order mark."""
    return decode(read_content(path), "utf-8-sig", path)


def decode(content: bytes, encoding: str, path: str | Path) -> str:
    """The text of a file's bytes; a DataError with the line for those that are none."""
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise wrong_bytes(error, path, content.count(b"\n", 0, error.start) + 1) from None


_XML = re.compile(rb"(?:\xef\xbb\xbf)?\s*<(?!\?xml\s[^>]*encoding\s*=\s*[\"'](?!(?i:utf-8|us-ascii)[\"']))")


def check_xml(content: bytes, path: str | Path) -> None:
    """A DataError for XML that declares a document type or entities, or has another encoding, which could hide them."""
    if b"<!DOCTYPE" in content or b"<!ENTITY" in content or b"\0" in content or not _XML.match(content):
        given = "its XML declares a document type or entities, or is not UTF-8"
        raise data_error(path, None, given, "plain XML in UTF-8", "Export the file again")
