"""Typed gazetteers: surfaces with their concepts, found in sentences by longest match over words."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import chain
from typing import Any

from trunkline.data.files import read_lines
from trunkline.data.readers.base import FileOptions, TableOptions, read_json_lines, read_rows
from trunkline.errors import DataError
from trunkline.label.weak.config import GazetteerConfig
from trunkline.label.weak.text import is_whole, normalise_type
from trunkline.text.examples import Span
from trunkline.text.words import split_words
from trunkline_lab.data.headers import normalise_header

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
_DATES = """
january february march april may june july august september october november december
monday tuesday wednesday thursday friday saturday sunday
"""
_CALENDAR = frozenset(_DATES.split())
STOP_WORDS = frozenset(_STOP.split()) | _CALENDAR
"""Words that are no entity by themselves in nearly every text, although a song or a boat may be called so."""

# A word that is no entity by itself, but may be the beginning of one.
_INCOMPLETE = re.compile(r"north|south|east|west|(?:north|south|east|west)ern|central|\d+(?:st|nd|rd|th)?")
_WORD_BEFORE = re.compile(r"([^\W\d_]+) $")
_ABBREVIATION_BEFORE = re.compile(r"\b[^\W\d_a-z][^\W\d_]{0,3} ?\. ?$")
_WORD_AFTER = re.compile(r" ([^\W\d_]+)")
_LEAF = ""  # No word is empty, so this key of a node is no word.
_NO_NAMES: tuple[str, ...] = ()

Node = dict[str, Any]
Row = tuple[str, str, int, str]
"""Surface, concept as the file has it, count, target."""


class SurfaceTrie:
    """Finds surfaces in sentences as whole words, the longest first.

    A surface with an upper-case letter is matched as it is, another one in any case. Blanks count between letters and
    digits only, so that `Johnny's` is found in the tokenised `Johnny 's`.

    Args:
        concepts: Surface -> its concepts.
        whole_names: Whether matches are left out that look like a part of a name (see `is_fragment`).
    """

    def __init__(self, concepts: Mapping[str, tuple[str, ...]], *, whole_names: bool = True) -> None:
        self._exact: Node = {}
        self._folded: Node = {}
        self._whole_names = whole_names
        for surface, names in concepts.items():
            node = self._exact if surface != surface.lower() else self._folded
            for key in word_keys(surface)[0]:
                node = node.setdefault(key, {})
            node[_LEAF] = tuple(dict.fromkeys((*node.get(_LEAF, ()), *names)))

    def find(self, text: str) -> list[Span]:
        """The spans of a sentence; one with several concepts comes once for each."""
        keys, words = word_keys(text)
        folded = [key.lower() for key in keys]
        spans: list[Span] = []
        first = 0
        while first < len(keys):
            last, names = first, _NO_NAMES
            if keys[first] in self._exact or folded[first] in self._folded:
                last, names = self._longest(text, words, (keys, folded), first)
            start, end = words[first][0], words[max(last, first + 1) - 1][1]
            if names and not (self._whole_names and is_fragment(text, start, end)):
                spans += (Span(start, end, name) for name in names)
            first = max(last, first + 1)
        return spans

    def _longest(
        self, text: str, words: tuple[tuple[int, int], ...], rows: tuple[list[str], list[str]], first: int
    ) -> tuple[int, tuple[str, ...]]:
        best = first, _NO_NAMES
        for keys, root in zip(rows, (self._exact, self._folded), strict=True):
            node: Node | None = root
            for last in range(first, len(keys)):
                node = node.get(keys[last]) if node is not None else None
                if node is None:
                    break
                names = node.get(_LEAF)
                if names and last + 1 > best[0] and is_whole(text, words[first][0], words[last][1]):
                    best = last + 1, names
        return best


def word_keys(text: str) -> tuple[list[str], tuple[tuple[int, int], ...]]:
    """The words of a text with their offsets; a `+` goes before one that is glued to letters or digits (`A4`)."""
    words = split_words(text)
    keys: list[str] = []
    before, glue = -1, False
    for start, end in words:
        word = text[start:end]
        joins = word.isalnum()
        keys.append("+" + word if joins and glue and start == before else word)
        before, glue = end, joins
    return keys, words


def is_fragment(text: str, start: int, end: int) -> bool:
    """Whether a capitalised stretch stands next to another capitalised word, so that it may be a part of a name.

    Words of `STOP_WORDS` do not count before it (`The`), nor days and months behind it; short abbreviations before it
    (`Mr.`, `J.`) do.
    """
    if not text[start].isupper():
        return False
    before = text[max(start - 40, 0) : start]
    if _ABBREVIATION_BEFORE.search(before):
        return True
    around = ((_WORD_BEFORE.search(before), STOP_WORDS), (_WORD_AFTER.match(text, end), _CALENDAR))
    return any(match and match[1][0].isupper() and match[1].lower() not in usual for match, usual in around)


def read_gazetteer(config: GazetteerConfig) -> tuple[dict[str, tuple[str, ...]], Counter[str]]:
    """The concepts of each surface, the most frequent first.

    Surfaces are left out that are too short, or that have only `STOP_WORDS`, directions and numbers in them, unless
    several words have capitals, as in `The Who`.

    Returns:
        Surface -> concepts, and how many rows or surfaces were left out for which reason.

    Raises:
        DataError: A file that cannot be read, a malformed row where these are errors, or no surface left.
    """
    left_out: Counter[str] = Counter()
    counts: dict[str, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    normalise = partial(normalise_header, strict=True) if config.headers else normalise_type
    for surface, concept, count, target in _rows(config, left_out):
        name = normalise(concept)
        if not name:
            left_out["rows whose concept is no name"] += 1
        elif not _is_usable(surface, config.min_length):
            left_out["rows whose surface is too short or too common"] += 1
        else:
            counts[surface][target][name] += count
    concepts = {surface: _ranked(surface, targets, config) for surface, targets in counts.items()}
    support = Counter(name for names in concepts.values() for name in names)
    kept = {}
    for surface, ranked in concepts.items():
        names = tuple(name for name in ranked if support[name] >= config.min_surfaces)[: config.max_concepts]
        if names:
            kept[surface] = names
        else:
            left_out["surfaces whose concepts are too rare"] += 1
    if not kept:
        raise DataError(
            f"no surface is left ({_as_text(left_out) or 'the file is empty'})",
            path=config.gazetteer,
            expected=f"rows of {config.columns}",
            todo="Check the columns, and lower min_count, min_share, min_surfaces or min_length",
        )
    return kept, left_out


def _as_text(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {what}" for what, number in counts.items())


def _is_usable(surface: str, min_length: int) -> bool:
    if sum(character.isalnum() for character in surface) < min_length or not any(map(str.isalpha, surface)):
        return False
    words = surface.split()
    capitals = sum(word[0].isupper() for word in words)
    lower = [word.lower() for word in words]
    return capitals > 1 or not all(word in STOP_WORDS or _INCOMPLETE.fullmatch(word) for word in lower)


def _ranked(surface: str, targets: Mapping[str, Counter[str]], config: GazetteerConfig) -> tuple[str, ...]:
    names = targets.get(surface) or max(targets.items(), key=lambda item: (item[1].total(), item[0]))[1]
    least = max(config.min_count, config.min_share * names.total())
    ranked = sorted(names.items(), key=lambda item: (-item[1], item[0]))
    return tuple(name for name, count in ranked if count >= least)


def _rows(config: GazetteerConfig, left_out: Counter[str]) -> Iterator[Row]:
    path = config.gazetteer
    suffix = [suffix.lower() for suffix in path.suffixes if suffix.lower() != ".gz"][-1:]
    columns = config.columns.split(",")
    records: Iterator[tuple[int, Any]]
    if suffix == [".jsonl"]:
        records = read_json_lines(path, FileOptions())
    elif suffix == [".csv"]:
        records = _as_records(read_rows(path, TableOptions(header=False)), columns)
    elif suffix in ([".tsv"], [".txt"]):
        cells = ((number, row.split("\t")) for number, row in read_lines(path) if row.strip())
        records = _as_records(cells, columns)
    else:
        raise DataError("no gazetteer in a form that is known", path=path, expected=".tsv, .csv or .jsonl, or with .gz")
    for line, record in records:
        row = _row(record)
        if row is not None:
            yield row
        elif config.malformed == "skip":
            left_out["malformed rows"] += 1
        else:
            raise DataError(
                f"the row has no {config.columns.replace(',', ', ')}",
                path=path,
                line=line,
                expected="a surface, a concept and, if at all, a count that is a whole number",
                todo="Mend the row, name the columns in their order (`--columns`), or pass `--malformed skip`",
            )


def _as_records(rows: Iterator[tuple[int, list[str]]], columns: list[str]) -> Iterator[tuple[int, Any]]:
    """Rows by column; a missing count is 1, and a first row that names the columns is passed over."""
    short = columns[:-1] if columns[-1] == "count" else columns
    first = next(rows, None)
    if first is None:
        return
    if [cell.strip().lower() for cell in first[1]] not in (columns, short):
        rows = chain([first], rows)
    for line, cells in rows:
        names = short if len(cells) == len(short) else columns
        yield line, dict(zip(names, cells, strict=True)) if len(cells) == len(names) else {}


def _row(record: Mapping[str, Any]) -> Row | None:
    surface, concept, target = record.get("surface"), record.get("concept"), record.get("target", "")
    count = record.get("count", 1)
    if not all(isinstance(value, str) for value in (surface, concept, target)):
        return None
    if isinstance(count, str) and count.strip().isdecimal() and len(count) < 16:
        count = int(count)
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        return None
    surface, concept = " ".join(str(surface).split()), " ".join(str(concept).split())
    return (surface, concept, count, str(target).strip()) if surface and concept else None
