"""Made-up splits of one data set, one text of which leaks, and the findings of a report by their check."""

from __future__ import annotations

from pathlib import Path
from typing import Any

LINES = [f"{word} boats sail on the wide lake near our town today" for word in ("one", "two", "six", "nine", "ten")]
OTHER = "where can I buy a ticket for the evening train to the coast"


def write_splits(folder: Path) -> Path:
    """Writes `train.csv`, `test.csv`, which has a text of it in capitals, and `clean.csv`, which has none."""
    parts = {"train": LINES, "test": [OTHER, LINES[0].upper()], "clean": [OTHER, "is there a boat to the island"]}
    for name, texts in parts.items():
        rows = "".join(f"{text},{'ab'[number % 2]}\n" for number, text in enumerate(texts))
        (folder / f"{name}.csv").write_text(f"text,label\n{rows}")
    return folder


def findings(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {item["check"]: item for item in report["findings"]}
