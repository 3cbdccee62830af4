"""Files of pairs, written as they come, and the card beside them."""

from __future__ import annotations

import json
import os
import re
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, overload

import yaml

from trunkline.atomic import write_atomic
from trunkline.data.files import read_bytes
from trunkline.errors import DataError, TrunklineError
from trunkline.text.examples import PairExample
from trunkline_lab.data.cards import Card, load_card, parse_card

_HEAD = "# Written by trunkline mine-pairs.\n"
_GROUP = "group"


def to_line(pair: PairExample, grouped: bool) -> bytes:
    """A pair as a JSON line; with `grouped` it has a group, be it an empty one."""
    record = {"left": pair.left, "right": pair.right, **({_GROUP: pair.group} if grouped else {})}
    return json.dumps(record, ensure_ascii=False).encode() + b"\n"


@contextmanager
def write_lines(path: Path) -> Iterator[Callable[[bytes], Any]]:
    """Writes a file piece by piece; it takes its name only when everything is in it.

    Yields:
        A function that writes some bytes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as stream:
            yield stream.write
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


class Spool(Sequence[PairExample]):
    """Pairs in a temporary file, read back by their number; eight bytes of each are in memory."""

    def __init__(self, stream: IO[bytes], grouped: bool) -> None:
        self._stream = stream
        self._grouped = grouped
        self._starts = array("q")

    def append(self, pair: PairExample) -> None:
        """Adds a pair at the end."""
        self._starts.append(self._stream.seek(0, os.SEEK_END))
        self._stream.write(to_line(pair, self._grouped))

    def line(self, index: int) -> bytes:
        """A pair as its JSON line."""
        self._stream.seek(self._starts[index])
        return self._stream.readline()

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, index: int) -> PairExample: ...
    @overload
    def __getitem__(self, index: slice) -> list[PairExample]: ...
    def __getitem__(self, index: int | slice) -> PairExample | list[PairExample]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        record = json.loads(self.line(index))
        return PairExample(record["left"], record["right"], record.get(_GROUP, ""))


def card_path(out: Path) -> Path:
    """Where the card of a file of pairs is written.

    Raises:
        DataError: The file has another ending than `.jsonl`, a name that no card can have, or there is a card that was
            not written here.
    """
    if out.suffix != ".jsonl" or not card_name(out):
        raise DataError("pairs are written as JSON lines", path=out, expected="a name such as my_pairs.jsonl")
    if out.is_dir():
        raise DataError("this is a folder", path=out, expected="the file to write")
    card = out.with_suffix(".yaml")
    if card.exists() and not read_bytes(card).startswith(_HEAD.encode()):
        raise DataError(
            "there is a card that mine-pairs did not write",
            path=card,
            expected="no card, or one of its own, which is replaced",
            todo="Choose another name for the output, or move the card away",
        )
    return card


def card_name(out: Path) -> str:
    """The file's name as a card's: lower case, with underscores."""
    return re.sub(r"[^a-z0-9]+", "_", out.stem.lower()).strip("_")


def write_card(out: Path, *, title: str, licence: str, quirks: Sequence[str], grouped: bool, count: int) -> Card:
    """Writes the card of a file of pairs and loads it again.

    Raises:
        RecipeError: The card would have problems.
    """
    raw = {
        "name": card_name(out),
        "title": title,
        "role": "source",
        "family": "classification",
        "kind": "pair",
        "home": "trunkline mine-pairs",
        "licence": licence,
        "files": {"train": f"./{out.name}"},
        "reader": "pair_jsonl",
        **({"options": {"group_key": _GROUP}} if grouped else {}),
        "quirks": list(quirks),
        "counts": {"train": count},
    }
    path = card_path(out)
    parse_card(raw, path)
    write_atomic(path, _HEAD + yaml.safe_dump(raw, sort_keys=False, allow_unicode=True, width=120))
    return load_card(path)


def nothing_kept(candidates: int, dropped: dict[str, int]) -> TrunklineError:
    """The error for an output that would be empty."""
    reasons = ", ".join(f"{number} {reason}" for reason, number in dropped.items())
    return TrunklineError(
        f"no pair is left of {candidates} candidates" + (f" ({reasons})" if reasons else ""),
        expected="at least one pair",
        todo="Check the columns and the method, lower min_words, raise max_words or top_k"
        if candidates
        else "Check that the method fits the data: passages need blank lines or line ends, duplicates shared values",
    )
