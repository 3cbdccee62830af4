"""Checks of labels: conflicting, never trained, rare, unbalanced."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from trunkline.data.checks.overlap import match_key, normalise
from trunkline.data.checks.report import SAMPLES, Finding, shorten, whole_text
from trunkline.text.examples import Example, NerExample, TextExample

RARE = 5
"""Training examples (entities for NER) below which a label is rare."""

IMBALANCE = 100
"""The ratio of the most to the least frequent label from which it is a warning."""

_LISTED = 8


def check_conflicts(splits: Mapping[str, Sequence[Example]]) -> list[Finding]:
    """Texts, the same after normalisation, with more than one label, or with other entities for NER."""
    seen: dict[str, dict[str, str]] = defaultdict(dict)
    where: dict[str, set[str]] = defaultdict(set)
    texts: dict[str, str] = {}
    for split, examples in splits.items():
        for example in examples:
            label = _annotation(example)
            if label is None:
                continue
            text = whole_text(example)
            key = match_key(normalise(text)) or text.strip()
            seen[key].setdefault(label, split)
            where[key].add(split)
            texts.setdefault(key, text)
    conflicts = [key for key, labels in seen.items() if len(labels) > 1]
    if not conflicts:
        return []
    samples = tuple(
        shorten(f"{texts[key]} -> {' / '.join(label or 'no entity' for label in list(seen[key])[:3])}")
        for key in conflicts[:SAMPLES]
    )
    across = sum(len(where[key]) > 1 for key in conflicts)
    what = "entities" if any(isinstance(e, NerExample) for part in splits.values() for e in part[:1]) else "labels"
    return [
        Finding(
            "conflicting_labels",
            "warning",
            "all",
            len(conflicts),
            len(conflicts) / len(seen),
            f"texts occur with different {what}, {across} of them across splits",
            samples,
            details={"distinct": len(seen), "across_splits": across},
        )
    ]


def check_label_sets(splits: Mapping[str, Sequence[Example]], train: str = "train") -> list[Finding]:
    """Labels of other splits that the training split does not have, rare ones, and how unbalanced they are."""
    counts = {split: count_labels(examples) for split, examples in splits.items()}
    known = counts.get(train)
    if not known:
        return []
    findings = []
    for split, labels in counts.items():
        missing = sorted(set(labels) - set(known))
        if missing and not split.startswith(train):
            findings.append(
                Finding(
                    "unseen_labels",
                    "warning",
                    split,
                    len(missing),
                    len(missing) / len(labels),
                    f"labels do not occur in {train}: {_list(missing)}",
                    details={"labels": missing},
                )
            )
    rare = sorted(label for label, count in known.items() if count < RARE)
    if rare:
        message = f"labels have fewer than {RARE} training examples: {_list(rare)}"
        findings.append(Finding("rare_labels", "warning", train, len(rare), len(rare) / len(known), message))
    (most, high), (least, low) = known.most_common(1)[0], min(known.items(), key=lambda item: (item[1], item[0]))
    ratio = high / low
    findings.append(
        Finding(
            "label_balance",
            "warning" if ratio >= IMBALANCE else "info",
            train,
            len(known),
            None,
            f"labels; {most!r} ({high}) is {ratio:.3g} times as frequent as {least!r} ({low})",
            details={"ratio": ratio, "most": most, "least": least, "counts": dict(known.most_common())},
        )
    )
    return findings


def count_labels(examples: Sequence[Example]) -> Counter[str]:
    """How often each label occurs, counting entities for NER."""
    counts: Counter[str] = Counter()
    for example in examples:
        if isinstance(example, NerExample):
            counts.update(span.label for span in example.spans)
        elif isinstance(example, TextExample):
            counts[example.label] += 1
    return counts


def _annotation(example: Example) -> str | None:
    if isinstance(example, TextExample):
        return example.label
    if isinstance(example, NerExample):
        spans = sorted(example.spans, key=lambda span: (span.start, span.end, span.label))
        return ", ".join(f"{normalise(example.text[span.start : span.end])}={span.label}" for span in spans)
    return None


def _list(labels: Sequence[str]) -> str:
    return ", ".join(labels[:_LISTED]) + (f" and {len(labels) - _LISTED} more" if len(labels) > _LISTED else "")
