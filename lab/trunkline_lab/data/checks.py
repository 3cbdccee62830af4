"""Checks of public data sets by their cards, and what of them nothing may be learnt from."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from trunkline.data.checks import TRAIN, Finding, check_overlap, check_splits
from trunkline.data.overlap import OverlapIndex, decontaminate, example_texts
from trunkline.errors import TrunklineError
from trunkline.text.examples import Example
from trunkline_lab.data.cards import Card, list_cards, load_card

Say = Callable[[str], None]

_REPAIRS = re.compile(r"(?P<path>.*): (?P<count>\d+) tags broke the rules of (?P<scheme>\w+)")


def check_data(
    names: Sequence[str], *, all_cards: bool = False, sources: bool = False, say: Say = lambda text: None
) -> list[dict[str, Any]]:
    """Checks data sets by their cards.

    Args:
        names: Cards by name or path.
        all_cards: Also check all cards of the package. What of these cannot be read is a finding.
        sources: With `all_cards`, also the pre-finetuning sources; and compare every source with the dev and test
            splits of all task cards.
        say: Receives lines of progress.

    Returns:
        For each data set: name, title, role, family, quirks, counts (split -> loaded, expected), published (split ->
        examples before the card divides it) and findings, see `Finding`.

    Raises:
        TrunklineError: Nothing to check, or no such card.
        DataError: A named card whose files are missing or malformed; with `all_cards` that is a finding.
    """
    cards = [load_card(name) for name in names]
    if all_cards:
        known = {card.name for card in cards}
        found = [load_card(name) for name in list_cards() if name not in known]
        cards += [card for card in found if sources or card.role == "task"]
    if not cards:
        raise TrunklineError("no data set is named", expected="the names of cards, or --all")
    index = _index_of_tasks(say) if sources and any(card.role == "source" for card in cards) else None
    reports = []
    for number, card in enumerate(cards, start=1):
        say(f"{card.name} ({number} of {len(cards)})")
        reports.append(_check_card(card, card.name not in names and all_cards, index))
    return reports


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


def held_out_splits(splits: Iterable[str]) -> list[str]:
    """The splits that nothing may be learnt from: all whose name does not begin with `train`."""
    return [split for split in splits if not split.startswith("train")]


def tasks_here() -> list[str]:
    """The cards of tasks whose dev and test splits are on this machine."""
    tasks = [card for card in map(load_card, list_cards()) if card.role == "task"]
    return [card.name for card in tasks if set(held_out_splits(card.splits)) <= set(card.splits_here())]


def held_out_texts(card: Card) -> Iterator[tuple[str, str]]:
    """Yields owner (`CARD@SPLIT`) and text of all dev and test examples of a card."""
    for split in held_out_splits(card.splits):
        for example in card.load(split):
            for text in example_texts(example):
                yield f"{card.name}@{split}", text


def _check_card(card: Card, lenient: bool, index: OverlapIndex | None) -> dict[str, Any]:
    chosen = card.splits_here() if lenient else list(card.splits)
    absent = [split for split in card.splits if split not in chosen]
    message = f"not here and so not checked: {', '.join(absent)}; from {card.home}"
    extra = [Finding("files", "warning", "all", len(absent), None, message)] if absent else []
    if not chosen:
        return _plain(card, {}, extra, {})
    splits: dict[str, Sequence[Example]] = {}
    with collect_repairs() as repairs:
        try:
            for split in chosen:
                splits[split] = card.load(split)
        except TrunklineError as error:
            if not lenient:
                raise
            finding = Finding("files", "error", "all", 0, None, str(error))
            return _plain(card, {}, [finding], {})
    extra += [*_transitions(repairs, splits), *_published(card, splits)]
    if index is not None and card.role == "source":
        extra += _touching(splits, index)
    findings = check_splits(splits, role=card.role, extra=extra)
    counts = {split: len(examples) for split, examples in splits.items()}
    return _plain(card, counts, _waived(findings, card.waive), _published_counts(card, splits))


def _waived(findings: Iterable[Finding], reasons: Mapping[str, str]) -> Iterator[Finding]:
    """Marks the findings whose check has a reason in the card; a reason without a finding becomes a warning."""
    seen = set()
    for item in findings:
        seen.add(item.check)
        waived = item.check in reasons and item.severity != "error"
        yield replace(item, waived=reasons[item.check]) if waived else item
    for check in reasons.keys() - seen:
        message = f"the card waives {check}, which is not found: remove the waiver"
        yield Finding("unused_waiver", "warning", "all", 1, None, message)


def _published_counts(card: Card, splits: Mapping[str, Sequence[Example]]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for split, examples in splits.items():
        base = card.resplit[split].source if split in card.resplit else split
        counts[base] = counts.get(base, 0) + len(examples)
    return counts


def _published(card: Card, splits: Mapping[str, Sequence[Example]]) -> list[Finding]:
    """The overlap of the published splits, where the card takes other splits out of train."""
    taken = [split for split, rule in card.resplit.items() if rule.source == TRAIN and split in splits]
    scored = [split for split in card.files if split in splits and not split.startswith(TRAIN)]
    if not taken or not scored or TRAIN not in splits:
        return []
    published = [example for split in (TRAIN, *taken) for example in splits[split]]
    return list(check_overlap({split: splits[split] for split in scored}, "published", published, "warning"))


def _touching(splits: Mapping[str, Sequence[Example]], index: OverlapIndex) -> list[Finding]:
    findings = []
    for split, examples in splits.items():
        _, kinds, owners = decontaminate(examples, index)
        if not (count := kinds.total()):
            continue
        listed = ", ".join(f"{owner} {number}" for owner, number in owners.most_common(3))
        message = f"touch a dev or test text of a task ({listed}); decontamination removes them"
        details = {"by_kind": dict(kinds.most_common()), "by_owner": dict(owners.most_common())}
        share = count / len(examples)
        findings.append(Finding("touches_tasks", "warning", split, count, share, message, details=details))
    return findings


def _index_of_tasks(say: Say) -> OverlapIndex:
    tasks = [card for card in map(load_card, list_cards()) if card.role == "task"]
    here = tasks_here()
    say(f"indexing the dev and test texts of {len(here)} task cards")
    if missing := [card.name for card in tasks if card.name not in here]:
        say(f"not here and so not compared with: {', '.join(missing)}")
    index = OverlapIndex()
    for name in here:
        try:
            index.add(held_out_texts(load_card(name)))
        except TrunklineError as error:
            say(f"{name} is left out of the comparison: {error}")
    return index


def _plain(
    card: Card, counts: Mapping[str, int], findings: Iterable[Finding], published: Mapping[str, int]
) -> dict[str, Any]:
    """What `check_data` returns of a card, as plain data."""
    return {
        "name": card.name,
        "title": card.title,
        "role": card.role,
        "family": card.family,
        "quirks": list(card.quirks),
        "published": published,
        "counts": {split: {"loaded": n, "expected": card.counts.get(split)} for split, n in counts.items()},
        "findings": [asdict(item) for item in findings],
    }


def shown(report: Mapping[str, Any]) -> dict[str, Any]:
    """A report of `check_data` as `print_reports` takes it, with what its card says in `about`."""
    counts = {split: count["loaded"] for split, count in report["counts"].items()}
    expected = {split: count["expected"] for split, count in report["counts"].items()}
    others = [f"{split}: {n} expected" for split, n in expected.items() if n not in (None, counts[split])]
    published = {split: n for split, n in report["published"].items() if n != counts[split]}
    parts = [f"{split}: {n} published, of which the card sets parts aside" for split, n in published.items()]
    return {**report, "counts": counts, "about": [report["role"], *report["quirks"], *others, *parts]}


def _transitions(repairs: Mapping[str, tuple[int, str]], splits: Mapping[str, Sequence[Example]]) -> list[Finding]:
    """A finding for each file some of whose tags were repaired, see `collect_repairs`."""
    total = sum(len(getattr(example, "words", ())) for examples in splits.values() for example in examples)
    findings = []
    for path, (count, scheme) in repairs.items():
        message = f"tags of {Path(path).name} break the rules of {scheme}; the reader repairs them"
        findings.append(
            Finding("invalid_transitions", "warning", "all", count, count / total if total else None, message, (path,))
        )
    return findings
