"""User turns of the Schema-Guided Dialogue data that ask for the same: two turns with one intent are a pair.

The JSON lines have the speaker `sp`, the utterance `u`, the active intents `intent` (`Restaurants_1/FindRestaurants`),
the dialogue acts `acts` and the slots with a span, `spans`.
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
from trunkline.text.examples import PairExample
from trunkline_lab.data.readers.base import FileOptions, get_key, read_json_lines, require_some, require_text, shorten

_NUMBER = re.compile(r"_\d+(?=/)")
_NO_INTENT = "NONE"


class Options(FileOptions):
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


def read(path: str | Path, options: Options) -> Iterator[PairExample]:
    """Yields pairs of different turns of one kind; the kind is their group.

    A turn's partners are the next ones in an order that depends only on the texts. Turns with no intent or several,
    and those whose words recur under another kind, are left out.
    """
    return require_some(_pairs(path, options), path, what="pair of turns of one kind")


def _pairs(path: str | Path, options: Options) -> Iterator[PairExample]:
    kinds = _collect(path, options)
    for kind in sorted(kinds):
        texts = sorted(kinds[kind], key=lambda text: hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())
        # Beyond the middle of the circle, the pairs of before would come back the other way round.
        for step in range(1, min(options.per_turn, (len(texts) - 1) // 2 or len(texts) - 1) + 1):
            last = 1 if len(texts) == 2 else len(texts)
            for place, text in enumerate(texts[:last]):
                yield PairExample(text, texts[(place + step) % len(texts)], kind)


def _collect(path: str | Path, options: Options) -> dict[str, list[str]]:
    """The turns of each kind, each wording once."""
    wordings: dict[str, tuple[str, set[str]]] = {}
    for line, record in read_json_lines(path, options):
        text = " ".join(require_text(get_key(record, "u", path, line), "utterance", path, line).split())
        kind = _kind(record, options, path, line)
        if kind and len(text.split()) >= options.min_words:
            wordings.setdefault(text.lower(), (text, set()))[1].add(kind)
    kinds: dict[str, list[str]] = defaultdict(list)
    for text, found in wordings.values():
        if len(found) == 1:
            kinds[found.pop()].append(text)
    return kinds


def _kind(record: dict[str, Any], options: Options, path: str | Path, line: int) -> str:
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
            f"the spans are {shorten(spans)}",
            path=path,
            line=line,
            expected="a list of [start, end, slot, service]",
        )
    slots = sorted({str(item[2]) for item in spans})
    return f"{kind} {'+'.join(sorted(set(acts)))} {'+'.join(slots)}" if slots else ""


def _names(values: Any, key: str, path: str | Path, line: int) -> list[str]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise DataError(f"{key} is {shorten(values)}", path=path, line=line, expected="a list of names")
    return values
