"""Examples, readers, tagging schemes, cards, mixtures and batching. Imports no torch except in `batching`."""
