"""Text pairs for pre-finetuning, mined out of tables, conversations and plain text: `trunkline label pairs`."""

from __future__ import annotations

import json
import random
import re
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

from trunkline.errors import TrunklineError
from trunkline.label import files
from trunkline.label.files import card_path, open_atomic, write_card
from trunkline.label.filters import Candidate, Embed, clean, filter_consistent
from trunkline.label.options import PAIR_METHODS, check_options
from trunkline.text.examples import PairExample

_EARLIER = 32
"""Rows of a group that are remembered, so that memory grows with the groups and not with the rows."""


def mine_pairs(
    sources: str | Path | Iterable[str | Path],
    out: str | Path,
    *,
    method: str,
    encoder: str | Embed | None = None,
    say: Callable[[str], None] = lambda text: None,
    **options: Any,
) -> dict[str, Any]:
    """Mines pairs, filters them and writes `out` (JSON lines) with a source card of the same name beside it.

    The output is a source of pre-finetuning. Nothing is written unless all goes well.

    Args:
        sources: Files and folders.
        out: A `.jsonl` file; it is replaced.
        method: `columns`: two columns of a table. `adjacent`: neighbouring passages, or turns of a conversation.
            `question-answer`: a question in a text and the passage after it. `title-body`: a text's first line, or a
            Markdown heading, and the passage after it. `duplicates`: rows that share a value.
        encoder: For the consistency filter, before which all pairs are held in memory: an encoder or bundle by name or
            folder, or a function that embeds texts.
        say: Receives lines of progress.
        options: Those of the method, see `trunkline.label.options`.

    Returns:
        Paths `out` and `card`, `method`, number of `candidates`, those `dropped` by reason, those `kept`, the report of
        the filter under `consistency` (None without one), and `seconds`.

    Raises:
        DataError: Sources that are missing or malformed, with file and line, or an output that cannot be written.
        TrunklineError: Wrong options, or no pair is left.
    """
    began, out = time.perf_counter(), Path(out)
    method = method.replace("_", "-")
    given = check_options(method, options, PAIR_METHODS)
    paths = [Path(source) for source in ([sources] if isinstance(sources, str | Path) else sources)]
    if not paths:
        raise TrunklineError("no file to mine", expected="at least one file or folder")
    card = card_path(out, paths)
    dropped: Counter[str] = Counter()
    pairs: Iterable[PairExample] = clean(find_candidates(paths, method, given), given, dropped)
    names = ", ".join(path.name for path in paths[:3]) + (f" and {len(paths) - 3} more" if len(paths) > 3 else "")
    settings = given.model_dump(mode="json", exclude_defaults=True, exclude={"licence"})
    how = [f"Mined from {names} by the method {method}{''.join(f', {k} {v}' for k, v in settings.items())}."]
    report = None
    if encoder is not None and (found := list(pairs)):
        say(f"{len(found)} pairs of {len(found) + dropped.total()} candidates go to the consistency filter")
        pairs, report = _consistent(found, encoder, given)
        dropped["not consistent"] = len(found) - report["kept"]
        how.append(f"{report['kept']} of {len(found)} pairs passed the consistency filter of an encoder.")
    # Members of a group are no negatives of each other.
    grouped = getattr(given, "group_documents", False) or getattr(given, "group_column", None) is not None
    kept = _write(out, pairs, grouped, dropped)
    write_card(card, "classification", f"Pairs mined from {names}", given.licence, how, kept)
    counts = {"candidates": kept + dropped.total(), "dropped": dict(+dropped), "kept": kept, "consistency": report}
    seconds = round(time.perf_counter() - began, 3)
    return {"out": str(out), "card": str(card), "method": method, **counts, "seconds": seconds}


def _consistent(
    found: Sequence[PairExample], encoder: str | Embed, given: Any
) -> tuple[list[PairExample], dict[str, Any]]:
    """The pairs that pass the consistency filter, and its report."""
    if isinstance(encoder, str):
        from trunkline.encoder.bundle_files import embedder

        encoder = embedder(encoder)
    keep, report = filter_consistent(found, encoder, top_k=given.top_k, pool=given.pool, seed=given.seed)
    return [pair for pair, is_kept in zip(found, keep, strict=True) if is_kept], report


