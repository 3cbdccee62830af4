"""Texts: examples, words, tokens, windows, packing, tags and spans. No torch."""
