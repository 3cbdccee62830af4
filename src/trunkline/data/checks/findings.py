"""The checks of one data set: what its splits share, its texts and its labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from trunkline.data.checks.labels import check_conflicts, check_label_sets
from trunkline.data.checks.overlap import Match, OverlapIndex, match_key, normalise
from trunkline.data.checks.report import (
    SAMPLES,
    Finding,
    Report,
    Severity,
    apply_waivers,
    example_texts,
    shorten,
    whole_text,
)
from trunkline.data.checks.texts import (
    MAX_TOKENS,
    check_duplicates,
    check_empty,
    check_encoding,
    check_language,
    check_truncation,
)
from trunkline.text.examples import Example

__all__ = ["Finding", "Report", "check_overlap", "check_splits", "index_split"]

TRAIN = "train"
LONG = 5
_RANK = {"exact": 0, "normalised": 1, "near": 2}


def check_splits(
    name: str,
    splits: Mapping[str, Sequence[Example]],
    *,
    role: str = "task",
    max_tokens: int = MAX_TOKENS,
    count_tokens: Callable[[str], int] | None = None,
    waive: Mapping[str, str] | None = None,
    extra: Sequence[Finding] = (),
) -> Report:
    """Runs all checks that need nothing but the examples.

    Args:
        name: The data set.
        splits: Split -> its examples. Splits whose name begins with `train` are learnt from, the others are scored or
            chosen by.
        role: `task`, where an overlap with train is a leak, or `source`, where it is a warning.
        max_tokens: The encoder's window.
        count_tokens: Tokens of a text with the special ones; estimated from the words without it.
        waive: Check -> why its findings are accepted.
        extra: Findings of others, which go first and can be waived, too.
    """
    findings = [*extra, *check_overlaps(splits, role=role)]
    for split, examples in splits.items():
        wholes = [whole_text(example) for example in examples]
        if not wholes:
            findings.append(Finding("empty_split", "error", split, 0, None, "the split has no example"))
            continue
        sides = [text for example in examples for text in example_texts(example)]
        findings += check_empty(split, sides)
        findings += check_duplicates(split, wholes)
        findings += check_truncation(split, sides, count_tokens, max_tokens)
        findings += check_language(split, wholes)
        findings += check_encoding(split, wholes)
    findings += check_conflicts(splits)
    findings += check_label_sets(splits, TRAIN)
    order = list(dict.fromkeys(item.check for item in findings))
    findings.sort(key=lambda item: order.index(item.check))
    counts = {split: len(examples) for split, examples in splits.items()}
    return Report(name, counts, tuple(apply_waivers(findings, waive or {})))


def check_overlaps(splits: Mapping[str, Sequence[Example]], *, role: str = "task") -> list[Finding]:
    """Texts of test and dev that are in train, and of test that are in dev."""
    held_out = [split for split, examples in splits.items() if examples and not split.startswith(TRAIN)]
    findings = []
    if splits.get(TRAIN) and held_out:
        index = index_split(TRAIN, splits[TRAIN])
        for split in held_out:
            findings += check_overlap(split, splits[split], TRAIN, index, "leak" if role == "task" else "warning")
    if splits.get("dev") and splits.get("test"):
        findings += check_overlap("test", splits["test"], "dev", index_split("dev", splits["dev"]), "warning")
    return findings


def check_overlap(
    split: str, examples: Sequence[Example], other: str, index: OverlapIndex, severity: Severity
) -> list[Finding]:
    """The texts of a split that an index over another one has, as the finding `SPLIT_in_OTHER`.

    Counted are distinct texts (distinct after normalisation) of the split, as a share of all of them. `details` has the
    numbers by kind, the examples that have these texts, and `long_share`: among the distinct texts of at least `LONG`
    words (between blanks, as the file has them) those found exactly or normalised, because headings and the like recur
    without being leaks.
    """
    texts = [whole_text(example) for example in examples]
    best: dict[str, tuple[str, Match | None]] = {}
    touched = 0
    for text, match in zip(texts, index.find(texts), strict=True):
        touched += match is not None
        key = match_key(normalise(text)) or text.strip()
        before = best.get(key, ("", None))[1]
        if key not in best or (match and (before is None or _RANK[match.kind] < _RANK[before.kind])):
            best[key] = text, match
    kinds = {kind: [(t, m) for t, m in best.values() if m and m.kind == kind] for kind in _RANK}
    found = sum(map(len, kinds.values()))
    if not found:
        return []
    long = [m for t, m in best.values() if len(t.split()) >= LONG]
    long_same = sum(m is not None and m.kind != "near" for m in long)
    same = len(kinds["exact"]) + len(kinds["normalised"])
    long_share = long_same / len(long) if long else 0.0
    message = (
        f"{len(kinds['exact'])} exactly, {len(kinds['normalised'])} but for case, blanks or punctuation, "
        f"{len(kinds['near'])} nearly; of texts with {LONG} words or more {100 * long_share:.1f} % recur word for word"
    )
    ordered = [*kinds["exact"], *kinds["normalised"], *kinds["near"]]
    ordered.sort(key=lambda item: (_RANK[item[1].kind], -len(item[0])))
    picked = [next((item for item in ordered if item[1].kind == kind), None) for kind in _RANK]
    samples = [
        f"{m.kind}: {shorten(t)}" + (f" <- {shorten(m.text)}" if m.kind != "exact" else "")
        for t, m in filter(None, picked)
    ]
    details = {
        **{kind: len(items) for kind, items in kinds.items()},
        "same": same,
        "distinct": len(best),
        "examples": touched,
        "long_same": long_same,
        "long_distinct": len(long),
        "long_share": long_share,
    }
    check = f"{split}_in_{other}"
    return [Finding(check, severity, split, found, found / len(best), message, tuple(samples[:SAMPLES]), None, details)]


def index_split(owner: str, examples: Sequence[Example]) -> OverlapIndex:
    """Indexes the examples of a split, one text an example."""
    return OverlapIndex.build((owner, whole_text(example)) for example in examples)
