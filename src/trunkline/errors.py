"""User errors: each says what was given, what was expected and what to do next.

The command line prints these without a traceback; anything else that escapes is a bug of ours.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


class TrunklineError(Exception):
    """A problem that the user can mend.

    `given` is what was found, with the value in question, `expected` would have been right, and `todo` mends it.
    """

    def __init__(self, given: str, *, expected: str = "", todo: str = "") -> None:
        self.given, self.expected, self.todo = given, expected, todo
        super().__init__(given)

    def __str__(self) -> str:
        parts = (self.given, self.expected and f"Expected {self.expected}", self.todo)
        # A list of problems ends its last line itself.
        ended = (part if part.endswith("\n") else part.rstrip(".") + ". " for part in parts if part)
        return "".join(ended).rstrip()


class DataError(TrunklineError):
    """A file that cannot be read as asked; names the file and, where there is one, the line (counted from 1)."""

    def __init__(
        self, given: str, *, path: str | Path, line: int | None = None, expected: str = "", todo: str = ""
    ) -> None:
        self.path = str(path)
        self.line = line
        where = self.path if line is None else f"{self.path}:{line}"
        super().__init__(f"{where}: {given}", expected=expected, todo=todo)


class RecipeError(TrunklineError):
    """A recipe with problems; all of them are listed at once."""

    def __init__(self, path: str | Path, problems: Sequence[str]) -> None:
        self.problems = list(problems)
        listed = "\n".join(f"  - {problem}" for problem in self.problems)
        noun = "problem" if len(self.problems) == 1 else "problems"
        super().__init__(f"{path}: {len(self.problems)} {noun}:\n{listed}")


class EncoderError(TrunklineError):
    """An encoder that cannot be found, is not supported or does not verify."""


class MismatchError(TrunklineError):
    """An adapter or checkpoint that belongs to another backbone, family or format version."""


class TrainingError(TrunklineError):
    """Training that cannot go on, such as a loss that is not finite."""


@contextmanager
def needs(extra: str, what: str) -> Iterator[None]:
    """Turns an ImportError of a block into a TrunklineError: `what` the user asked for needs the `extra`."""
    try:
        yield
    except ImportError as error:
        if (error.name or "").split(".")[0] == "trunkline":
            raise
        raise TrunklineError(
            f"{what} needs the package {error.name or error}, which is not installed",
            expected=f"the extra [{extra}]",
            todo=f"pip install 'trunkline[{extra}]'",
        ) from error


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint such as `; did you mean 'label'?`, or nothing where no known word is near."""
    match = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {match[0]!r}?" if match else ""
