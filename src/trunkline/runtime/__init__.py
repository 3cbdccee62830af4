"""Prediction with a deployed bundle, without torch."""

from trunkline.runtime.predictor import Runtime, load

__all__ = ["Runtime", "load"]
