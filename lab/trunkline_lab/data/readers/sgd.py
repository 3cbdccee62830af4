"""Schema-Guided Dialogue as JSON lines, one utterance a line: its slots, the turn that answers it, turns of one intent.

A line has the dialogue `d`, the speaker `sp`, the utterance `u`, the active intents `intent`
(`Restaurants_1/FindRestaurants`), the dialogue acts `acts` and the slots with a span, `spans` [start, end, slot, ...].
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import Field

from trunkline.errors import DataError
from trunkline.text.examples import NerExample, PairExample
from trunkline.text.words import split_words
from trunkline_lab.data.readers.base import FileOptions, get_key, read_json_lines, require_text, shorten
from trunkline_lab.data.readers.spans import trim_span


class SgdSpansOptions(FileOptions):
    """Options of slot spans."""

    keep_empty: bool = Field(default=False, description="Whether utterances without any slot are kept.")


def read_sgd_spans(path: str | Path, options: SgdSpansOptions) -> Iterator[NerExample]:
    """Yields the utterances; one text span may have several slots, where services name it differently."""
    for line, record in read_json_lines(path, encoding=options.encoding):
        text = get_key(record, "u", path, line)
        require_text(text, "utterance", path, line)
        entries = get_key(record, "spans", path, line)
        if not isinstance(entries, list) or not all(isinstance(item, list) and len(item) >= 3 for item in entries):
            raise DataError(
                f"the spans are {shorten(entries)}",
                path=path,
                line=line,
                expected="a list of [start, end, slot, service]",
            )
        spans = dict.fromkeys(trim_span(text, item[0], item[1], item[2], path, line) for item in entries)
        if spans or options.keep_empty:
            end = len(text.rstrip())
            yield NerExample(text[:end], split_words(text[:end]), tuple(spans))


class SgdTurnsOptions(FileOptions):
    """Options of dialogue turns."""

    min_words: int = Field(default=4, ge=1, description="Shorter turns, such as `Yes please`, say too little.")
    unique: bool = Field(default=True, description="Whether a pair that recurs word for word is given once.")


def read_sgd_turns(path: str | Path, options: SgdTurnsOptions) -> Iterator[PairExample]:
    """Yields each turn with the one that answers it."""
    before: tuple[object, str] = (None, "")
    seen: set[PairExample] = set()
    for line, record in read_json_lines(path, encoding=options.encoding):
        dialogue = get_key(record, "d", path, line)
        text = require_text(get_key(record, "u", path, line), "utterance", path, line)
        pair = PairExample(before[1], text)
        same = dialogue == before[0]
        before = dialogue, text
        if not same or min(len(pair.left.split()), len(pair.right.split())) < options.min_words:
            continue
        if options.unique and pair in seen:
            continue
        seen.add(pair)
        yield pair


_NUMBER = re.compile(r"_\d+(?=/)")
_NO_INTENT = "NONE"


class SgdSameIntentOptions(FileOptions):
    """Options of turns of one kind."""

    acts: tuple[str, ...] = Field(
        default=("INFORM_INTENT",), min_length=1, description="A turn has at least one of these acts."
    )
    slots: bool = Field(
        default=False, description="Whether a kind is intent, acts and slots, and only turns with a slot are used."
    )
    kinds: dict[str, str] = Field(
        default={}, description="Kinds by intent; of other intents the service's number is dropped."
    )
    per_turn: int = Field(default=2, ge=1, description="Pairs that begin with a turn.")
    min_words: int = Field(default=3, ge=1)


def read_sgd_same_intent(path: str | Path, options: SgdSameIntentOptions) -> Iterator[PairExample]:
    """Yields pairs of different turns of one kind; the kind is their group.

    A turn's partners are the next ones in an order that depends only on the texts. Turns with no intent or several,
    and those whose words recur under another kind, are left out.
    """
    kinds = _collect(path, options)
    for kind in sorted(kinds):
        texts = sorted(kinds[kind], key=lambda text: hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())
        # Beyond the middle of the circle, the pairs of before would come back the other way round.
        for step in range(1, min(options.per_turn, (len(texts) - 1) // 2 or len(texts) - 1) + 1):
            last = 1 if len(texts) == 2 else len(texts)
            for place, text in enumerate(texts[:last]):
                yield PairExample(text, texts[(place + step) % len(texts)], kind)


def _collect(path: str | Path, options: SgdSameIntentOptions) -> dict[str, list[str]]:
    """The turns of each kind, each wording once."""
    wordings: dict[str, tuple[str, set[str]]] = {}
    for line, record in read_json_lines(path, encoding=options.encoding):
        text = " ".join(require_text(get_key(record, "u", path, line), "utterance", path, line).split())
        kind = _kind(record, options, path, line)
        if kind and len(text.split()) >= options.min_words:
            wordings.setdefault(text.lower(), (text, set()))[1].add(kind)
    kinds: dict[str, list[str]] = defaultdict(list)
    for text, found in wordings.values():
        if len(found) == 1:
            kinds[found.pop()].append(text)
    return kinds


def _kind(record: dict[str, Any], options: SgdSameIntentOptions, path: str | Path, line: int) -> str:
    intents, acts = (_names(get_key(record, key, path, line), key, path, line) for key in ("intent", "acts"))
    if get_key(record, "sp", path, line) != "U" or len(set(intents)) != 1 or set(options.acts).isdisjoint(acts):
        return ""
    if intents[0].rpartition("/")[2] == _NO_INTENT:
        return ""
    kind = options.kinds.get(intents[0]) or _NUMBER.sub("", intents[0])
    if not options.slots:
        return kind
    spans = get_key(record, "spans", path, line)
    if not isinstance(spans, list) or not all(isinstance(item, list) and len(item) >= 3 for item in spans):
        raise DataError(
            f"the spans are {shorten(spans)}", path=path, line=line, expected="a list of [start, end, slot, service]"
        )
    slots = sorted({str(item[2]) for item in spans})
    return f"{kind} {'+'.join(sorted(set(acts)))} {'+'.join(slots)}" if slots else ""


def _names(values: Any, key: str, path: str | Path, line: int) -> list[str]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise DataError(f"{key} is {shorten(values)}", path=path, line=line, expected="a list of names")
    return values
