"""Where sentences end."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from trunkline.text.examples import Span

_SENTENCE_END = re.compile(r"(?<=[.!?])[\"'”’)\]]*\s+(?=[\"'“‘(\[]*[^\W_a-z])")


def split_sentences(text: str, links: Sequence[Span], max_words: int) -> list[tuple[int, int]]:
    """Character ranges of the sentences, without blanks at their ends, none of which cuts one of `links`.

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
