"""Utterances with an intent and marked entities: Rasa and Snips in YAML; texts behind labels, as fastText has them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from trunkline.data.formats import Found, read_text
from trunkline.data.load import read_lines, read_rows
from trunkline.data.values import data_error, shorten

_RASA = re.compile(r"\[(?P<text>[^\]]+?)\](?:\((?P<label>[^:)]+?)(?::[^)]+)?\)|\{(?P<keys>[^}]+)\})")
_RASA_KEY = re.compile(r"[\"']?entity[\"']?\s*:\s*[\"']?([^\"',}]+)")
_SNIPS = re.compile(r"\[(?P<label>[^\]:]+)(?::[^\]]+)?\]\((?P<text>[^)]+)\)")
_LABELS = re.compile(r"((?:__label__\S+\s+)+)(.*)", re.DOTALL)
_COMMENTS = re.compile(r"(?:\s+__comment__.*)?\s*\Z", re.DOTALL)


def read_rasa(path: str | Path, asked: Sequence[str | None], notes: list[str]) -> Found:
    """The examples of the intents of Rasa's YAML, with their entities; synonyms, lookups and patterns are left out."""
    source = read_text(path)
    blocks = list(chain.from_iterable(part.get("nlu") or () for part in _documents(source, path)))
    given = [(one["intent"], one.get("examples") or "") for one in blocks if "intent" in one]
    notes += [f"left out: {n} blocks without an intent, such as synonyms"] if (n := len(blocks) - len(given)) else []
    texts = [(name, own.split("\n") if isinstance(own, str) else [one["text"] for one in own]) for name, own in given]
    return _records(source, [(name, text.strip().removeprefix("- ")) for name, own in texts for text in own], _RASA)


def read_snips(path: str | Path, asked: Sequence[str | None], notes: list[str]) -> Found:
    """The utterances of the intents of Snips' YAML, with their slots; entities by themselves are left out."""
    source = read_text(path)
    parts = _documents(source, path)
    intents = [part for part in parts if part.get("type") == "intent"]
    notes += [f"left out: {n} entities that have no utterances"] if (n := len(parts) - len(intents)) else []
    return _records(source, [(one["name"], text) for one in intents for text in one.get("utterances") or ()], _SNIPS)


def _documents(source: str, path: str | Path) -> list[dict[str, Any]]:
    import yaml

    try:
        # Scalars are text: `no` and `001` are names like others.
        return [part for part in yaml.load_all(source, Loader=yaml.BaseLoader) if isinstance(part, dict)]
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        given = f"the file is not YAML ({getattr(error, 'problem', error)})"
        raise data_error(path, mark.line + 1 if mark else None, given, "YAML as the tool writes it") from None


def _records(source: str, said: Sequence[tuple[str, str]], pattern: re.Pattern[str]) -> Found:
    """Utterances without the marks of their entities, with these and the intent, and the lines where they stand."""
    position = 0
    for intent, utterance in said:
        text, marks, end, marked = "", list[Any](), 0, utterance.strip()
        position = max(source.find(marked, position), position)
        for match in pattern.finditer(marked):
            text += marked[end : match.start()]
            inner = _RASA_KEY.search(match.groupdict().get("keys") or "")
            label = match["label"] or (inner[1] if inner else "")
            marks.append([len(text), len(text) + len(match["text"]), label.strip()])
            text, end = text + match["text"], match.end()
        if marked:
            line = source.count("\n", 0, position) + 1
            yield line, {"text": text + marked[end:], "intent": intent, "entities": marks}


def read_fasttext(path: str | Path, asked: Sequence[str | None], notes: list[str]) -> Found:
    """The lines of fastText: labels, each after `__label__`, and the text; quoted where doccano wrote it."""
    lines = list(read_lines(path))
    quoted = any(line.startswith('"__label__') for _, line in lines)
    rows = read_rows(lines, ",", path) if quoted else ((number, [line]) for number, line in lines if line.strip())
    comments = 0
    for number, (line, *_) in rows:
        match = _LABELS.fullmatch(line)
        if not match:
            raise data_error(path, number, f"the line is {shorten(line)}", "__label__NAME and a text", "Mend the line")
        text = _COMMENTS.sub("", match[2])
        comments += "__comment__" in match[2]
        labels = [label.removeprefix("__label__") for label in match[1].split()]
        yield number, {"text": text, "label": labels}
    if comments:
        notes.append(f"left out: the comments of {comments} texts")
