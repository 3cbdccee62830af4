"""Extras of the package: what is missing is said once, with the command that installs it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from trunkline.errors import TrunklineError


@contextmanager
def needs(extra: str, what: str) -> Iterator[None]:
    """Turns an ImportError of a block into an error that names the extra.

    Args:
        extra: As in pyproject.toml, such as `train`.
        what: What the user asked for.

    Raises:
        TrunklineError: A package of the extra is not installed.
    """
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
