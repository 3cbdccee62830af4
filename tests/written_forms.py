"""Texts with entities as files of every form that is read, each as its tool writes it."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable, Iterable, Sequence
from csv import DictWriter
from itertools import pairwise
from pathlib import Path
from typing import Any

from tagged import encode_tags

Entities = Sequence[tuple[int, int, str]]
Text = tuple[str, Entities]
Texts = Sequence[Text]

NAMED_ENTITY = "de.tudarmstadt.ukp.dkpro.core.api.ner.type.NamedEntity"


def tokens_of(text: str, entities: Entities) -> list[tuple[int, int]]:
    """What blanks, punctuation at ends and the borders of entities part."""
    cuts = {border for first, last, _ in entities for border in (first, last)}
    cuts |= {border for match in re.finditer(r"\S+?(?=[.,!?]?(?:\s|$))", text) for border in match.span()}
    places = sorted({*cuts, 0, len(text)})
    pieces = ((a, b) for a, b in pairwise(places) if text[a:b].strip())
    return [(a + len(text[a:b]) - len(text[a:b].lstrip()), a + len(text[a:b].rstrip())) for a, b in pieces]


def tagged(text: str, entities: Entities, scheme: str = "BIO") -> tuple[list[str], list[str]]:
    """The tokens of a text and a tag for each."""
    places = tokens_of(text, entities)
    starts, ends = [a for a, _ in places], [b for _, b in places]
    spans = [(starts.index(a), ends.index(b) + 1, label) for a, b, label in entities]
    return [text[a:b] for a, b in places], encode_tags(len(places), spans, scheme)  # type: ignore[arg-type]


def units(text: str) -> int:
    """The length of a text in UTF-16."""
    return len(text.encode("utf-16-le")) // 2


def docbin(folder: Path, texts: Texts) -> Path:
    from spacy.tokens import Doc, DocBin
    from spacy.vocab import Vocab

    held, vocab = DocBin(), Vocab()
    for text, entities in texts:
        places = tokens_of(text, entities)
        doc = Doc(vocab, [text[a:b] for a, b in places], [text[b : b + 1] == " " for _, b in places])
        assert doc.text.rstrip() == text.rstrip()
        doc.ents = [doc.char_span(*one) for one in entities]  # type: ignore[assignment]
        held.add(doc)
    held.to_disk(folder / "a.spacy")
    return folder / "a.spacy"


def cas(folder: Path, texts: Texts, *, xmi: bool = True) -> Path:
    import cassis

    system = cassis.TypeSystem()
    named = system.create_type(NAMED_ENTITY)
    system.create_feature(named, "value", "uima.cas.String")
    sentence = system.create_type("de.tudarmstadt.ukp.dkpro.core.api.segmentation.type.Sentence")
    other = system.create_type("webanno.custom.Other")
    made, start = cassis.Cas(typesystem=system), 0
    made.sofa_string, made.sofa_mime = " ".join(text for text, _ in texts), "text/plain"
    for text, entities in texts:
        made.add(sentence(begin=start, end=start + len(text)))
        made.add(other(begin=start, end=start + len(text.split()[0])))
        for first, last, label in entities:
            made.add(named(begin=start + first, end=start + last, value=label))
        start += len(text) + 1
    system.to_xml(folder / "TypeSystem.xml")
    path = folder / ("a.xmi" if xmi else "a.json")
    (made.to_xmi if xmi else made.to_json)(path)
    return path


def brat(folder: Path, texts: Texts) -> Path:
    lines, start, text = list[str](), 0, ""
    for own, entities in texts:
        lines += [f"{label} {start + a} {start + b}\t{own[a:b]}" for a, b, label in entities]
        text += own + "\r\n"
        start = len(text)
    (folder / "brat").mkdir()
    (folder / "brat" / "a.txt").write_bytes(text.encode())
    marks = "".join(f"T{number}\t{line}\n" for number, line in enumerate(lines, start=1))
    (folder / "brat" / "a.ann").write_text(marks, encoding="utf-8")
    return folder / "brat"


def webanno(folder: Path, texts: Texts) -> Path:
    layers, start, group = ("webanno.custom.Pos|tag", f"{NAMED_ENTITY}|identifier|value"), 0, 0
    out = "#FORMAT=WebAnno TSV 3.3\n" + "".join(f"#T_SP={layer}\n" for layer in layers) + "\n"
    for number, (text, entities) in enumerate(texts, start=1):
        out += f"\n#Text={text}\n"
        marked = []
        for first, last, label in entities:
            group += 1
            escaped = label.replace("_", "\\_")
            marked.append((first, last, f"{escaped}[{group}]" if " " in text[first:last] else escaped))
        for count, (first, last) in enumerate(tokens_of(text, entities), start=1):
            value = next((label for a, b, label in marked if a <= first and last <= b), "_")
            offsets = "-".join(str(start + units(text[:at])) for at in (first, last))
            out += f"{number}-{count}\t{offsets}\t{text[first:last]}\tX\t*\t{value}\t\n"
        start += units(text) + 1
    return write(folder / "a.tsv", out)


def conllu(folder: Path, texts: Texts, *, said: bool = False) -> Path:
    """As stanza writes it."""
    out = ""
    for number, (text, entities) in enumerate(texts, start=1):
        out += f"# sent_id = {number}\n" + f"# text = {text}\n" * said
        places, (words, tags) = tokens_of(text, entities), tagged(text, entities)
        for count, (word, tag, (_, end)) in enumerate(zip(words, tags, places, strict=True), start=1):
            glued = "" if said or text[end : end + 1] == " " else "SpaceAfter=No|"
            out += f"{count}\t{word}\t_\tX\t_\t_\t0\tdep\t_\t{glued}ner={tag}\n"
        out += "\n"
    return write(folder / "a.conllu", out)


def conll(folder: Path, texts: Texts, scheme: str = "BIO", middle: str = "") -> Path:
    blocks = ("".join(f"{w}{middle} {t}\n" for w, t in zip(*tagged(*one, scheme), strict=True)) for one in texts)
    return write(folder / "a.conll", f"-DOCSTART-{middle} O\n\n" * bool(middle) + "\n".join(blocks))


def objects(entities: Entities, start: str = "start", end: str = "end") -> list[dict[str, Any]]:
    return [{start: first, end: last, "label": label} for first, last, label in entities]


def parquet(folder: Path, texts: Texts) -> Path:
    import pyarrow
    import pyarrow.parquet

    records = [{"text": text, "entities": objects(own)} for text, own in texts]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records), folder / "a.parquet")
    return folder / "a.parquet"


def saved(folder: Path, texts: Texts) -> Path:
    import datasets

    datasets.disable_progress_bars()
    kinds = datasets.List(datasets.ClassLabel(names=sorted({tag for one in texts for tag in tagged(*one)[1]})))
    features = datasets.Features({"tokens": datasets.List(datasets.Value("string")), "ner_tags": kinds})
    records = [dict(zip(("tokens", "ner_tags"), tagged(*one), strict=True)) for one in texts]
    columns = {key: [record[key] for record in records] for key in features}
    datasets.Dataset.from_dict(columns, features).save_to_disk(folder / "saved")
    return folder / "saved"


def label_studio_table(folder: Path, texts: Texts) -> Path:
    meta = dict.fromkeys(("annotation_id", "annotator", "created_at", "id", "lead_time", "updated_at"), "1")
    with (folder / "a.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = DictWriter(stream, ["text", "label", *meta])
        writer.writeheader()
        for text, own in texts:
            cells = [{"start": a, "end": b, "text": text[a:b], "labels": [label]} for a, b, label in own]
            cell = json.dumps(cells, separators=(",", ":"), ensure_ascii=False) if cells else ""
            writer.writerow({"text": text, "label": cell, **meta})
    return folder / "a.csv"


def label_studio(folder: Path, texts: Texts) -> Path:
    def task(text: str, entities: Entities) -> dict[str, Any]:
        marks = [{"start": a, "end": b, "text": text[a:b], "labels": [label]} for a, b, label in entities]
        found = [{"from_name": "label", "to_name": "text", "type": "labels", "value": mark} for mark in marks]
        return {"id": 1, "data": {"text": text}, "annotations": [{"was_cancelled": False, "result": found}]}

    return write(folder / "a.json", json.dumps([task(*one) for one in texts]))


def snips(folder: Path, texts: Texts) -> Path:
    said = []
    for text, entities in texts:
        data, end = [], 0
        for first, last, label in entities:
            data += [{"text": text[end:first]}, {"text": text[first:last], "entity": "x", "slot_name": label}]
            end = last
        said.append({"data": [*data, {"text": text[end:]}]})
    document = {"intents": {"a": {"utterances": said}}, "entities": {"x": {"data": []}}, "language": "en"}
    return write(folder / "a.json", json.dumps(document, indent=1))


def in_yaml(folder: Path, texts: Texts, tool: str) -> Path:
    lines = []
    for text, entities in texts:
        for first, last, label in reversed(entities):
            piece = text[first:last]
            marked = f"[{piece}]({label})" if tool == "rasa" else f"[{label}:x]({piece})"
            text = text[:first] + marked + text[last:]
        lines.append(f"    - {text}\n" if tool == "rasa" else f"  - {json.dumps(text, ensure_ascii=False)}\n")
    head = "version: '3.1'\nnlu:\n- synonym: x\n  examples: |\n    - y\n- intent: a\n  examples: |\n"
    head = head if tool == "rasa" else "# all\n---\ntype: intent\nname: a\nutterances:\n"
    return write(folder / "a.yml", head + "".join(lines))


def gliner(text: str, entities: Entities) -> dict[str, Any]:
    words, tags = tagged(text, entities, "BIOES")
    starts = [number for number, tag in enumerate(tags) if tag[0] in "BS"]
    ends = [number for number, tag in enumerate(tags) if tag[0] in "ES"]
    pairs = zip(starts, ends, entities, strict=True)
    return {"tokenized_text": words, "ner": [[first, last, label] for first, last, (*_, label) in pairs]}


def lines(make: Callable[[str, Entities], dict[str, Any]], name: str = "a.jsonl") -> Callable[[Path, Texts], Path]:
    """What writes JSON lines, each made of a text and its entities."""
    return lambda folder, texts: write(
        folder / name, "".join(json.dumps(make(*one), ensure_ascii=False) + "\n" for one in texts)
    )


def write(path: Path, content: str) -> Path:
    data = content.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def rasa_json(folder: Path, texts: Iterable[Text]) -> Path:
    said = [{"text": text, "intent": "a", "entities": [{"start": a, "end": b, "entity": label, "value": "x"}
             for a, b, label in own]} for text, own in texts]  # fmt: skip
    return write(folder / "a.json", json.dumps({"rasa_nlu_data": {"common_examples": said}}, indent=1))


WRITERS: dict[str, Callable[[Path, Texts], Path]] = {
    "docbin": docbin,
    "xmi": cas,
    "cas": lambda folder, texts: cas(folder, texts, xmi=False),
    "brat": brat,
    "webanno": webanno,
    "conllu": conllu,
    "conllu with text": lambda folder, texts: conllu(folder, texts, said=True),
    "parquet": parquet,
    "saved of tokens": saved,
    "table of Label Studio": label_studio_table,
    "json of Label Studio": label_studio,
    "json of Snips": snips,
    "json of Rasa": rasa_json,
    "rasa": lambda folder, texts: in_yaml(folder, texts, "rasa"),
    "snips": lambda folder, texts: in_yaml(folder, texts, "snips"),
    "json of objects": lines(lambda text, own: {"text": text, "entities": objects(own)}),
    "json, gzipped": lines(lambda text, own: {"text": text, "entities": own}, "a.ndjson.gz"),
    "json of doccano": lines(lambda text, own: {"id": 1, "text": text, "label": own, "Comments": []}),
    "json of doccano with relations": lines(
        lambda text, own: {"text": text, "entities": objects(own, "start_offset", "end_offset"), "relations": []}
    ),
    "json of Prodigy": lines(lambda text, own: {"text": text, "spans": objects(own), "answer": "accept"}),
    "json of tokens, GLiNER": lines(gliner),
    "json of tokens": lines(lambda *one: dict(zip(("tokens", "tags"), tagged(*one, "BILOU"), strict=True))),
    "conll of tokens": conll,
    "conll of tokens, IOB1": lambda folder, texts: conll(folder, texts, "IOB1"),
    "conll of tokens, BIOES": lambda folder, texts: conll(folder, texts, "BIOES"),
    "conll of tokens, more columns": lambda folder, texts: conll(folder, texts, "BILOU", " -X- _"),
    "conll of tokens, IO": lambda folder, texts: conll(folder, texts, "IO"),
}
"""A form, and more after a blank -> what writes texts with entities in it and gives the path.

Those `of tokens` say nothing of blanks.
"""
