"""Hand-written sample text for pre-finetuning an encoder on a mobile assistant's domain.

`grammar/` holds the word lists and the shapes of sentences and pairs, `generator` makes a seeded sample from them, and
`prefinetune/` holds the sample that ships with the package. No text here was fetched from anywhere.
"""

from pathlib import Path

__all__ = ["folder"]


def folder() -> Path:
    """Return the package folder of the samples, which holds `grammar/` and `prefinetune/`."""
    return Path(__file__).resolve().parent
