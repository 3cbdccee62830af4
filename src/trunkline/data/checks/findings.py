"""The checks of one data set: what its splits share, its texts and its labels."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from trunkline.data.checks.overlap import Match, OverlapIndex, normalise, text_key
from trunkline.data.checks.report import CONTROL, SAMPLES, Finding, Report, Severity, shorten, whole_text
from trunkline.text.examples import Example, NerExample, TextExample

TRAIN = "train"
LONG = 5
"""Words from which a text recurs hardly by chance, as headings do."""

RARE = 5
"""Training examples (entities for NER) below which a label is rare."""

IMBALANCE = 100
"""The ratio of the most to the least frequent label from which it is a warning."""

NOTABLE = 0.01
"""The share of a split's texts from which repeated ones are a warning."""

_LISTED = 8
_RANK = {"exact": 0, "normalised": 1, "near": 2}
# UTF-8 that was read as Latin-1 or Windows-1252: a lead byte followed by its continuation bytes, as letters and signs.
_CONTINUATION = "[\u0080-\u00bf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ]"
_DAMAGE = (
    ("replacement_characters", re.compile("\ufffd"), "hold U+FFFD, so characters were lost"),
    (
        "mojibake",
        re.compile(f"[ÂÃ]{_CONTINUATION}|â{_CONTINUATION}{{2}}|ð{_CONTINUATION}{{3}}|ï¿½|ï»¿"),
        "hold UTF-8 that was read as Latin-1 or Windows-1252",
    ),
    ("control_characters", CONTROL, "hold control characters"),
)


def check_splits(
    name: str,
    splits: Mapping[str, Sequence[Example]],
    *,
    role: str = "task",
    extra: Sequence[Finding] = (),
) -> Report:
    """Runs all checks that need nothing but the examples.

    Args:
        name: The data set.
        splits: Split -> its examples. Splits whose name begins with `train` are learnt from, the others are scored or
            chosen by.
        role: `task`, where an overlap with train is a leak, or `source`, where it is a warning.
        extra: Findings of others, which go first.
    """
    findings = [*extra, *check_overlaps(splits, role=role)]
    for split, examples in splits.items():
        texts = [whole_text(example) for example in examples]
        if texts:
            findings += [*check_words(split, texts), *check_duplicates(split, texts), *check_damage(split, texts)]
        else:
            findings.append(Finding("empty_split", "error", split, 0, None, "the split has no example"))
    findings += [*check_conflicts(splits), *check_label_sets(splits)]
    order = list(dict.fromkeys(item.check for item in findings))
    findings.sort(key=lambda item: order.index(item.check))
    return Report(name, {split: len(examples) for split, examples in splits.items()}, tuple(findings))


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
    matches = index.find(texts)
    for text, match in zip(texts, matches, strict=True):
        key = text_key(text)
        before = best.get(key, ("", None))[1]
        if key not in best or (match and (before is None or _RANK[match.kind] < _RANK[before.kind])):
            best[key] = text, match
    kinds = {kind: [(t, m) for t, m in best.values() if m and m.kind == kind] for kind in _RANK}
    found = sum(map(len, kinds.values()))
    if not found:
        return []
    long = [match for text, match in best.values() if len(text.split()) >= LONG]
    long_same = sum(match is not None and match.kind != "near" for match in long)
    long_share = long_same / len(long) if long else 0.0
    counts = {kind: len(items) for kind, items in kinds.items()}
    message = (
        f"{counts['exact']} exactly, {counts['normalised']} but for case, blanks or punctuation, "
        f"{counts['near']} nearly; of texts with {LONG} words or more {100 * long_share:.1f} % recur word for word"
    )
    longest = [max(items, key=lambda item: len(item[0])) for items in kinds.values() if items]
    samples = [f"{m.kind}: {shorten(t)}" + (f" <- {shorten(m.text)}" if m.kind != "exact" else "") for t, m in longest]
    details = {
        **counts,
        "same": counts["exact"] + counts["normalised"],
        "distinct": len(best),
        "examples": sum(match is not None for match in matches),
        "long_same": long_same,
        "long_distinct": len(long),
        "long_share": long_share,
    }
    check = f"{split}_in_{other}"
    return [Finding(check, severity, split, found, found / len(best), message, tuple(samples[:SAMPLES]), None, details)]


def index_split(owner: str, examples: Sequence[Example]) -> OverlapIndex:
    """Indexes the examples of a split, one text an example."""
    return OverlapIndex.build((owner, whole_text(example)) for example in examples)


def check_words(split: str, texts: Sequence[str]) -> list[Finding]:
    """Texts without a letter or digit."""
    bare = [text for text in texts if not normalise(text)]
    return [_texts_finding("no_words", "info", split, bare, texts, "have no letter or digit")] if bare else []


