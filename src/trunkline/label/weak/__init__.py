"""Weak labels for one's own text: gazetteers, links, chat models and teacher models."""
