"""Trackers beside the log of JSON lines."""

import pytest

from trunkline.errors import TrunklineError
from trunkline.training.log import require_trackers


def test_a_tracker_that_is_not_installed_is_named(monkeypatch):
    assert require_trackers(["tensorboard"]) == ["tensorboard"]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "wandb" else object())
    with pytest.raises(TrunklineError, match="wandb"):
        require_trackers(["tensorboard", "wandb"])
