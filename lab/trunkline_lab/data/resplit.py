"""Splits taken out of other ones, for data sets that come without them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field

from trunkline.text.examples import Example, PairExample, QaExample


class Resplit(BaseModel):
    """A split that is taken out of another one, because the data set comes without it.

    Examples with the same text stay together. Which ones are taken depends on a hash of the text and the seed, so that
    it is the same on every machine and hardly changes when examples are added.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, allow_inf_nan=False)

    source: str = Field(alias="from")
    fraction: float = Field(gt=0, lt=1)
    seed: int = 0


def divide(examples: list[Example], base: str, resplit: Mapping[str, Resplit]) -> dict[str, list[Example]]:
    """Takes the splits of `resplit` out of the examples of `base` in turn, their order kept; the rest is `base`."""
    left = list(examples)
    total = len({_key(example) for example in examples})
    parts: dict[str, list[Example]] = {}
    for split, rule in resplit.items():
        if rule.source != base:
            continue
        ranked = sorted({_key(example) for example in left}, key=lambda key: _rank(key, rule.seed))
        taken = set(ranked[: round(rule.fraction * total)])
        parts[split] = [example for example in left if _key(example) in taken]
        left = [example for example in left if _key(example) not in taken]
    return {**parts, base: left}


def _key(example: Example) -> str:
    if isinstance(example, QaExample):  # the questions about a context stay together
        text = example.context
    else:
        text = example.left if isinstance(example, PairExample) else example.text
    return " ".join(text.lower().split())


def _rank(key: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}\0{key}".encode("utf-8", "surrogatepass")).digest()
