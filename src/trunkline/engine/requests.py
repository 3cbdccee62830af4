"""What prediction is asked for: texts and names of tasks, checked before any work is done."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from trunkline.errors import TrunklineError

MAX_CHARACTERS = 1_000_000
"""The longest text."""

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def readable(texts: Iterable[str]) -> list[str]:
    """The texts with the replacement character for halves of surrogate pairs, which no tokenizer takes.

    Offsets stay what they are: a half is one character, too.
    """
    return [_LONE_SURROGATE.sub("\ufffd", text) for text in texts]


def check_texts(texts: Sequence[str]) -> None:
    """Raises TrunklineError unless this is a list of texts, none of them longer than `MAX_CHARACTERS`."""
    if isinstance(texts, str):
        raise TrunklineError("predict was given one string", expected="a list of texts", todo="Write predict([text])")
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise TrunklineError(f"text {index} is a {type(text).__name__}", expected="a string")
        if len(text) > MAX_CHARACTERS:
            raise TrunklineError(
                f"text {index} has {len(text)} characters", expected=f"at most {MAX_CHARACTERS}", todo="Split it"
            )


def chosen_tasks(names: Sequence[str] | None, known: Iterable[str]) -> list[str]:
    """The tasks that are meant, all of them in alphabetical order by default.

    Raises:
        TrunklineError: One string instead of a list, or a task that is not in the bundle.
    """
    if isinstance(names, str):
        raise TrunklineError(f"tasks={names!r}", expected=f"a list of names, such as [{names!r}]")
    there = sorted(known)
    unknown = sorted({str(name) for name in names or ()} - set(there))
    if unknown:
        raise TrunklineError(
            f"tasks {unknown} are not in this bundle", expected="some of " + (", ".join(there) or "(none)")
        )
    return there if names is None else list(names)
