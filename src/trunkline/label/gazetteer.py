"""Typed gazetteers: surfaces with their concepts, found in sentences by longest match over words."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from trunkline.data.records import read_json_lines, shorten
from trunkline.data.table import read_table
from trunkline.errors import DataError
from trunkline.label.options import GazetteerOptions
from trunkline.label.sentences import is_whole, normalise_type
from trunkline.text.examples import Span
from trunkline.text.words import char_classes, split_words

_DATES = """
january february march april may june july august september october november december
monday tuesday wednesday thursday friday saturday sunday
"""
_STOP = """
a about above after again against all almost also although always am among an and another any anyone anything are around
as at away back be became because become been before being below best between both but by can cannot could did do does
done down each early eight eighth either else enough even ever every everyone everything few fifth first five for four
fourth from further get go good had has have having he her here hers him himself his how however i if in indeed inside
instead into is it its itself just last late later least less like many may me might mine more most much must my myself
near nearly neither never new next nine ninth no nobody none nor not nothing now of off often on once one only onto or
other others our ours out outside over own per perhaps please quite rather really same second seven seventh several
shall she should since six sixth so some someone something soon still such ten tenth than that the their theirs them
then there therefore these they thing things third this those though three through thus to today together tomorrow too
toward towards twelve two under until up upon us use very via was we well were what when where whether which while who
whole whom whose why will with within without would yes yesterday yet you your yours
"""
_CALENDAR = frozenset(_DATES.split())
COMMON = _CALENDAR | set(_STOP.split())
"""Words that are no entity by themselves in nearly every text, although a song or a boat may be called so."""

_EXPECTED = "rows of surface, concept and, if at all, count, a whole number"
# A word that is no entity by itself, but may be the beginning of one.
_INCOMPLETE = re.compile(r"north|south|east|west|(?:north|south|east|west)ern|central|\d+(?:st|nd|rd|th)?")
_WORD_BEFORE = re.compile(r"([^\W\d_]+) $")
_ABBREVIATION_BEFORE = re.compile(r"\b[^\W\d_a-z][^\W\d_]{0,3} ?\. ?$")
_WORD_AFTER = re.compile(r" ([^\W\d_]+)")


def label_gazetteer(
    options: GazetteerOptions, sentences: Iterable[str], report: dict[str, Any]
) -> Iterator[tuple[str, list[Span]]]:
    """Every sentence with the surfaces of the gazetteer that it has; the report gets the number of surfaces."""
    concepts, left_out = read_gazetteer(options)
    report.update(surfaces=len(concepts), gazetteer_left_out=dict(sorted(left_out.items())))
    index = SurfaceIndex(concepts, whole_names=options.whole_names)
    for text in sentences:
        yield text, index.find(text)


class SurfaceIndex:
    """Finds surfaces in sentences as whole words, the longest first.

    A surface with an upper-case letter is matched as it is, another one in any case. Blanks count between letters and
    digits only, so that `Johnny's` is found in the tokenised `Johnny 's`.

    Args:
        concepts: Surface -> its concepts.
        whole_names: Whether matches are left out that look like a part of a name (see `is_fragment`).
    """

    def __init__(self, concepts: Mapping[str, tuple[str, ...]], *, whole_names: bool = True) -> None:
        self._whole_names = whole_names
        self._names: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._most: dict[str, int] = {}  # words of the longest surface by its first word
        for surface, names in concepts.items():
            keys = tuple(word_keys(surface)[0])
            self._names[keys] = tuple(dict.fromkeys((*self._names.get(keys, ()), *names)))
            self._most[keys[0]] = max(self._most.get(keys[0], 0), len(keys))

    def find(self, text: str) -> list[Span]:
        """The spans of a sentence; one with several concepts comes once for each."""
        keys, words = word_keys(text)
        folded = [key.lower() for key in keys]
        spans: list[Span] = []
        first = 0
        while first < len(keys):
            after, names = self._longest(text, words, (keys, folded), first)
            start, end = words[first][0], words[after - 1][1]
            if names and not (self._whole_names and is_fragment(text, start, end)):
                spans += (Span(start, end, name) for name in names)
            first = after
        return spans

    def _longest(
        self, text: str, words: Sequence[tuple[int, int]], rows: tuple[list[str], list[str]], first: int
    ) -> tuple[int, tuple[str, ...]]:
        """The word behind the longest surface that begins at a word, and its concepts."""
        most = max(self._most.get(row[first], 0) for row in rows)
        for after in range(min(first + most, len(words)), first, -1):
            for row in rows:
                names = self._names.get(tuple(row[first:after]), ())
                if names and is_whole(text, words[first][0], words[after - 1][1]):
                    return after, names
        return first + 1, ()


def word_keys(text: str) -> tuple[list[str], tuple[tuple[int, int], ...]]:
    """The words of a text with their offsets; a `+` goes before one that is glued to letters or digits (`A4`)."""
    words, kinds = split_words(text), char_classes(text)
    keys: list[str] = []
    before = -1  # where letters or digits end
    for start, end in words:
        joins = kinds[start] in b"ld"
        keys.append(f"{'+' if joins and start == before else ''}{text[start:end]}")
        before = end if joins else -1
    return keys, words


def is_fragment(text: str, start: int, end: int) -> bool:
    """Whether a capitalised stretch stands next to another capitalised word, so that it may be a part of a name.

    Words of `COMMON` do not count before it (`The`), nor days and months behind it; short abbreviations before it
    (`Mr.`, `J.`) do.
    """
    if not text[start].isupper():
        return False
    before = text[max(start - 40, 0) : start]
    if _ABBREVIATION_BEFORE.search(before):
        return True
    around = ((_WORD_BEFORE.search(before), COMMON), (_WORD_AFTER.match(text, end), _CALENDAR))
    return any(match and match[1][0].isupper() and match[1].lower() not in usual for match, usual in around)


def read_gazetteer(options: GazetteerOptions) -> tuple[dict[str, tuple[str, ...]], Counter[str]]:
    """The concepts of each surface, the most frequent first, and how many rows were left out for which reason.

    Surfaces are left out that are too short, or that have only `COMMON` words, directions and numbers in them, unless
    several words have capitals, as in `The Who`.

    Raises:
        DataError: A file that cannot be read, a malformed row, or no surface left.
    """
    left_out: Counter[str] = Counter()
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for surface, concept, count in _rows(options.gazetteer):
        name = normalise_type(concept)
        if name and _is_usable(surface, options.min_length):
            counts[surface][name] += count
        else:
            left_out["surface too short or too common" if name else "concept is no name"] += 1
    if not counts:
        reasons = ", ".join(f"{number} rows: {what}" for what, number in left_out.items())
        raise DataError(
            f"no surface is left ({reasons})",
            path=options.gazetteer,
            expected=_EXPECTED,
            todo="Check columns, min_length",
        )
    kept = {}
    for surface, names in counts.items():
        ranked = sorted(names.items(), key=lambda item: (-item[1], item[0]))[: options.max_concepts]
        least = min(options.min_share * names.total(), ranked[0][1])
        kept[surface] = tuple(name for name, count in ranked if count >= least)
    return kept, left_out


def _is_usable(surface: str, min_length: int) -> bool:
    words = surface.split()
    is_common = all(word in COMMON or _INCOMPLETE.fullmatch(word) for word in map(str.lower, words))
    is_name = sum(word[0].isupper() for word in words) > 1 or not is_common
    return is_name and sum(map(str.isalnum, surface)) >= min_length and any(map(str.isalpha, surface))


def _rows(path: Path) -> Iterator[tuple[str, str, int]]:
    """Surface, concept as the file has it, and count of each row."""
    name = path.name.lower().removesuffix(".gz")
    if name.endswith((".jsonl", ".ndjson")):
        records: Iterator[tuple[int, dict[str, Any]]] = read_json_lines(path)
    elif name.endswith((".tsv", ".txt", ".csv")):
        rows = read_table(path, delimiter=None if name.endswith(".csv") else "tab", header=False)[2]
        first = next(rows)
        names = [str(cell).strip().lower() for cell in first[1].values()]
        named = {"surface", "concept"} <= set(names)
        columns = names if named else ["surface", "concept", "count"]
        rest = rows if named else chain([first], rows)
        records = ((line, dict(zip(columns, row.values(), strict=False))) for line, row in rest)
    else:
        raise DataError("no gazetteer in a form that is known", path=path, expected=".tsv, .csv or .jsonl, or with .gz")
    for line, record in records:
        surface, concept = (" ".join(str(record.get(key) or "").split()) for key in ("surface", "concept"))
        count = str(record.get("count", 1))
        if not surface or not concept or not count.isdecimal() or not 0 < int(count[:16]) < 10**15:
            raise DataError(
                f"the row is {shorten(record)}",
                path=path,
                line=line,
                expected=_EXPECTED,
                todo="Mend the row, or name the columns in a first row",
            )
        yield surface, concept, int(count)
