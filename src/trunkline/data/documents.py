"""Documents of annotation tools, in sentences or lines: DocBin of spaCy, brat, WebAnno TSV, UIMA CAS."""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Sequence
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

from trunkline.data.formats import DOCUMENT_LIMIT, Found, check_xml, read_content, read_text
from trunkline.data.load import read_lines
from trunkline.data.values import data_error, list_names, shorten, too_large
from trunkline.errors import needs

Mark = dict[str, Any]
"""An entity with `start`, `end` and `label`."""

_NAMED_ENTITY = "NamedEntity"
_BRAT = re.compile(r"(T\d+)\t(\S+) (\d+ \d+(?:;\d+ \d+)*)\t(.*)")
_CODES = {"t": "\t", "n": "\n", "r": "\r"}
_ESCAPED, _BAR, _NUMBERED = re.compile(r"\\(.)"), re.compile(r"(?<!\\)\|"), re.compile(r"(.*)(?<!\\)\[(\d+)\]")


def in_pieces(text: str, marks: Sequence[Mark], name: str, cuts: Sequence[int] = ()) -> Found:
    """The pieces of a document between `cuts`, or its lines, with its file and where they start.

    What an entity crosses is in one piece.
    """
    cuts = cuts or [match.end() for match in re.finditer("\n", text)]
    inside = [cut for cut in cuts if not any(mark["start"] < cut < mark["end"] for mark in marks)]
    for first, end in pairwise(sorted({0, *inside, len(text)})):
        start = first + len(text[first:end]) - len(text[first:end].lstrip())
        own = [mark for mark in marks if first <= mark["start"] < end]
        if start < end:
            moved = [{**mark, "start": mark["start"] - start, "end": mark["end"] - start} for mark in own]
            piece = {"text": text[start:end].rstrip(), "entities": moved, "file": name, "position": start}
            yield text.count("\n", 0, start) + 1, piece


def read_docbin(path: str | Path, asked: Sequence[str | None], notes: list[str]) -> Found:
    """The documents of a DocBin with their entities, or the categories that are true."""
    unpacking = zlib.decompressobj()
    unpacking.decompress(read_content(path), DOCUMENT_LIMIT)
    if unpacking.unconsumed_tail:
        raise too_large(path, None, DOCUMENT_LIMIT)
    with needs("spacy", "a DocBin of spaCy"):
        from spacy.tokens import DocBin
        from spacy.vocab import Vocab
    left: Counter[str] = Counter()
    for number, doc in enumerate(DocBin().from_disk(path).get_docs(Vocab()), start=1):
        marks = [{"start": one.start_char, "end": one.end_char, "label": one.label_} for one in doc.ents]
        left.update({f"spans of the group {key!r}": len(group) for key, group in doc.spans.items()})
        yield number, {"text": doc.text, **({"cats": dict(doc.cats)} if doc.cats else {}), "entities": marks}
    notes += [f"left out: {count} {what}" for what, count in left.items()]


def read_brat(path: str | Path, asked: Sequence[str | None], notes: list[str]) -> Found:
    """The lines of the texts of a folder, or of one, with the text-bound annotations of the .ann beside each."""
    place, left = Path(path).expanduser(), Counter[str]()
    kinds = {"R": "relations", "E": "events", "#": "comments", "*": "relations"}
    for file in sorted(place.glob("*.ann")) if place.is_dir() else [place]:
        text, marks = read_text(file.with_suffix(".txt")), []
        for number, line in enumerate(read_text(file).splitlines(), start=1):
            match = _BRAT.match(line)
            if line.startswith("T") and not match:
                raise data_error(file, number, f"the line is {shorten(line)}", "T1, a label, two offsets and a text")
            if match is None or ";" in match[3]:
                left["entities of several parts" if match else kinds.get(line[:1], "attributes")] += bool(line.strip())
                continue
            start, end = map(int, match[3].split())
            if not 0 <= start < end <= len(text) or text[start:end].split() != match[4].split():
                found = f"{match[4]!r} does not stand at {start}..{end} of {file.with_suffix('.txt').name}"
                raise data_error(file, number, found, "offsets in characters", "Take the text that was annotated")
            marks.append({"start": start, "end": end, "label": match[2]})
        yield from in_pieces(text, marks, file.stem)
    if place.is_dir():
        left["texts without an .ann file"] = sum(not f.with_suffix(".ann").exists() for f in place.glob("*.txt"))
    notes += [f"left out: {count} {what}" for what, count in left.items() if count]


