"""Paragraphs with links, typed by a gazetteer that knows under which table headers each link target was seen.

The paragraphs are JSON lines (`title`, and `p`: list of `t` text and `l` [[start, end, target], ...]); the gazetteer is
a table of header, surface, target and count. A link becomes an entity whose labels are the target's most frequent
headers.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from pydantic import Field

from trunkline.data.load import read_lines
from trunkline.errors import DataError
from trunkline.text.examples import NerExample, Span
from trunkline.text.words import SENTENCE_END, split_words
from trunkline_lab.data.headers import normalise_header
from trunkline_lab.data.readers.base import FileOptions, get_key, read_json_lines, shorten
from trunkline_lab.data.readers.spans import trim_span

_BRACKET = re.compile(r"\s*\([^)]*\)$")
_COUNT = re.compile(r"\d{1,12}")
_MIN_NAME = 4


class LinkedGazetteerOptions(FileOptions):
    """Options of linked paragraphs; the gazetteer is named from the folder of the paragraphs."""

    gazetteer: str
    min_count: int = Field(default=2, ge=1, description="Cells in which a target must stand under a header.")
    min_targets: int = Field(default=1, ge=1, description="Different targets that a header must have.")
    strict_headers: bool = Field(default=False, description="Whether headers of measures are noise, too.")
    propagate: bool = Field(
        default=False,
        description="Whether a name that an article links once, and its title, is typed wherever it recurs in it.",
    )
    max_labels: int = Field(default=3, ge=1)
    max_words: int = Field(default=60, ge=5, description="Words of a sentence, after which it is cut at a blank.")


def read_linked_gazetteer(path: str | Path, options: LinkedGazetteerOptions) -> Iterator[NerExample]:
    """Yields the sentences with at least one typed link; a link has up to `max_labels` spans, one for each label."""
    types = read_gazetteer(Path(path).parent / options.gazetteer, options)
    return _sentences(path, options, types)


def read_gazetteer(path: Path, options: LinkedGazetteerOptions) -> dict[str, tuple[str, ...]]:
    """The labels of each link target, the most frequent first.

    Rows without four columns are passed over: some cells have line breaks in them, which the table does not escape.
    """
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for _, row in read_lines(path):
        cells = row.split("\t")
        if len(cells) != 4 or not _COUNT.fullmatch(cells[3]):
            continue
        header = normalise_header(cells[0], strict=options.strict_headers)
        if header:
            counts[cells[2]][header] += int(cells[3])
    known = Counter(header for headers in counts.values() for header in headers)
    types = {}
    for target, headers in counts.items():
        ranked = sorted(headers.items(), key=lambda item: (-item[1], item[0]))
        labels = tuple(header for header, count in ranked if _is_kept(count, known[header], options))
        if labels:
            types[target] = labels[: options.max_labels]
    if not types:
        raise DataError(
            "no typed link target", path=path, expected="rows of header, surface, target and count, tab-separated"
        )
    return types


def _is_kept(count: int, targets: int, options: LinkedGazetteerOptions) -> bool:
    return count >= options.min_count and targets >= options.min_targets


def _sentences(
    path: str | Path, options: LinkedGazetteerOptions, types: dict[str, tuple[str, ...]]
) -> Iterator[NerExample]:
    for line, record in read_json_lines(path, encoding=options.encoding):
        items = get_key(record, "p", path, line)
        if not isinstance(items, list):
            raise DataError(f"`p` is {shorten(items)}", path=path, line=line, expected="a list of paragraphs")
        paragraphs = [_paragraph(item, path, line) for item in items]
        names = _names(str(record.get("title", "")), paragraphs, types) if options.propagate else {}
        for text, links in paragraphs:
            mentions = sorted([*links, *_recurring(text, links, names)], key=lambda span: span.start)
            for start, end in split_sentences(text, mentions, options.max_words):
                spans = tuple(
                    Span(link.start - start, link.end - start, label)
                    for link in mentions
                    if start <= link.start and link.end <= end
                    for label in types.get(link.label, ())
                )
                if spans:
                    yield NerExample(text[start:end], split_words(text[start:end]), spans)


def split_sentences(text: str, links: Iterable[Span], max_words: int) -> list[tuple[int, int]]:
    """Character ranges of the sentences, without blanks at their ends, none of which cuts one of `links`.

    A sentence ends after `.`, `!` or `?` before a blank and an upper-case letter or digit. This also ends one after
    abbreviations, which does no harm here. Longer ones are cut at the last blank that keeps `max_words`.
    """
    inside = {position for link in links for position in range(link.start + 1, link.end)}
    ends = [match.end() for match in SENTENCE_END.finditer(text) if match.end() not in inside]
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


def _names(title: str, paragraphs: list[tuple[str, list[Span]]], types: dict[str, tuple[str, ...]]) -> dict[str, str]:
    """The names of an article with their targets: the words of its typed links, and its title without brackets.

    Only names that begin with a capital and are not short, because others are common words.
    """
    found = {_BRACKET.sub("", title): title}
    for text, links in paragraphs:
        for link in links:
            found.setdefault(text[link.start : link.end], link.label)
    return {
        name: target
        for name, target in found.items()
        if target in types and len(name) >= _MIN_NAME and name[0].isupper()
    }


def _recurring(text: str, links: list[Span], names: dict[str, str]) -> Iterator[Span]:
    if not names:
        return
    listed = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    linked = {position for link in links for position in range(link.start, link.end)}
    for match in re.finditer(rf"(?<!\w)(?:{listed})(?!\w)", text):
        if linked.isdisjoint(range(*match.span())):
            yield Span(*match.span(), names[match[0]])


def _paragraph(item: Any, path: str | Path, line: int) -> tuple[str, list[Span]]:
    text = get_key(item, "t", path, line) if isinstance(item, dict) else None
    links = item.get("l", []) if isinstance(item, dict) else None
    if not isinstance(text, str) or not isinstance(links, list):
        raise DataError(
            f"the paragraph is {shorten(item)}",
            path=path,
            line=line,
            expected="an object with `t`, a text, and `l`, a list of links",
        )
    return text, [trim_span(text, *_link(link, path, line), path, line) for link in links]


def _link(item: Any, path: str | Path, line: int) -> tuple[Any, Any, Any]:
    if isinstance(item, list) and len(item) == 3:
        return item[0], item[1], item[2]
    raise DataError(f"the link is {shorten(item)}", path=path, line=line, expected="[start, end, target]")
