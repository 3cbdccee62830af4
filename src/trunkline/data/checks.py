"""`trunkline check`: what the splits of one data set share, and what is wrong with its texts and labels."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from trunkline.data.inputs import check_learnable
from trunkline.data.load import read_examples
from trunkline.data.overlap import CONTROL, OverlapIndex, example_texts, normalise, show_text, text_key
from trunkline.data.values import Loaded, list_names
from trunkline.errors import TrunklineError
from trunkline.text.examples import Example, MultiLabelExample, NerExample, TextExample

Severity = Literal["leak", "error", "warning", "info"]

TRAIN = "train"
SAMPLES = 3
LONG = 5  # words from which a text hardly recurs by chance, as headings do
RARE = 5  # training examples (entities for NER) below which a label is rare
IMBALANCE = 100  # times as frequent as the rarest label, from which the balance is a warning
NOTABLE = 0.01  # share of a split's texts from which repeated ones are a warning
_KINDS = ("exact", "normalised", "near")
# UTF-8 that was read as Latin-1 or Windows-1252: a lead byte followed by its continuation bytes, as letters and signs.
_NEXT = "[\u0080-\u00bf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ]"
_MOJIBAKE = re.compile(f"[ÂÃ]{_NEXT}|â{_NEXT}{{2}}|ð{_NEXT}{{3}}|ï¿½|ï»¿")
_DAMAGE = (
    ("replacement_characters", re.compile("\ufffd"), "hold U+FFFD, so characters were lost"),
    ("mojibake", _MOJIBAKE, "hold UTF-8 that was read as Latin-1 or Windows-1252"),
    ("control_characters", CONTROL, "hold control characters"),
)


@dataclass(frozen=True)
class Finding:
    """One thing that a check saw in a split, or in `all`.

    `severity` is `leak` where what is scored was learnt from, and `error` where the data is not what it should be.
    `share` is `count` as a share of the split's texts or labels, from 0 to 1; None where there is nothing to divide by.
    `waived` says why somebody has accepted the finding; `details` has more numbers, for machines.
    """

    check: str
    severity: Severity
    split: str
    count: int
    share: float | None
    message: str
    samples: tuple[str, ...] = ()
    waived: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


def check(
    files: Mapping[str, str | Path | None],
    family: str | None = None,
    *,
    columns: Mapping[str, Mapping[str, str | None]] | None = None,
    **shared: str | None,
) -> dict[str, Any]:
    """Checks files for leaks between them, repeated texts, conflicting, rare and unknown labels, and damage.

    `files` are by split, `train`, `dev` and `test`; they, `family` and `shared` columns are as for `read_examples`, and
    `columns` are those of each split.

    Returns:
        `name`, `family`, `kinds` (split -> what its file was taken for), `counts` (split -> examples) and `findings`,
        see `Finding`.
    """
    given = {split: spec for split, spec in files.items() if spec is not None}
    if not given:
        raise TrunklineError("no file is named", expected="--train, and --dev and --test where there are such files")
    loaded: dict[str, Loaded] = {}
    for split, spec in given.items():
        loaded[split] = read_examples(spec, family, **(shared | dict((columns or {}).get(split, {}))))
        family = loaded[split].family
    notes = [Finding("reading", "warning", s, 1, None, note) for s, own in loaded.items() for note in own.notes]
    if part := loaded.get(TRAIN):
        try:
            check_learnable(part.family, part.examples)
        except TrunklineError as error:
            notes.append(Finding("not_learnable", "error", TRAIN, len(part.examples), None, str(error)))
    findings = check_splits({split: part.examples for split, part in loaded.items()}, extra=notes)
    return {
        "name": Path(str(next(iter(given.values())))).name,
        "family": family,
        "kinds": {split: part.kind for split, part in loaded.items()},
        "counts": {split: len(part.examples) for split, part in loaded.items()},
        "findings": [asdict(item) for item in findings],
    }


def exit_code(reports: Sequence[Mapping[str, Any]]) -> int:
    """1 if any report has a leak or an error that is not waived, else 0."""
    findings = [finding for report in reports for finding in report["findings"]]
    return int(any(item["severity"] in ("leak", "error") and item["waived"] is None for item in findings))


def check_splits(
    splits: Mapping[str, Sequence[Example]], *, role: str = "task", extra: Sequence[Finding] = ()
) -> list[Finding]:
    """Runs all checks that need nothing but the examples; `extra` findings go first.

    Splits whose name begins with `train` are learnt from, the others scored or chosen by. With the role `task` an
    overlap with train is a leak, with `source` a warning.
    """
    findings = list(extra)
    held_out = {split: examples for split, examples in splits.items() if examples and not split.startswith(TRAIN)}
    findings += check_overlap(held_out, TRAIN, splits.get(TRAIN, ()), "leak" if role == "task" else "warning")
    if test := splits.get("test"):
        findings += check_overlap({"test": test}, "dev", splits.get("dev", ()), "warning")
    for split, examples in splits.items():
        findings += _check_texts(split, [whole_text(example) for example in examples])
        if not examples:
            findings.append(Finding("empty_split", "error", split, 0, None, "the split has no example"))
    findings += [*_check_conflicts(splits), *_check_label_sets(splits)]
    order = list(dict.fromkeys(item.check for item in findings))
    return sorted(findings, key=lambda item: order.index(item.check))


def whole_text(example: Example) -> str:
    """One text that stands for an example; the sides of a pair are joined by a line feed."""
    return "\n".join(example_texts(example))


def check_overlap(
    splits: Mapping[str, Sequence[Example]], other: str, examples: Sequence[Example], severity: Severity
) -> Iterator[Finding]:
    """The distinct texts of splits that the examples of another one have, as the findings `SPLIT_in_OTHER`.

    `details` has numbers by kind, `same` (exactly or normalised), the examples that have these texts, and `long_share`:
    the share of the `same` among distinct texts of `LONG` words or more, as headings and the like are no leaks.
    """
    index = OverlapIndex((other, whole_text(example)) for example in examples)
    for split, own in splits.items():
        best: dict[str, tuple[int, str, str]] = {}  # key -> rank of the kind (3 for none), text, text of the other
        touched = 0
        for text in map(whole_text, own):
            match = index.find(text)
            touched += match is not None
            found = (_KINDS.index(match.kind), text, match.text) if match else (len(_KINDS), text, "")
            key = text_key(text)
            best[key] = min(best.get(key, found), found, key=lambda item: item[0])
        kinds = [[item for item in best.values() if item[0] == rank] for rank in range(len(_KINDS))]
        exact, normalised, near = map(len, kinds)
        if not (total := exact + normalised + near):
            continue
        long = [rank < 2 for rank, text, _ in best.values() if len(text.split()) >= LONG]
        long_share = sum(long) / max(1, len(long))
        message = (
            f"{exact} exactly, {normalised} but for case, blanks or punctuation, {near} "
            f"nearly; of texts with {LONG} words or more {100 * long_share:.1f} % recur word for word"
        )
        longest = [max(items, key=lambda item: len(item[1])) for items in kinds if items]
        samples = tuple(f"{_KINDS[r]}: {show_text(t)}{f' <- {show_text(o)}' * (r > 0)}" for r, t, o in longest)
        details = {"exact": exact, "normalised": normalised, "near": near, "same": exact + normalised}
        details |= {"distinct": len(best), "examples": touched, "long_distinct": len(long)}
        more, share = {**details, "long_share": long_share}, total / len(best)
        yield Finding(f"{split}_in_{other}", severity, split, total, share, message, samples, details=more)


def _check_texts(split: str, texts: Sequence[str]) -> Iterator[Finding]:
    """Texts without a letter or digit, damaged ones, and those that occurred before in the same split."""
    for check, pattern, message in _DAMAGE:
        if found := [text[max(0, match.start() - 40) :] for text in texts if (match := pattern.search(text))]:
            yield Finding(check, "warning", split, len(found), len(found) / len(texts), message, _shown(found))
    if blank := [text for text in texts if not normalise(text)]:
        message = "have no letter or digit"
        yield Finding("no_words", "info", split, len(blank), len(blank) / len(texts), message, _shown(blank))
    first: dict[str, str] = {}
    times = Counter(first.setdefault(text_key(text), text) for text in texts)
    if repeated := len(texts) - len(times):
        often = tuple(f"{count} times: {show_text(text)}" for text, count in times.most_common(SAMPLES) if count > 1)
        exact, share = len(texts) - len({text.strip() for text in texts}), repeated / len(texts)
        message = f"repeat an earlier text, {exact} exactly, the rest but for case, blanks or punctuation"
        level: Severity = "warning" if share >= NOTABLE else "info"
        yield Finding("duplicates", level, split, repeated, share, message, often, details={"exact": exact})


def _shown(texts: Sequence[str]) -> tuple[str, ...]:
    return tuple(map(show_text, texts[:SAMPLES]))


def _check_conflicts(splits: Mapping[str, Sequence[Example]]) -> Iterator[Finding]:
    """Texts, the same after normalisation, with more than one label, or with other entities for NER."""
    seen: defaultdict[str, dict[tuple[str, str], str]] = defaultdict(dict)  # key -> annotation, split -> text
    for split, examples in splits.items():
        for example in examples:
            if isinstance(example, TextExample | MultiLabelExample | NerExample):
                seen[text_key(example.text)].setdefault((_annotation(example), split), example.text)
    conflicts = [(texts, list(dict.fromkeys(label for label, _ in texts))) for texts in seen.values()]
    if conflicts := [(texts, labels) for texts, labels in conflicts if len(labels) > 1]:
        samples = _shown([f"{next(iter(texts.values()))} -> {' / '.join(labels[:3])}" for texts, labels in conflicts])
        across, count = sum(len({split for _, split in texts}) > 1 for texts, _ in conflicts), len(conflicts)
        message = f"texts occur with different labels or entities, {across} of them across splits"
        more = {"distinct": len(seen), "across_splits": across}
        yield Finding("conflicting_labels", "warning", "all", count, count / len(seen), message, samples, details=more)


def _annotation(example: TextExample | MultiLabelExample | NerExample) -> str:
    if isinstance(example, TextExample):
        return example.label
    if isinstance(example, MultiLabelExample):
        return " + ".join(sorted(example.labels)) or "no label"
    spans = sorted(example.spans, key=lambda span: (span.start, span.end, span.label))
    return ", ".join(f"{normalise(example.text[s.start : s.end])}={s.label}" for s in spans) or "no entity"


def _check_label_sets(splits: Mapping[str, Sequence[Example]]) -> Iterator[Finding]:
    """Labels that are nearly the same, those that the training split lacks, rare ones, and how unbalanced they are."""
    counts = {split: _count_labels(examples) for split, examples in splits.items()}
    alike: defaultdict[str, set[str]] = defaultdict(set)
    for label in chain.from_iterable(counts.values()):
        alike["".join(label.casefold().split())].add(label)
    if same := [sorted(labels) for labels in alike.values() if len(labels) > 1]:
        message = f"labels differ from another one only in case or blanks: {'; '.join(map(list_names, same))}"
        yield Finding("similar_labels", "warning", "all", sum(map(len, same)), None, message)
    if not (known := counts.get(TRAIN)):
        return
    for split, labels in counts.items():
        missing = sorted(set(labels) - set(known))
        if missing and not split.startswith(TRAIN):
            message, more = f"labels do not occur in {TRAIN}: {list_names(missing)}", {"labels": missing}
            share = len(missing) / len(labels)
            yield Finding("unseen_labels", "warning", split, len(missing), share, message, details=more)
    if rare := sorted(label for label, count in known.items() if count < RARE):
        message = f"labels have fewer than {RARE} training examples: {list_names(rare)}"
        yield Finding("rare_labels", "warning", TRAIN, len(rare), len(rare) / len(known), message)
    (most, high), (least, low) = known.most_common(1)[0], min(known.items(), key=lambda item: (item[1], item[0]))
    message = f"labels; {most!r} ({high}) is {high / low:.3g} times as frequent as {least!r} ({low})"
    details = {"ratio": high / low, "most": most, "least": least, "counts": dict(known.most_common())}
    severity: Severity = "warning" if high / low >= IMBALANCE else "info"
    yield Finding("label_balance", severity, TRAIN, len(known), None, message, details=details)


def _count_labels(examples: Sequence[Example]) -> Counter[str]:
    """How often each label occurs, counting entities for NER."""
    spans = (span.label for example in examples if isinstance(example, NerExample) for span in example.spans)
    several = (label for example in examples if isinstance(example, MultiLabelExample) for label in example.labels)
    return Counter(chain(spans, several, (one.label for one in examples if isinstance(one, TextExample))))
