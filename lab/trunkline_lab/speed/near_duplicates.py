"""How long near-duplicate search takes, and how many planted near-duplicates it finds.

    trunkline-lab speed near-duplicates --sentences 1000000 --out near-duplicates.json

Made are as many sentences to index as to look up, of 8 to 30 words drawn by Zipf's law from words of two to four
syllables; one in twenty of those looked up is an indexed one with a word replaced, left out or misspelt. Recall is
counted over the planted ones whose exact similarity to their original reaches the threshold.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from trunkline.bundle.files import write_atomic
from trunkline.data.overlap import OverlapIndex, jaccard, normalise, shingles

_ONSETS = "b c d f g h k l m n p r s t v w br ch cl dr fl gr pl sh st th tr"
_VOWELS = "a e i o u ai ea ee oa ou"
ONSETS, VOWELS = _ONSETS.split(), _VOWELS.split()
CODAS = ["", "", "n", "r", "s", "t", "l", "nd", "st", "m"]
VOCABULARY = 30_000
PLANTED = 0.05
CHUNK = 50_000


def make_words(rng: np.random.Generator) -> list[str]:
    """`VOCABULARY` distinct words."""
    words: dict[str, None] = {}
    while len(words) < VOCABULARY:
        parts = [part[rng.integers(len(part))] for _ in range(rng.integers(2, 5)) for part in (ONSETS, VOWELS, CODAS)]
        words["".join(parts)] = None
    return list(words)


def make_sentences(count: int, words: list[str], rng: np.random.Generator) -> Iterator[str]:
    """Sentences of 8 to 30 words."""
    weights = 1 / np.arange(1, len(words) + 1)
    limits = np.cumsum(weights / weights.sum())
    for first in range(0, count, CHUNK):
        lengths = rng.integers(8, 31, size=min(CHUNK, count - first))
        drawn = np.minimum(np.searchsorted(limits, rng.random(int(lengths.sum()))), len(words) - 1)
        for part in np.split(drawn, np.cumsum(lengths)[:-1]):
            yield " ".join(words[i] for i in part).capitalize() + "."


def edit(sentence: str, words: list[str], rng: np.random.Generator) -> str:
    """The sentence with one word replaced, left out or misspelt."""
    parts = sentence.split()
    place = int(rng.integers(1, len(parts) - 1))
    word = parts[place]
    how = rng.integers(3)
    parts[place : place + 1] = ([words[rng.integers(len(words))]], [], [word[:1] + word[2:]])[how]
    return " ".join(parts)


def measure(count: int, seed: int, threshold: float) -> dict[str, object]:
    """Seconds to index `count` sentences and to look `count` up, and the recall of planted near-duplicates."""
    rng = np.random.default_rng(seed)
    words = make_words(rng)
    indexed = list(make_sentences(count, words, rng))
    asked = list(make_sentences(count, words, rng))
    planted = rng.choice(count, size=int(PLANTED * count), replace=False)
    originals = dict(zip(planted.tolist(), rng.choice(count, size=len(planted), replace=False).tolist(), strict=True))
    for place, original in originals.items():
        asked[place] = edit(indexed[original], words, rng)
    began, used = time.perf_counter(), time.process_time()
    index = OverlapIndex((("indexed", text) for text in indexed), threshold)
    built = time.perf_counter()
    matches = [index.find(text) for text in asked]
    found, used = time.perf_counter(), time.process_time() - used
    near = [
        place
        for place, original in originals.items()
        if jaccard(*(shingles(normalise(text)) for text in (asked[place], indexed[original]))) >= threshold
    ]
    return {
        "sentences_indexed": count,
        "sentences_looked_up": count,
        "threshold": threshold,
        "seed": seed,
        "seconds_index": round(built - began, 2),
        "seconds_look_up": round(found - built, 2),
        "seconds": round(found - began, 2),
        "cpu_seconds": round(used, 2),
        "planted": len(originals),
        "planted_at_threshold": len(near),
        "found_at_threshold": sum(matches[place] is not None for place in near),
        "recall": sum(matches[place] is not None for place in near) / len(near) if near else None,
        "found_not_planted": sum(m is not None for i, m in enumerate(matches) if i not in originals),
        "peak_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "cores": os.cpu_count(),
        "load_before": list(os.getloadavg()),
        "python": platform.python_version(),
        "machine": platform.machine(),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Parses the options, measures, and writes the result."""
    parser = argparse.ArgumentParser(description="Time near-duplicate search and count what it finds.")
    parser.add_argument("--sentences", type=int, default=1_000_000, help="sentences to index, and as many to look up")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threshold", type=float, default=0.8)
    parser.add_argument("--out", type=Path, default=Path("near-duplicates.json"))
    options = parser.parse_args(arguments)
    if options.sentences < 100:
        parser.error(f"--sentences is {options.sentences}; give at least 100, so that some are planted")
    result = json.dumps(measure(options.sentences, options.seed, options.threshold), indent=2) + "\n"
    write_atomic(options.out, result)
    sys.stdout.write(result)


if __name__ == "__main__":
    main()
