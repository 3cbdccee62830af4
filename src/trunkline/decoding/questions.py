"""A question and its context in one text: where the context begins, and the windows that an encoder reads."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trunkline.data.batching import UnitText, word_units
from trunkline.data.tokenize import IntArray, Tokens, Window
from trunkline.errors import TrunklineError

OVERLAP = 32
"""Tokens of the context that neighbouring windows share."""

Words = Sequence[tuple[int, int]]


def context_start(text: str) -> int:
    """Where the context begins in a text whose first line is the question.

    Raises:
        TrunklineError: The text has one line.
    """
    end = text.find("\n")
    if end < 0:
        raise TrunklineError(
            f"the text {text[:60]!r} has one line",
            expected="a question, a line feed and the context, for question answering",
            todo="Write f'{question}\\n{context}', or leave tasks of the family qa out",
        )
    return end + 1


def question_units(text: str, words: Words, tokens: Tokens) -> UnitText:
    """Unit 0, which says that there is no answer, and the words of the context; see `question_windows`.

    Raises:
        TrunklineError: The text has one line, so there is no context.
    """
    begin = context_start(text)
    return question_windows(begin, [word for word in words if word[0] >= begin], tokens)


def question_windows(begin: int, words: Words, tokens: Tokens) -> UnitText:
    """Windows of a context, each with the question before it, and their units.

    A window is the opening token, the question, the closing token and a piece of the context. The closing token stands
    between the two and not behind them, so that a window is no longer than that of any other text; token types are 0
    throughout, as for all texts here. Only where the whole does not fit one window are there several, and there a
    question is cut off behind half a window. Each word is pooled where its tokens have most context. Unit 0 is the mean
    of the windows' opening tokens, so that all of them have a say in whether there is an answer.

    Args:
        begin: Where the context begins in the text.
        words: The words of the context, as offsets in the text.
        tokens: The tokens of the text.
    """
    ids = np.zeros(len(tokens.offsets), dtype=np.int64)
    for window in tokens.windows:
        ids[window.first : window.first + len(window.ids) - 2] = window.ids[1:-1]
    opening, closing = tokens.windows[0].ids[[0, -1]]
    asked = tokens.offsets[:, 0] < begin - 1
    told = ~asked & (tokens.offsets[:, 1] > begin)
    question, context, offsets = ids[asked], ids[told], tokens.offsets[told]
    room = max(len(window.ids) for window in tokens.windows) - 2
    if len(question) + len(context) > room:
        question = question[: room // 2]
    head = np.concatenate(([opening], question, [closing]))
    starts, uppers, space = _pieces(len(context), room - len(question))
    windows = [np.concatenate((head, context[start : start + space])) for start in starts]
    sizes = np.asarray([len(window) for window in windows])
    first = np.cumsum(sizes) - sizes
    # The words' tokens, counted from 1 as in one window around the whole context; 0 for a word without a token.
    whole = word_units(Tokens(offsets, (Window(np.zeros(len(context) + 2, np.int64), 0, (0, len(context))),)), words)
    owner = np.searchsorted(uppers, whole.token - 1, side="right")
    place = np.where(whole.token > 0, first[owner] + len(head) + whole.token - 1 - starts[owner], 0)
    return UnitText(
        np.concatenate(windows),
        tuple(sizes.tolist()),
        np.concatenate((first, place)),
        np.concatenate((np.zeros(len(windows), dtype=np.int64), whole.unit + 1)),
        1 + len(words),
    )


def _pieces(count: int, space: int) -> tuple[IntArray, IntArray, int]:
    """Where pieces of at most `space` of `count` tokens start, up to which token each answers, and their length.

    Where two overlap, each answers for the half of the shared tokens that is nearer to its middle.
    """
    overlap = min(OVERLAP, space // 2)
    starts = np.arange(0, max(count - overlap, 1), space - overlap) if count > space else np.zeros(1, dtype=np.int64)
    return starts, starts[1:] + overlap // 2, space