def check_duplicates(split: str, texts: Sequence[str]) -> list[Finding]:
    """Texts that occurred before in the same split."""
    first: dict[str, str] = {}
    times = Counter(first.setdefault(text_key(text), text) for text in texts)
    repeated = len(texts) - len(times)
    if not repeated:
        return []
    often = tuple(f"{count} times: {shorten(text)}" for text, count in times.most_common(SAMPLES) if count > 1)
    share = repeated / len(texts)
    exact = len(texts) - len({text.strip() for text in texts})
    message = f"repeat an earlier text, {exact} exactly, the rest but for case, blanks or punctuation"
    severity: Severity = "warning" if share >= NOTABLE else "info"
    return [Finding("duplicates", severity, split, repeated, share, message, often, details={"exact": exact})]


def check_damage(split: str, texts: Sequence[str]) -> list[Finding]:
    """Texts with U+FFFD, with UTF-8 read as Latin-1 or Windows-1252 (mojibake), or with control characters."""
    findings = []
    for check, pattern, message in _DAMAGE:
        found = [match.string[max(0, match.start() - 40) :] for match in map(pattern.search, texts) if match]
        if found:
            findings.append(_texts_finding(check, "warning", split, found, texts, message))
    return findings


def check_conflicts(splits: Mapping[str, Sequence[Example]]) -> list[Finding]:
    """Texts, the same after normalisation, with more than one label, or with other entities for NER."""
    seen: defaultdict[str, dict[str, str]] = defaultdict(dict)
    where: defaultdict[str, set[str]] = defaultdict(set)
    for split, examples in splits.items():
        for example in examples:
            label = _annotation(example)
            if label is not None:
                key = text_key(whole_text(example))
                seen[key].setdefault(label, whole_text(example))
                where[key].add(split)
    conflicts = [key for key, labels in seen.items() if len(labels) > 1]
    if not conflicts:
        return []
    samples = tuple(
        shorten(
            f"{next(iter(seen[key].values()))} -> {' / '.join(label or 'no entity' for label in list(seen[key])[:3])}"
        )
        for key in conflicts[:SAMPLES]
    )
    across = sum(len(where[key]) > 1 for key in conflicts)
    ner = any(isinstance(example, NerExample) for part in splits.values() for example in part[:1])
    message = f"texts occur with different {'entities' if ner else 'labels'}, {across} of them across splits"
    details = {"distinct": len(seen), "across_splits": across}
    share = len(conflicts) / len(seen)
    return [Finding("conflicting_labels", "warning", "all", len(conflicts), share, message, samples, details=details)]


def check_label_sets(splits: Mapping[str, Sequence[Example]]) -> list[Finding]:
    """Labels of other splits that the training split does not have, rare ones, and how unbalanced they are."""
    counts = {split: count_labels(examples) for split, examples in splits.items()}
    known = counts.get(TRAIN)
    if not known:
        return []
    findings = []
    for split, labels in counts.items():
        missing = sorted(set(labels) - set(known))
        if missing and not split.startswith(TRAIN):
            message, share = f"labels do not occur in {TRAIN}: {_list(missing)}", len(missing) / len(labels)
            details: dict[str, Any] = {"labels": missing}
            findings.append(Finding("unseen_labels", "warning", split, len(missing), share, message, details=details))
    rare = sorted(label for label, count in known.items() if count < RARE)
    if rare:
        message = f"labels have fewer than {RARE} training examples: {_list(rare)}"
        findings.append(Finding("rare_labels", "warning", TRAIN, len(rare), len(rare) / len(known), message))
    (most, high), (least, low) = known.most_common(1)[0], min(known.items(), key=lambda item: (item[1], item[0]))
    ratio = high / low
    message = f"labels; {most!r} ({high}) is {ratio:.3g} times as frequent as {least!r} ({low})"
    details = {"ratio": ratio, "most": most, "least": least, "counts": dict(known.most_common())}
    severity: Severity = "warning" if ratio >= IMBALANCE else "info"
    findings.append(Finding("label_balance", severity, TRAIN, len(known), None, message, details=details))
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


def _texts_finding(
    check: str, severity: Severity, split: str, found: Sequence[str], texts: Sequence[str], message: str
) -> Finding:
    samples = tuple(shorten(text) for text in found[:SAMPLES])
    return Finding(check, severity, split, len(found), len(found) / len(texts), message, samples)


def _list(labels: Sequence[str]) -> str:
    return ", ".join(labels[:_LISTED]) + (f" and {len(labels) - _LISTED} more" if len(labels) > _LISTED else "")
