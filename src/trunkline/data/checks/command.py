"""`trunkline check`: the checks of a user's own files, as plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trunkline.data.checks.findings import check_splits
from trunkline.data.checks.report import Finding
from trunkline.data.labelled import Loaded
from trunkline.data.load import read_examples
from trunkline.errors import TrunklineError


def check(
    train: str | Path | None = None,
    dev: str | Path | None = None,
    test: str | Path | None = None,
    *,
    family: str | None = None,
    **columns: str | None,
) -> dict[str, Any]:
    """Checks files for leaks between them, repeated texts, conflicting, rare and unknown labels, and damage.

    Args:
        train: The file that is learnt from; what `trunkline.data.load.read_examples` accepts.
        dev: The file that settings are chosen on.
        test: The file that is scored.
        family: `classification`, `ner` or `qa`; found by content where it is not given.
        columns: `text_column`, `label_column` and `delimiter`, as for `read_examples`.

    Returns:
        `name`, `family`, `kinds` (split -> what its file was taken for), `counts` (split -> examples) and `findings`,
        see `trunkline.data.checks.report.Finding`.

    Raises:
        TrunklineError: No file is named.
        DataError: Files that are missing or malformed.
    """
    given = {split: spec for split, spec in (("train", train), ("dev", dev), ("test", test)) if spec is not None}
    loaded: dict[str, Loaded] = {}
    for split, spec in given.items():
        loaded[split] = read_examples(spec, family, **columns)
        family = loaded[split].family
    if not given:
        raise TrunklineError("no file is named", expected="--train, and --dev and --test where there are such files")
    notes = [Finding("reading", "warning", s, 1, None, note) for s, part in loaded.items() for note in part.notes]
    name = Path(str(next(iter(given.values())))).name
    report = check_splits(name, {split: part.examples for split, part in loaded.items()}, extra=notes)
    return {**report.as_dict(), "family": family, "kinds": {split: part.kind for split, part in loaded.items()}}


def exit_code(reports: Sequence[Mapping[str, Any]]) -> int:
    """1 if any report has a leak or an error that is not waived, else 0."""
    findings = [finding for report in reports for finding in report["findings"]]
    return int(any(item["severity"] in ("leak", "error") and item["waived"] is None for item in findings))
