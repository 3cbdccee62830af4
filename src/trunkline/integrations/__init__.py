"""trunkline inside other libraries: scikit-learn, spaCy and Presidio, one module each, named after the library."""

from __future__ import annotations

import copy
from functools import lru_cache
from pathlib import Path

from trunkline.bundle.manifest import MANIFEST
from trunkline.model import Model, load


def open_shared(source: str | Path | None, *, tasks: bool = True) -> Model:
    """A model of a source, see `trunkline.load`, whose tasks are its own and whose encoder all of one process share.

    With `tasks` false it starts without those of the source.
    A bundle that was written to meanwhile is opened anew. Raises TrunklineError as `trunkline.load` does.
    """
    manifest = None if source is None else Path(source).expanduser() / MANIFEST
    written = manifest.stat().st_mtime_ns if manifest and manifest.is_file() else 0
    opened = _opened(source if source is None else str(source), written)
    model = object.__new__(Model)
    model.__dict__.update(opened.__dict__)
    model._predictor = copy.copy(opened._predictor)
    for name in model.tasks if not tasks else ():
        model.remove(name)
    return model


@lru_cache(maxsize=4)
def _opened(source: str | None, written: int) -> Model:
    return load(source)
