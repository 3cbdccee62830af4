"""The one format of bundles: manifest, tensors, adapters and task files, edits, signature. No torch."""
