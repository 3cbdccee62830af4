"""What weak labelling leaves behind: JSON lines of sentences with spans, and the card that says how to read them."""

from __future__ import annotations

import json
import os
import re
import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import yaml

from trunkline.atomic import write_atomic
from trunkline.errors import DataError, TrunklineError
from trunkline.label.weak.config import WeakLabelConfig
from trunkline.text.examples import Span
from trunkline_lab.data.cards import load_card, parse_card

MADE_BY = "Labelled by trunkline weak-label"

Labelled = tuple[str, Sequence[Span]]
"""A sentence and its spans, which may overlap."""


@dataclass(frozen=True)
class Desk:
    """What a way of labelling works with besides its options and the sentences.

    Attributes:
        out: The output file; caches lie beside it.
        say: Takes a line of progress.
        confirm: Asks whether to go on.
        invalid: Counts what was unusable, by kind.
        facts: Other numbers for the report, by name.
    """

    out: Path
    say: Callable[[str], None]
    confirm: Callable[[str], bool]
    invalid: Counter[str] = field(default_factory=Counter)
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass
class Written:
    """Counts of what was written."""

    sentences: int = 0
    rows: int = 0
    labelled: int = 0
    spans: int = 0
    concepts: Counter[str] = field(default_factory=Counter)


def card_path(config: WeakLabelConfig, out: Path) -> Path:
    """Where the card goes, after checks that nothing of the user's would be overwritten.

    Raises:
        DataError: An output that is no `.jsonl` file, is also an input, or beside which lies a YAML file that weak
            labelling did not make.
    """
    if out.suffix != ".jsonl" or out.is_dir():
        raise DataError(
            "the output is a folder" if out.is_dir() else f"the output ends in {out.suffix or 'nothing'!r}",
            path=out,
            expected="a .jsonl file, beside which its card is written",
        )
    card = out.with_suffix(".yaml")
    inputs = [value for value in config.__dict__.values() if isinstance(value, Path)]
    clash = next((path for path in inputs if path.resolve() in (out.resolve(), card.resolve())), None)
    if clash is not None:
        raise DataError("the output would overwrite an input", path=clash, todo="Name another output")
    if card.exists() and MADE_BY not in card.read_text(encoding="utf-8", errors="replace"):
        raise DataError("this file is not ours and would be overwritten", path=card, todo="Name another output")
    return card


@contextmanager
def open_atomic(path: Path) -> Iterator[IO[str]]:
    """A text file (UTF-8) that takes its name when it is complete; an error leaves the old one.

    Raises:
        DataError: The file cannot be written.
    """
    part = path.parent / f".{path.name}.{secrets.token_hex(4)}.part"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("x", encoding="utf-8", newline="\n") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(path)
    except BaseException as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise DataError(f"the file cannot be written ({error.strerror or error})", path=path) from error
        raise


def write_labelled(out: Path, rows: Iterable[Labelled], *, keep_unlabelled: bool) -> Written:
    """Writes `{"text": ..., "spans": [[start, end, concept], ...]}` lines as they come.

    Raises:
        TrunklineError: No sentence at all, or none with a label; nothing is written then.
    """
    written = Written()
    with open_atomic(out) as stream:
        for text, found in rows:
            written.sentences += 1
            spans = sorted({(span.start, span.end, span.label) for span in found})
            written.labelled += bool(spans)
            written.spans += len(spans)
            written.concepts.update(label for *_, label in spans)
            if spans or keep_unlabelled:
                written.rows += 1
                stream.write(json.dumps({"text": text, "spans": spans}, ensure_ascii=False) + "\n")
        if not written.sentences:
            raise TrunklineError("there is no sentence to label", expected="text with letters in it")
        if not written.labelled:
            raise TrunklineError(
                f"none of {written.sentences} sentences got a label",
                expected="at least one",
                todo="Check that the text is in the language of the gazetteer or model, and the options",
            )
    return written


def write_card(config: WeakLabelConfig, out: Path, card: Path, rows: int, how: Sequence[str]) -> None:
    """Writes the card of an output: an open source, as what is unlabelled is unknown.

    Args:
        config: Gives name and licence.
        out: The JSON lines.
        card: Where to write, beside `out`.
        rows: Lines of `out`, which loading checks.
        how: Sentences on how the labels were made.
    """
    name = config.name or re.sub(r"[^a-z0-9]+", "_", out.stem.lower()).strip("_") or "weak_labels"
    raw = {
        "name": name,
        "title": f"Weakly labelled text ({config.method})",
        "role": "source",
        "family": "ner",
        "kind": "ner",
        "home": "",
        "licence": config.licence,
        "files": {"train": f"./{out.name}"},
        "reader": "spans",
        "options": {"entities_key": "spans", "overlap": "keep"},
        "coverage": "open",
        "quirks": [f"{MADE_BY}, by no person.", *how],
        "counts": {"train": rows},
    }
    parse_card(raw, card)
    write_atomic(card, yaml.safe_dump(raw, sort_keys=False, allow_unicode=True, width=100))
    load_card(card)
