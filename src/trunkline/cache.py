"""Where trunkline keeps what it can make again."""

from __future__ import annotations

import os
import sys
from pathlib import Path

CACHE_VARIABLE = "TRUNKLINE_CACHE"

_PLACES = {"win32": ("LOCALAPPDATA", "AppData/Local"), "darwin": ("", "Library/Caches")}


def cache_folder() -> Path:
    """The environment variable TRUNKLINE_CACHE, or `trunkline` in the place that the platform has for caches.

    Raises:
        RuntimeError: There is no variable and the user has no home.
    """
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen).expanduser()
    variable, place = _PLACES.get(sys.platform, ("XDG_CACHE_HOME", ".cache"))
    return Path(os.environ.get(variable) or Path.home() / place) / "trunkline"
