"""What computes features of texts through adapters: ONNX Runtime by default, or torch."""
