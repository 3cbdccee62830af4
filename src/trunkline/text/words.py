"""Words of a raw text."""

from __future__ import annotations

import re

_WORD = re.compile(r"[^\W\d_]+|\d+|[^\w\s]|_", re.UNICODE)


def split_words(text: str) -> tuple[tuple[int, int], ...]:
    """Character offsets of the words of a raw text.

    Runs of letters, runs of digits and single symbols are words, so that `7pm` or `€5` can be split by an entity
    boundary.
    """
    return tuple(match.span() for match in _WORD.finditer(text))