def read_cas(path: str | Path, asked: Sequence[str | None], notes: list[str]) -> Found:
    """The sentences, or lines, of a UIMA CAS with the annotations of a layer; an XMI has its type system beside it."""
    content, folder = read_content(path), Path(path).expanduser().parent
    with needs("formats", "UIMA CAS"):
        import cassis
    if content.lstrip()[:1] == b"{":
        cas = cassis.load_cas_from_json(content.decode("utf-8-sig"))
    else:
        types = sorted(file for file in folder.iterdir() if re.fullmatch(r"(?i).*type_?system\.xml", file.name))
        if len(types) != 1:
            given = f"there are {list_names(file.name for file in types)} beside it"
            raise data_error(path, None, given, "one file TypeSystem.xml", "Put the type system of the export there")
        system = read_content(types[0])
        check_xml(content, path)
        check_xml(system, types[0])
        types_of = cassis.load_typesystem(system.decode("utf-8-sig"))
        cas = cassis.load_cas_from_xmi(content.decode("utf-8-sig"), typesystem=types_of, lenient=True)
    text = cas.sofa_string or ""
    found: dict[str, list[Any]] = {}
    for one in cas.select_all_annotations():
        if getattr(one, "begin", None) is not None and one.end > one.begin:
            found.setdefault(one.type.name, []).append(one)
    sentences = next((own for name, own in found.items() if name.endswith("segmentation.type.Sentence")), [])
    layers = [name for name in found if not name.startswith("uima.") and ".segmentation.type." not in name]
    layer = _layer(layers, asked, path, notes)
    strings = [f.name for f in cas.typesystem.get_type(layer).all_features if f.rangeType.name == "uima.cas.String"]
    key = "value" if "value" in strings else next(iter(strings), "")
    label = layer.rpartition(".")[2]
    pairs = [(one, getattr(one, key) if key else label) for one in found[layer]]
    marks = [{"start": one.begin, "end": one.end, "label": value} for one, value in pairs if value]
    if len(marks) < len(pairs):
        notes.append(f"left out: {len(pairs) - len(marks)} annotations without a value")
    yield from in_pieces(text, marks, Path(path).name, [one.end for one in sentences])


def _layer(layers: Sequence[str], asked: Sequence[str | None], path: str | Path, notes: list[str]) -> str:
    """The layer that was asked for, the one of named entities, or the only one; notes what is left out."""
    name = asked[1] if len(asked) > 1 else None
    named = [one for one in layers if one.endswith(name or _NAMED_ENTITY)]
    chosen = named if named or name else list(layers)
    if len(chosen) != 1:
        todo = "Name the layer of the entities with --label-column"
        raise data_error(path, None, f"the layers are {list_names(layers)}", f"one layer {name or ''}".rstrip(), todo)
    if others := [one for one in layers if one != chosen[0]]:
        notes.append(f"left out: the layers {list_names(others)}; {chosen[0]!r} was taken for the entities")
    return chosen[0]


def read_webanno(path: str | Path, asked: Sequence[str | None], notes: list[str]) -> Found:
    """The sentences of a WebAnno TSV 3 file with the annotations of a layer of spans."""
    columns: dict[str, int] = {}
    width, layer, left = 3, "", 0
    for blank, lines in groupby(read_lines(path), lambda pair: not pair[1].strip()):
        block = [] if blank else list(lines)
        for _, line in block:
            if match := re.match(r"#T_(SP|CH|RL)=(.*)", line):
                name, *features = match[2].split("|")
                features = list(filter(None, features)) or [""]
                columns |= {name: width + ("value" in features and features.index("value"))} if match[1] == "SP" else {}
                width += len(features)
        rows = [(number, line.split("\t")) for number, line in block if not line.startswith("#")]
        if not rows:
            continue
        layer = layer or _layer(list(columns), asked, path, notes)
        said = "\n".join(line.removeprefix("#Text=") for _, line in block if line.startswith("#Text="))
        text, marks = _ESCAPED.sub(lambda match: _CODES.get(match[1], match[1]), said), dict[Any, Mark]()
        first, units = rows[0][1], text.encode("utf-16-le")  # of two bytes, which offsets count
        base = 2 * int(first[1].partition("-")[0]) - len(text[: text.index(first[2])].encode("utf-16-le"))
        for number, cells in rows:
            ends = [units[: 2 * int(offset) - base] for offset in cells[1].split("-")]
            start, end = (len(until.decode("utf-16-le", "ignore")) for until in ends)
            for one in _BAR.split(cells[columns[layer]]):
                match = _NUMBERED.fullmatch(one)
                label = _ESCAPED.sub(r"\1", match[1] if match else one)
                left += label == "*"
                if label not in ("_", "*", ""):
                    key = (match[2], label) if match else (number, label)
                    marks.setdefault(key, {"start": start, "end": end, "label": label})["end"] = end
        yield rows[0][0], {"text": text, "entities": list(marks.values()), "file": Path(path).name}
    if left:
        notes.append(f"left out: {left} annotations without a value")
