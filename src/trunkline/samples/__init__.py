"""Sample data of a mobile assistant's domain, written for trunkline; no text here was fetched from anywhere.

`tasks/` holds four downstream tasks, every example written by hand. `prefinetune/` holds a sample of labelled sentences
and of pairs, made from word lists and shapes of sentences by a seeded generator.
"""

from pathlib import Path

FOLDER = Path(__file__).resolve().parent
