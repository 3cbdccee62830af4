"""`trunkline check-data`: the checks of a user's own files, as plain data."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trunkline.data.checks.findings import check_splits
from trunkline.data.checks.report import Finding, Report
from trunkline.data.load import load_examples
from trunkline.errors import TrunklineError
from trunkline.text.examples import Example

CountTokens = Callable[[str], int]
Say = Callable[[str], None]

_REPAIRS = re.compile(r"(?P<path>.*): (?P<count>\d+) tags broke the rules of (?P<scheme>\w+)")


def check_files(
    parts: Mapping[str, str | None],
    family: str,
    *,
    name: str = "data",
    count_tokens: CountTokens | None = None,
    say: Say = lambda text: None,
) -> dict[str, Any]:
    """Checks a user's own files.

    Args:
        parts: `train`, `dev`, `test`: what `load_examples` accepts, or None.
        family: `ner`, `classification` or `pairs`.
        name: What to call the data set.
        count_tokens: Tokens of a text with the special ones; estimated from the words without it.
        say: Receives lines of progress.

    Returns:
        Name, title, role, family, quirks, counts (split -> loaded, expected: None here), published and findings, see
        `Finding`.

    Raises:
        TrunklineError: No part, or a family that is not known.
        DataError: Files that are missing or malformed.
    """
    given = {split: spec for split, spec in parts.items() if spec}
    if not given:
        raise TrunklineError("no file is named", expected="--train, and --dev and --test where there are such files")
    splits: dict[str, Sequence[Example]] = {}
    with collect_repairs() as repairs:
        for split, spec in given.items():
            say(f"reading {spec}")
            splits[split] = load_examples(spec, family)
    role = "source" if family in ("pairs", "plain") else "task"
    report = check_splits(name, splits, role=role, count_tokens=count_tokens, extra=repaired_tags(repairs, splits))
    return plain_report(
        report, {"title": name, "role": role, "family": family, "quirks": [], "expected": {}, "published": {}}
    )


def exit_code(reports: Sequence[Mapping[str, Any]]) -> int:
    """1 if any report has a leak or an error that is not waived, else 0."""
    findings = [finding for report in reports for finding in report["findings"]]
    return int(any(item["severity"] in ("leak", "error") and item["waived"] is None for item in findings))


@contextmanager
def collect_repairs() -> Iterator[dict[str, tuple[int, str]]]:
    """Collects what readers warn of tags that they repaired: file -> (number of tags, scheme); keeps it off the log."""
    found: dict[str, tuple[int, str]] = {}

    def keep(record: logging.LogRecord) -> bool:
        match = _REPAIRS.match(record.getMessage())
        if match:
            found[match["path"]] = int(match["count"]), match["scheme"]
        return match is None

    logger = logging.getLogger("trunkline.data")
    level = logger.level
    logger.addFilter(keep)
    if not logger.isEnabledFor(logging.WARNING):
        logger.setLevel(logging.WARNING)
    try:
        yield found
    finally:
        logger.removeFilter(keep)
        logger.setLevel(level)


def plain_report(report: Report, facts: Mapping[str, Any]) -> dict[str, Any]:
    """A report as plain data, with what is known of the data set beside it (`facts`, see `check_files`)."""
    counts = {split: {"loaded": n, "expected": facts["expected"].get(split)} for split, n in report.counts.items()}
    rest = {key: value for key, value in facts.items() if key != "expected"}
    return {"name": report.name, **rest, "counts": counts, "findings": report.as_dict()["findings"]}


def repaired_tags(repairs: Mapping[str, tuple[int, str]], splits: Mapping[str, Sequence[Example]]) -> list[Finding]:
    """A finding for each file some of whose tags were repaired, see `collect_repairs`."""
    total = sum(len(getattr(example, "words", ())) for examples in splits.values() for example in examples)
    findings = []
    for path, (count, scheme) in repairs.items():
        message = f"tags of {Path(path).name} break the rules of {scheme}; the reader repairs them"
        findings.append(
            Finding("invalid_transitions", "warning", "all", count, count / total if total else None, message, (path,))
        )
    return findings
