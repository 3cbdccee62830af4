"""Prediction with a bundle in PyTorch."""

from trunkline.inference.bundle import Bundle, load

__all__ = ["Bundle", "load"]
