"""Weak labels and text pairs from one's own text."""
