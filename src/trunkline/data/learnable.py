"""Whether labelled examples can be learnt from: what cannot is refused, what hardly can is warned of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from trunkline.errors import TrunklineError
from trunkline.text.examples import NerExample, QaExample

UNKNOWN = 0.05
"""Share of unknown tokens above which a task is likely to be in another language than the encoder."""

FEW = 4
"""Examples of a class below which its quality is hardly known."""


def check_learnable(family: str, train: Sequence[Any], dev: Sequence[Any] = (), test: Sequence[Any] = ()) -> list[str]:
    """Checks the labels of a task before anything is fitted.

    Returns:
        Warnings: rare classes, and labels of dev or test that train lacks.

    Raises:
        TrunklineError: There is nothing to learn: no example, a single class, no entity, no answer.
    """
    if not train:
        raise TrunklineError("there are no examples", expected="at least two texts with their labels")
    seen = Counter(label for example in train for label in _labels(example))
    if family == "qa":
        if not seen:
            raise TrunklineError("no question has an answer", expected="some answers", todo="Check the answers' key")
        return []
    if family == "ner" and not seen:
        raise TrunklineError(
            f"none of the {len(train)} sentences has an entity",
            expected="at least one labelled entity of each type",
            todo="Check the labels; about 8 of each type make a useful task",
        )
    if family == "classification" and len(seen) < 2:
        raise TrunklineError(
            f"all {len(train)} texts have the label {next(iter(seen), '')!r}",
            expected="at least two labels",
            todo="Add texts of another label",
        )
    texts = {" ".join(example.text.split()) for example in train}
    if len(texts) < 2:
        raise TrunklineError("all examples have one text", expected="different texts", todo="Add more texts")
    warnings = []
    rare = sorted(label for label, count in seen.items() if count < FEW)
    if rare:
        warnings.append(f"fewer than {FEW} examples of {_listed(rare)}: scores of these say little; 8 or more would do")
    for part, examples in (("dev", dev), ("test", test)):
        unknown = sorted({label for example in examples for label in _labels(example)} - seen.keys())
        if unknown:
            warnings.append(f"{part} has labels that train lacks, which count as misses: {_listed(unknown)}")
    return warnings


def unit_warnings(missed: Sequence[str], unknown: float) -> list[str]:
    """Warnings of what an encoder cannot tell apart in examples.

    Args:
        missed: Labelled spans that no prediction can hit, from `Family.unheld`.
        unknown: The share of tokens that the encoder does not know.
    """
    found = []
    if missed:
        found.append(
            f"{len(missed)} labelled spans do not begin and end where words do, and count as misses: {_listed(missed)}"
        )
    if unknown > UNKNOWN:
        found.append(f"the encoder does not know {unknown:.0%} of the tokens: take one for this language")
    return found


def _labels(example: Any) -> set[str]:
    if isinstance(example, NerExample):
        return {span.label for span in example.spans}
    if isinstance(example, QaExample):
        return {"answer"} if example.answers else set()
    return {example.label}


def _listed(labels: Sequence[str]) -> str:
    return ", ".join(labels[:10]) + (f" and {len(labels) - 10} more" if len(labels) > 10 else "")
