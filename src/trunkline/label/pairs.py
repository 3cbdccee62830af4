"""Text pairs for pre-finetuning, mined out of tables, conversations and plain text: `trunkline label pairs`.

What is no pair to learn from is dropped: by its form, and where an encoder does not find the partner again.
"""

from __future__ import annotations

import random
import re
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count, groupby, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from trunkline.data.overlap import normalise
from trunkline.data.values import list_names
from trunkline.errors import TrunklineError, needs
from trunkline.label import files
from trunkline.label.options import PAIR_METHODS, PairOptions, check_options, option_name
from trunkline.text.examples import PairExample
from trunkline.text.words import split_words

Embed = Callable[[Sequence[str]], npt.NDArray[Any]]
"""Turns n texts into [n, width] vectors; they are normalised here."""

_EARLIER = 32
"""Rows of a group that are remembered, so that memory grows with the groups and not with the rows."""

_TIE = np.float32(1e-6)
"""Cosines closer than rounding can tell apart are ties, and ties count against a pair."""

_BANDS = {"1": 1, "2": 2, "3 to 10": 10, "11 to 100": 100, "over 100": np.iinfo(np.int64).max}
"""Ranks in the report, by the highest of each band."""

_ASKS = re.compile(r"Q(?:uestion)?\s*\d*\s*[:：]\s*(.*)$", re.IGNORECASE | re.DOTALL)
_ANSWERS = re.compile(r"A(?:nswer)?\s*\d*\s*[:：]\s*(.*)$", re.IGNORECASE | re.DOTALL)


class Candidate(NamedTuple):
    """Two texts that may belong together; `document` tells what they were found in."""

    document: int | str
    left: str
    right: str
    group: str = ""


def mine_pairs(
    sources: str | Path | Iterable[str | Path],
    out: str | Path,
    *,
    method: str,
    encoder: str | Embed | None = None,
    say: Callable[[str], None] = lambda text: None,
    **options: Any,
) -> dict[str, Any]:
    """Mines pairs, filters them and writes `out` (JSON lines) with a source card beside it: a source of pre-finetuning.

    Args:
        sources: Files and folders.
        out: A `.jsonl` file; it is replaced, if all goes well.
        method: One of `trunkline.label.options.PAIR_METHODS`, which says what they do.
        encoder: For the consistency filter, before which all pairs are in memory: an encoder's name, a folder, or a
            function that embeds texts.
        say: Receives lines of progress.
        options: Those of the method.

    Returns:
        Paths `out` and `card`, `method`, number of `candidates`, those `dropped` by reason, those `kept`, the report of
        the filter under `consistency` (None without one), and `seconds`.

    Raises:
        TrunklineError: Wrong options, sources that are malformed, an output that would do harm, or no pair is left.
    """
    began, out = time.perf_counter(), Path(out)
    method = method.replace("_", "-")
    given = check_options(method, options, PAIR_METHODS)
    paths = [Path(source) for source in ([sources] if isinstance(sources, str | Path) else sources)]
    if not paths:
        raise TrunklineError("no file to mine", expected="at least one file or folder")
    files.check_output(out, paths)
    if isinstance(encoder, str):
        with needs("train", "--encoder"):
            from trunkline.encoder.bundle_files import embedder
        encoder = embedder(encoder)
    dropped: Counter[str] = Counter()
    pairs: Iterable[PairExample] = clean(find_candidates(paths, method, given), given, dropped)
    title = f"Pairs mined from {list_names(path.name for path in paths)}"
    consistency = None
    if encoder is not None and (found := list(pairs)):
        say(f"{len(found)} pairs of {len(found) + dropped.total()} candidates go to the consistency filter")
        keep, consistency = filter_consistent(found, encoder, top_k=given.top_k, pool=given.pool, seed=given.seed)
        pairs = [pair for pair, is_kept in zip(found, keep, strict=True) if is_kept]
        dropped["not consistent"] = len(found) - len(pairs)
        title += f"; {len(pairs)} of {len(found)} pairs passed the consistency filter of an encoder"
    report = files.write_source(out, _rows(pairs, dropped), "classification", title, method, given)
    kept = report.pop("rows")
    report |= {"method": method, "candidates": kept + dropped.total(), "dropped": dict(+dropped), "kept": kept}
    return {**report, "consistency": consistency, "seconds": round(time.perf_counter() - began, 3)}