def _write(out: Path, pairs: Iterable[PairExample], grouped: bool, dropped: Counter[str]) -> int:
    """Writes pairs as they come; returns their number, or raises a TrunklineError if there is none."""
    kept = 0
    with open_atomic(out) as stream:
        for pair in pairs:
            kept += 1
            group = {"group": pair.group} if grouped else {}
            stream.write(json.dumps({"left": pair.left, "right": pair.right, **group}, ensure_ascii=False) + "\n")
        if not kept:
            reasons = ", ".join(f"{number} {reason}" for reason, number in (+dropped).items())
            raise TrunklineError(
                f"no pair is left of {dropped.total()} candidates" + (f" ({reasons})" if reasons else ""),
                expected="at least one pair",
                todo="Check columns, method (passages need blank lines or line ends), min_words, max_words, top_k",
            )
    return kept


def find_candidates(sources: Iterable[Path], method: str, options: Any) -> Iterator[Candidate]:
    """Yields what the method finds, document by document and in the order of the sources; errors of `read_columns`."""
    if method == "columns":
        names = [name for name in (options.left_column, options.right_column, options.group_column) if name is not None]
        rows = enumerate(files.read_columns(sources, names))
        return (Candidate(number, *values) for number, (_, values) in rows)
    if method == "duplicates":
        return _duplicates(sources, options)
    if method == "adjacent" and options.conversation_column is not None:
        return _turns(sources, options)
    find = {"question-answer": question_answer, "title-body": title_body}.get(method, adjacent)
    return (
        Candidate(number, left, right, str(number) if options.group_documents else "")
        for number, lines in enumerate(files.read_documents(sources, options.text_column))
        for left, right in find(lines, options)
    )


def _duplicates(sources: Iterable[Path], options: Any) -> Iterator[Candidate]:
    """Pairs each row with a draw from the rows of its group before it, of which the last are remembered."""
    draw = random.Random(options.seed)
    remembered: dict[str, deque[str]] = defaultdict(lambda: deque(maxlen=_EARLIER))
    for _, (group, text) in files.read_columns(sources, (options.group_column, options.text_column)):
        if group and text:
            earlier = remembered[group]
            for left in draw.sample(earlier, min(options.per_row, len(earlier))):
                yield Candidate(group, left, text, group)
            earlier.append(text)


def _turns(sources: Iterable[Path], options: Any) -> Iterator[Candidate]:
    rows = files.read_columns(sources, (options.conversation_column, options.text_column or "text"))
    for number, ((_, name), turns) in enumerate(groupby(rows, key=lambda row: (row[0], row[1][0]))):
        for (_, (_, left)), (_, (_, right)) in pairwise(turns) if name else ():
            yield Candidate(number, left, right, str(number) if options.group_documents else "")


def adjacent(lines: Iterable[str], options: Any) -> Iterator[tuple[str, str]]:
    """Each passage of a document with the next one."""
    return pairwise(files.split_passages(lines, options.passages))


def question_answer(lines: Iterable[str], options: Any) -> Iterator[tuple[str, str]]:
    """Each question of a document with the passage after it.

    A question is what begins with a mark such as `Q:` or ends in a question mark; of several in a row the last one
    is answered. What begins with a mark such as `A:` is an answer even if it ends in a question mark. A Markdown
    heading answers nothing.
    """
    asks, answers = (
        re.compile(rf"(?:{'|'.join(map(re.escape, marks))})\s*\d*\s*[:：]\s*(.*)$", re.IGNORECASE | re.DOTALL)
        for marks in (options.question_marks, options.answer_marks)
    )

    def starts(line: str) -> object:
        text = files.without_marks(line)
        return files.heading(line) or asks.match(text) or answers.match(text)

    def ends(line: str) -> object:
        return files.heading(line) or files.is_question(line)

    question = ""
    for passage in files.split_passages(lines, options.passages, starts=starts, ends=ends):
        text = files.without_marks(passage)
        asked, answered = asks.match(text), answers.match(text)
        if asked or (not answered and files.is_question(text)):
            question = asked.group(1) if asked else text
            continue
        if question and not files.heading(passage):
            yield question, answered.group(1) if answered else text
        question = ""


def title_body(lines: Iterable[str], options: Any) -> Iterator[tuple[str, str]]:
    """The first line of a document, and each Markdown heading, with the passage after it."""
    how, rest = files.find_separation(lines, options.passages)
    title = files.without_marks(next((line for line in rest if line), ""))
    for passage in files.split_passages(rest, how, starts=files.heading, ends=files.heading):
        found = files.heading(passage)
        if title and not found:
            yield title, passage
        title = found
