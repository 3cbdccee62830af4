"""Where the files of public data sets come from, where they belong, and whether those here are the ones that count.

The files that the published numbers came from are named in the cards, with their sizes and SHA-256. Run as a module,
`python -m trunkline_lab.data.where [CARD ...]` writes them there, of the files in the data folder.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from trunkline.bundle.files import write_atomic
from trunkline_lab.data.cards import CARDS, Card, list_cards, load_card


def where(names: Sequence[str] = ()) -> list[dict[str, Any]]:
    """The files of data sets and their state on this machine.

    Args:
        names: Cards by name or path; all that come with the lab by default.

    Returns:
        A row a card that has published files: `name`, `title`, `home`, `licence`, and `files`, each with `path`
        (relative to the data folder), `bytes`, `sha256`, and `state`: `verified`, `differs`, or `missing`.

    Raises:
        TrunklineError: No such card.
    """
    cards = [load_card(name) for name in names or list_cards()]
    return [
        {
            "name": card.name,
            "title": card.title,
            "home": card.home,
            "licence": card.licence,
            "files": [
                {"path": path, **file.model_dump(), "state": _state(card.locate(path), file.bytes, file.sha256)}
                for path, file in card.published.items()
            ],
        }
        for card in cards
        if card.published or names
    ]


def record(card: Card) -> dict[str, dict[str, Any]]:
    """Sizes and SHA-256 of all files in the data folder that a card reads, those beside its files included."""
    files = {}
    for ref in (ref for refs in card.files.values() for ref in refs):
        for path in card.paths(ref):
            file = card.locate(path)
            if file is not None and file.is_file() and not path.startswith(("trunkline:", "./", "/")):
                files[path] = {"bytes": file.stat().st_size, "sha256": sha256_of(file)}
    return dict(sorted(files.items()))


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's content."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _state(path: Path | None, size: int, sha256: str) -> str:
    if path is None or not path.is_file():
        return "missing"
    return "verified" if path.stat().st_size == size and sha256_of(path) == sha256 else "differs"


def main(names: Sequence[str]) -> None:
    """Writes the block `published` at the end of the cards' files."""
    for name in names or list_cards():
        path = CARDS / f"{name}.yaml"
        kept = path.read_text("utf-8").partition("\npublished:\n")[0].rstrip() + "\n"
        raw = yaml.safe_load(kept)
        found = record(load_card(name)) if "files" in raw else {}
        rows = [f"  {file}: {{bytes: {facts['bytes']}, sha256: {facts['sha256']}}}\n" for file, facts in found.items()]
        write_atomic(path, kept + ("published:\n" + "".join(rows) if rows else ""))


if __name__ == "__main__":
    main(sys.argv[1:])
