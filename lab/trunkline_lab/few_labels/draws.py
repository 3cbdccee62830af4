"""Draws of few labels: n labels a class in all, no dev part besides, the same for every method."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trunkline.tasks import FAMILIES, Family
from trunkline_lab.data.cards import load_card
from trunkline_lab.data.sample import draw

NER = ("crossner_music", "crossner_science", "crossner_ai", "crossner_literature", "atis_slots", "hwu64_slots")
SPARE = (
    *("subj", "snips_intents", "atis_intents", "sms_spam", "tweeteval_irony", "tweeteval_hate", "tweeteval_sentiment"),
    *("tweeteval_stance_abortion", "tweeteval_stance_feminist", "tweeteval_stance_hillary", "sample_intents"),
)
"""Classification tasks that settings are chosen on: none of the benchmark's, and not all that are spare."""

JUDGES = (
    *("cr", "sst5", "tweeteval_emotion", "ag_news", "sst2", "financial_phrasebank", "trec", "tweeteval_offensive"),
    *("20newsgroups", "hwu64", "goemotions", "banking77", "clinc150", "conll2003", "finer_ord", "mit_restaurant"),
    *("mit_movie_eng", "snips_slots", "wnut17", "btc", "bc5cdr", "ncbi_disease", "stackoverflow_ner"),
)
"""Tasks that nothing of LoRA was chosen on; `cr` and `sst5` were among those of the head's settings."""

KINDS = ("balanced", "natural")
SIZES = (8, 16)
MOST_TEST = 1000
MOST_CHARACTERS = 600
"""Where texts of classification are cut, for every method: about one window."""


@dataclass(frozen=True)
class Draw:
    """A draw of a task: `kind` is balanced or natural, `size` the labels a class, `train` the examples."""

    task: str
    family: str
    kind: str
    size: int
    seed: int
    train: Sequence[Any]


@dataclass(frozen=True)
class Pool:
    """A task's examples that draws are taken from, and those of test, at most `MOST_TEST`, drawn once."""

    task: str
    family: str
    pool: Sequence[Any]
    test: Sequence[Any]

    @staticmethod
    def of(name: str) -> Pool:
        """Of a card."""
        card = load_card(name)
        pool, test = (_cut(card.load(part)) for part in ("train", "test" if "test" in card.splits else "dev"))
        test = draw(test, FAMILIES[card.family].classes, seed=0, sentences=MOST_TEST)
        return Pool(card.name, card.family, pool, test)

    def draw(self, kind: str, size: int, seed: int) -> Draw:
        """Balanced: `size` examples of each class, as far as there are. Natural: as many in all, drawn at random."""
        family = FAMILIES[self.family]
        rows = draw(self.pool, family.classes, seed=seed, per_class=size)
        if kind == "natural":
            rows = _natural(self.pool, family, len(rows), seed)
        return Draw(self.task, self.family, kind, size, seed, rows)

    def draws(self, kinds: Sequence[str], sizes: Sequence[int], seeds: int) -> Iterator[Draw]:
        """All draws, a seed after the other, so that what is cut short has every kind and size."""
        for seed in range(seeds):
            yield from (self.draw(kind, size, seed) for size in sizes for kind in kinds)


def _cut(examples: Sequence[Any]) -> list[Any]:
    from dataclasses import replace

    from trunkline_lab.benchmark.inputs import cut

    return [replace(e, text=cut(e.text, MOST_CHARACTERS)) if hasattr(e, "label") else e for e in examples]


def _natural(pool: Sequence[Any], family: Family, count: int, seed: int) -> list[Any]:
    """Of two classes at least, as no more than one cannot be learnt."""
    for attempt in range(100):
        rows = draw(pool, family.classes, seed=seed + 1000 * attempt, sentences=count)
        if len({name for example in rows for name in family.classes(example)}) > 1:
            return rows
    raise AssertionError("the pool has one class")


BINS = 15


def calibration_error(said: Any, right: Any) -> float:
    """Mean distance of said probability and share of right ones, over `BINS` bins of equal mass."""
    said, right = np.asarray(said, float), np.asarray(right, float)
    order = np.argsort(said, kind="stable")
    bins = [rows for rows in np.array_split(order, BINS) if len(rows)]
    gaps = [abs(float(said[rows].mean()) - float(right[rows].mean())) * len(rows) for rows in bins]
    return sum(gaps) / max(len(said), 1)
