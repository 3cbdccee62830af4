"""Bundles that all tests of the npm package share."""

from __future__ import annotations

from pathlib import Path

import pytest
from web_bundles import default_bundle, tiny_bundle, tiny_encoder


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the bundles `float32` and `int8`, tiny, and `default`; treat it as read-only."""
    place = tmp_path_factory.mktemp("bundles")
    loaded = tiny_encoder(place / "encoder")
    tiny_bundle(loaded, place, "float32")
    tiny_bundle(loaded, place, "int8")
    default_bundle(place / "default")
    return place
