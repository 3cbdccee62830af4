"""The tiny tasks of the benchmark's tests."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_suites


@pytest.fixture
def tasks(tmp_path: Path) -> dict[str, Path]:
    """Cards of a task of each family, by name."""
    return tiny_suites.write_tasks(tmp_path / "tasks")
