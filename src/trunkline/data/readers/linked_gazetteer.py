"""Paragraphs with links, typed by a gazetteer that knows under which table headers each link target was seen.

The paragraphs are JSON lines (`p`: list of `t` text and `l` [[start, end, target], ...]); the gazetteer is a table of
header, surface, target and count. A link becomes an entity whose labels are the target's most frequent headers.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from pydantic import Field

from trunkline.data.examples import NerExample, Span, split_words
from trunkline.data.files import read_lines
from trunkline.data.readers.base import FileOptions, get_key, read_json_lines, require_some
from trunkline.data.readers.spans import trim_span
from trunkline.errors import DataError

# Headers that say what a cell is for in its table, not what kind of thing it names; commas part them.
_NOISE = """
rank, points, point, year, years, date, dates, notes, note, result, results, score, scores, no, number, nr, total,
name, names, title, titles, description, descriptions, details, information, info, comments, comment, remarks, remark,
summary, significance, short description, type, types, category, status, other, others, loss, win, wins, losses, winner,
winners, loser, gold, silver, bronze, first, third, home, against, from, to, via, between, and, for, of, at, in, on,
record, report, round, time, times, pos, position, place, season, week, day, month, age, height, weight, attendance,
points for, ref, refs, reference, references, source, sources, notable as, reason, reasons, meaning, etymology, cause,
fate, outcome, value, values, data, fact, facts, feature, features, example, examples, item, items, list, link, links,
text, page, pages, save, saves, decision, margin, final, finals, group, stage, leg, legs, match, matches, game, games,
set, sets, name of place, name on the register, runner up, runners up, moving from, moving to, court note, nat, conf,
visitor, other information, first place, fastest lap, pole position, issue title, appointed by, drafted by,
seasons and teams, years and teams, teams and years
"""
NOISE_HEADERS = frozenset(" ".join(header.split()) for header in _NOISE.split(","))

# A header with one of these words says how cells relate to their row.
NOISE_WORDS = frozenset(
    ("opponent", "opponents", "etc", "away", "second", "third", "fourth", "fifth", "under", "represented", "inducted")
)

_FOOTNOTE = re.compile(r"\[[^\]]*\]")
_PLURAL = re.compile(r"\((?:e?s|ies)\)")
_APOSTROPHE = re.compile(r"(?<=\w)['’](?=\w)")
_NOT_WORD = re.compile(r"[^\w ]|_")
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"'”’)\]]*\s+(?=[\"'“‘(\[]*[^\W_a-z])")
_MAX_HEADER_WORDS = 4


class Options(FileOptions):
    """Options of linked paragraphs; the gazetteer is named from the folder of the paragraphs."""

    gazetteer: str
    min_count: int = Field(default=2, ge=1, description="Cells in which a target must stand under a header.")
    max_labels: int = Field(default=3, ge=1)
    max_words: int = Field(default=60, ge=5, description="Words of a sentence, after which it is cut at a blank.")


def read(path: str | Path, options: Options) -> Iterator[NerExample]:
    """Yields the sentences with at least one typed link; a link has up to `max_labels` spans, one for each label."""
    types = read_gazetteer(Path(path).parent / options.gazetteer, options)
    return require_some(_sentences(path, options, types), path, what="sentence with a typed link")


def normalise_header(header: str) -> str:
    """The header in lower case with only letters, digits and blanks, or nothing if it is noise.

    Noise is: two word lists (`NOISE_HEADERS`, `NOISE_WORDS`), `list of ...`, more than four words, fewer than three
    characters, and headers with a number in them other than a counter at the end (`team 1` is `team`).
    """
    plain = _PLURAL.sub("", _FOOTNOTE.sub(" ", header.lower()))
    words = _NOT_WORD.sub(" ", _APOSTROPHE.sub("", plain)).split()
    if words[-3:] == ["v", "t", "e"]:  # the view-talk-edit links of a navigation box
        words = words[:-3]
    if len(words) > 1 and words[-1].isdigit():
        words.pop()
    joined = " ".join(words)
    if not 1 <= len(words) <= _MAX_HEADER_WORDS or len(joined) < 3 or any(c.isdigit() for c in joined):
        return ""
    noise = joined in NOISE_HEADERS or not NOISE_WORDS.isdisjoint(words) or words[:2] == ["list", "of"]
    return "" if noise else joined


def read_gazetteer(path: Path, options: Options) -> dict[str, tuple[str, ...]]:
    """The labels of each link target, the most frequent first.

    Rows without four columns are passed over: some cells have line breaks in them, which the table does not escape.
    """
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for _, row in read_lines(path):
        cells = row.split("\t")
        if len(cells) != 4 or not cells[3].isdigit():
            continue
        header = normalise_header(cells[0])
        if header:
            counts[cells[2]][header] += int(cells[3])
    types = {}
    for target, headers in counts.items():
        ranked = sorted(headers.items(), key=lambda item: (-item[1], item[0]))
        labels = tuple(header for header, count in ranked if count >= options.min_count)
        if labels:
            types[target] = labels[: options.max_labels]
    if not types:
        raise DataError(
            "no typed link target", path=path, expected="rows of header, surface, target and count, tab-separated"
        )
    return types


def _sentences(path: str | Path, options: Options, types: dict[str, tuple[str, ...]]) -> Iterator[NerExample]:
    for line, record in read_json_lines(path, options):
        for paragraph in get_key(record, "p", path, line):
            text = get_key(paragraph, "t", path, line)
            links = [trim_span(text, *_link(item, path, line), path, line) for item in paragraph.get("l", ())]
            for start, end in split_sentences(text, links, options.max_words):
                spans = tuple(
                    Span(link.start - start, link.end - start, label)
                    for link in links
                    if start <= link.start and link.end <= end
                    for label in types.get(link.label, ())
                )
                if spans:
                    yield NerExample(text[start:end], split_words(text[start:end]), spans)


def _link(item: Any, path: str | Path, line: int) -> tuple[Any, Any, Any]:
    if isinstance(item, list) and len(item) == 3:
        return item[0], item[1], item[2]
    raise DataError(f"the link is {item!r}", path=path, line=line, expected="[start, end, target]")


def split_sentences(text: str, links: list[Span], max_words: int) -> list[tuple[int, int]]:
    """Character ranges of the sentences, without blanks at their ends, none of which cuts a link.

    A sentence ends after `.`, `!` or `?` before a blank and an upper-case letter or digit. This also ends one after
    abbreviations, which does no harm here. Longer ones are cut at the last blank that keeps `max_words`.
    """
    inside = {position for link in links for position in range(link.start + 1, link.end)}
    ends = [match.end() for match in _SENTENCE_END.finditer(text) if match.end() not in inside]
    ranges = []
    for start, end in pairwise([0, *ends, len(text)]):
        begin, words, cut = start, 0, start
        for word in re.finditer(r"\S+", text[start:end]):
            position = start + word.start()
            if position not in inside:
                cut = position
            if words >= max_words and cut > begin:
                ranges.append((begin, cut))
                words = len(text[cut:position].split())
                begin = cut
            words += 1
        ranges.append((begin, end))
    trimmed = ((b + len(text[b:e]) - len(text[b:e].lstrip()), b + len(text[b:e].rstrip())) for b, e in ranges)
    return [(begin, end) for begin, end in trimmed if begin < end]
