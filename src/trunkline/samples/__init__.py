"""Sample data of a mobile assistant's domain, written for trunkline; no text here was fetched from anywhere.

`tasks/` holds four downstream tasks, every example written by hand. `grammar/` holds the word lists and the shapes of
sentences and pairs from which `generator` makes the seeded pre-finetuning sample in `prefinetune/`.
"""

from pathlib import Path

__all__ = ["folder"]


def folder() -> Path:
    """Return the package folder of the samples, which holds `tasks/`, `grammar/` and `prefinetune/`."""
    return Path(__file__).resolve().parent