def _rows(pairs: Iterable[PairExample], dropped: Counter[str]) -> Iterator[dict[str, str]]:
    """Yields pairs as they are written; members of a group are no negatives of each other."""
    pair = None
    for pair in pairs:
        yield {"left": pair.left, "right": pair.right, **({"group": pair.group} if pair.group else {})}
    if pair is None:
        reasons = ", ".join(f"{number} {reason}" for reason, number in (+dropped).items())
        raise TrunklineError(
            f"no pair is left of {dropped.total()} candidates" + (f" ({reasons})" if reasons else ""),
            expected="at least one pair",
            todo="Check the columns, --min-words, --max-words and --top-k; passages need blank lines or line ends, and "
            "rows of a table as turns of a talk --conversation-column",
        )


def find_candidates(sources: Iterable[Path], method: str, options: Any) -> Iterator[Candidate]:
    """Yields what the method finds, in the order of the sources: in rows, in groups, or between neighbours.

    Errors are those of `read_columns`.
    """

    def read(*keys: str) -> Iterator[tuple[Path, int, list[str]]]:
        given = {option_name(key): getattr(options, key) or "text" for key in keys}
        return files.read_columns(sources, list(given.values()), list(given))

    if method == "columns":
        keys = ("left_column", "right_column", "group_column")
        for number, (*_, values) in enumerate(read(*keys if options.group_column else keys[:2])):
            yield Candidate(number, *values)
    elif method == "duplicates":
        draw, remembered = random.Random(options.seed), defaultdict[str, deque[str]](lambda: deque(maxlen=_EARLIER))
        for *_, (group, text) in read("group_column", "text_column"):
            if group and text:
                earlier = remembered[group]
                for left in draw.sample(earlier, min(options.per_row, len(earlier))):
                    yield Candidate(group, left, text, group)
                earlier.append(text)
    else:
        documents = files.read_documents(sources, options.text_column)
        find: Any = {"question-answer": question_answer, "title-body": title_body, "adjacent": pairwise}[method]
        if getattr(options, "conversation_column", None):
            chats = groupby(read("conversation_column", "text_column"), key=lambda row: (row[0], row[2][0]))
            documents = ((text for *_, (_, text) in turns) for (_, name), turns in chats if name)
        elif method == "adjacent":
            documents = map(files.split_passages, documents)
        for number, lines in enumerate(documents):
            for left, right in find(lines):
                yield Candidate(number, left, right, str(number) if options.group_documents else "")


