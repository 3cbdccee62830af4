"""Training objectives as functions of tensors; they know nothing of encoders, files or loops."""
