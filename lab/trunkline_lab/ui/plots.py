"""Plots as PNG files; matplotlib is imported when one is drawn, and no window is needed."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from trunkline.atomic import write_atomic

_INK, _SOFT = "#1f2933", "#7b8794"
_LONGEST_NAME = 48


def _title(figure: Any, title: str, below: str) -> None:
    height = figure.get_figheight()
    figure.text(0.02, 1 - 0.15 / height, title, va="top", color=_INK, size=14, weight="bold")
    figure.text(0.02, 1 - 0.44 / height, below, va="top", color=_SOFT, size=9.5)


def _save(figure: Any, path: Path) -> Path:
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=150)
    write_atomic(path, content.getvalue())
    return path


def _shorten(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"