def question_answer(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Each question of a document with the passage after it.

    A question is what begins with a mark such as `Q:` or ends in a question mark; of several in a row the last one
    is answered. What begins with a mark such as `A:` is an answer even if it ends in a question mark. A Markdown
    heading answers nothing.
    """

    def starts(line: str) -> object:
        text = files.without_marks(line)
        return files.heading(line) or _ASKS.match(text) or _ANSWERS.match(text)

    def ends(line: str) -> object:
        return files.heading(line) or files.is_question(line)

    question = ""
    for passage in files.split_passages(lines, starts=starts, ends=ends):
        text = files.without_marks(passage)
        asked, answered = _ASKS.match(text), _ANSWERS.match(text)
        is_question = asked or (not answered and files.is_question(text))
        if question and not is_question and not files.heading(passage):
            yield question, answered.group(1) if answered else text
        question = (asked.group(1) if asked else text) if is_question else ""


def title_body(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    """The first line of a document, and each Markdown heading, with the passage after it."""
    numbers = count()
    passages = files.split_passages(
        lines, starts=files.heading, ends=lambda line: next(numbers) == 0 or files.heading(line)
    )
    title = ""
    for number, passage in enumerate(passages):
        found = files.heading(passage) if number else files.without_marks(passage)
        if title and not found:
            yield title, passage
        title = found


def count_words(text: str) -> int:
    """Words of letters or digits; each character of a script without blanks is one."""
    return sum(text[start].isalnum() for start, _ in split_words(text))


def clean(candidates: Iterable[Candidate], options: PairOptions, dropped: Counter[str]) -> Iterator[PairExample]:
    """Yields the candidates that are worth learning from, with runs of blanks made one.

    A pair that recurs in either direction counts once; a hash of every pair is remembered for that. Of a document, at
    most `max_pairs` are kept, a fair draw where its candidates stand together. `dropped` counts by reason.
    """
    most = getattr(options, "max_pairs", None)
    taken: Counter[int | str] = Counter()
    seen: set[int] = set()
    for number, items in groupby(candidates, key=lambda item: item.document):
        pairs = _sound(items, options, seen, dropped)
        if most is not None:
            found = list(pairs)
            draw = random.Random(f"{options.seed} {number} {taken[number]}")
            chosen = sorted(draw.sample(range(len(found)), min(most - taken[number], len(found))))
            dropped["over max_pairs"] += len(found) - len(chosen)
            taken[number] += len(chosen)
            pairs = iter([found[index] for index in chosen])
        yield from pairs


def _sound(
    candidates: Iterable[Candidate], options: PairOptions, seen: set[int], dropped: Counter[str]
) -> Iterator[PairExample]:
    for item in candidates:
        left, right = " ".join(item.left.split()), " ".join(item.right.split())
        counts = count_words(left), count_words(right)
        sides = frozenset((normalise(left), normalise(right)))
        problems = {
            "blank": not left or not right,
            "too short": min(counts) < options.min_words,
            "too long": max(counts) > options.max_words,
            "alike": len(sides) == 1,
            "repeated": hash(sides) in seen,
        }
        if reason := next((name for name, is_so in problems.items() if is_so), ""):
            dropped[reason] += 1
            continue
        seen.add(hash(sides))
        yield PairExample(left, right, item.group)


def filter_consistent(
    pairs: Sequence[PairExample], embed: Embed, *, top_k: int = 2, pool: int = 100_000, seed: int = 0, batch: int = 128
) -> tuple[npt.NDArray[np.bool_], dict[str, Any]]:
    """Finds the pairs [pairs] whose right text ranks in the top k for its left text, by cosine.

    A right text competes with at most `pool` right texts of all pairs, drawn by `seed`; the more, the stricter. Not
    in the competition are texts that equal one of the pair's own (but for case and punctuation) and those of its group.
    The vectors of the pool are in memory, and `batch` rows of the pool's cosines.

    Returns:
        Whether each pair is kept, and a report: number of `pairs`, `kept`, texts in the `pool`, `top_k`, the share that
        would be kept by `chance`, and how many pairs have which rank (`ranks`).
    """
    # Numbers for texts and for groups; pairs without a group have none in common.
    ids: dict[str, int] = {}
    texts = np.asarray([[ids.setdefault(normalise(text), len(ids)) for text in (p.left, p.right)] for p in pairs])
    numbers: dict[str, int] = {"": -1}
    groups = np.asarray([numbers.setdefault(pair.group, len(numbers)) for pair in pairs])
    chosen = np.sort(np.random.default_rng([seed, len(pairs)]).permutation(len(pairs))[:pool])
    # Of equal right texts, the first.
    rivals = chosen[np.sort(np.unique(texts[chosen, 1], return_index=True)[1])]
    if len(rivals) <= top_k:
        raise TrunklineError(
            f"the pairs have {len(rivals)} different right texts, so each partner ranks in the top {top_k}",
            expected=f"more than {top_k} texts to rank among",
            todo="Mine more text, lower top_k, or mine without an encoder",
        )
    rights = [pairs[index].right for index in rivals]
    vectors = np.concatenate([_embed(embed, rights[at : at + batch]) for at in range(0, len(rights), batch)])
    ranks = np.ones(len(pairs), np.int64)
    for at in range(0, len(pairs), batch):
        here = slice(at, at + batch)
        left, right = (_embed(embed, side) for side in zip(*((p.left, p.right) for p in pairs[here]), strict=True))
        better = left @ vectors.T >= np.einsum("nw,nw->n", left, right)[:, None] - _TIE
        better &= (texts[here, :, None] != texts[None, None, rivals, 1]).all(axis=1)
        better &= (groups[here, None] != groups[None, rivals]) | (groups[here, None] < 0)
        ranks[here] += better.sum(axis=1)
    keep = ranks <= top_k
    counts = np.bincount(np.searchsorted(list(_BANDS.values()), ranks), minlength=len(_BANDS)).tolist()
    report = {"pairs": len(pairs), "kept": int(keep.sum()), "pool": len(rivals), "top_k": top_k}
    chance = round(top_k / (len(rivals) + 1), 6)
    return keep, {**report, "chance": chance, "ranks": dict(zip(_BANDS, counts, strict=True))}


def _embed(embed: Embed, texts: Sequence[str]) -> npt.NDArray[np.float32]:
    vectors = np.asarray(embed(texts), np.float32)
    if vectors.ndim != 2 or len(vectors) != len(texts) or not np.isfinite(vectors).all():
        raise TrunklineError(
            f"the encoder's vectors have the shape {vectors.shape} or are not finite",
            expected=f"({len(texts)}, width) finite numbers",
            todo="Use an encoder that gives one vector a text",
        )
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.finfo(np.float32).tiny)
