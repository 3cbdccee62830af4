"""Encoders and adapters as ONNX graphs that run without torch."""
