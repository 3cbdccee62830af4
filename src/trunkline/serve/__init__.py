"""Bundles behind HTTP: one process, texts of many requests computed together, bounds on everything that comes in."""
