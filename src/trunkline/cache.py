"""Where trunkline keeps what it can make again."""

from __future__ import annotations

import os
import sys
from pathlib import Path

CACHE_VARIABLE = "TRUNKLINE_CACHE"


def cache_folder() -> Path:
    """The environment variable TRUNKLINE_CACHE, or `trunkline` in the place that the platform has for caches.

    Raises:
        RuntimeError: There is no variable and the user has no home.
    """
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        parent = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        parent = Path.home() / "Library" / "Caches"
    else:
        parent = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(parent) / "trunkline"
