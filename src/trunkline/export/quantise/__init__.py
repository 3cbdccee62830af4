"""Quantised graphs of a backbone: 8-bit and 4-bit weights, calibration, and the gate that every plan has to pass."""
