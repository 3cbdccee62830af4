"""The F1 that is printed is the exact one of what `predict` returns, for every reader and script."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import pytest

import deployed
import trunkline
from many_scripts import SCRIPTS, sentences
from trunkline.data.load import read_examples
from trunkline.data.stream import load_texts
from trunkline.encoder.bundle_files import Loaded
from trunkline.encoder.resolve import find_embedded
from trunkline.model import Model
from written_forms import WRITERS, Texts

needs_package = pytest.mark.skipif(find_embedded()[0] is None, reason="the default encoder is not installed")

DIAGONAL = {(form, SCRIPTS[number % len(SCRIPTS)]) for number, form in enumerate(WRITERS)}
CELLS = [pytest.param(*cell, marks=() if cell in DIAGONAL else pytest.mark.slow) for cell in product(WRITERS, SCRIPTS)]

Found = set[tuple[int, int, int, str]]


@pytest.fixture(scope="module")
def model() -> Model:
    return trunkline.load()


def without_blanks(number: int, text: str, start: int, end: int, label: str) -> tuple[int, int, int, str]:
    """An entity by its characters that are no blanks, because a file of tokens says nothing of these."""
    first, last = (len("".join(text[:at].split())) for at in (start, end))
    return number, first, last, label


def exact_f1(gold: Texts, texts: list[str], predicted: list[list[dict[str, Any]]]) -> float:
    """Counted by nothing but sets of spans."""
    assert ["".join(text.split()) for text in texts] == ["".join(text.split()) for text, _ in gold]
    true: Found = {without_blanks(n, text, *one) for n, (text, own) in enumerate(gold) for one in own}
    found: Found = {
        without_blanks(n, texts[n], one["start"], one["end"], one["label"])
        for n, own in enumerate(predicted)
        for one in own
    }
    for n, own in enumerate(predicted):
        assert all(texts[n][one["start"] : one["end"]] == one["text"] for one in own)
    return 2 * len(true & found) / max(len(true) + len(found), 1)


@needs_package
@pytest.mark.parametrize(("form", "script"), CELLS)
def test_the_printed_f1_is_the_exact_one(model: Model, tmp_path: Path, form: str, script: str) -> None:
    parts = []
    for name, texts in zip(("train", "test"), sentences(script), strict=True):
        (tmp_path / name).mkdir()
        parts.append((texts, WRITERS[form](tmp_path / name, texts)))
    (_, train), (gold, test) = parts
    examples = read_examples(test, "ner").examples
    report = model.fit("x", read_examples(train, "ner").examples, test=(examples, None), replace=True)
    texts = [text for text, _ in load_texts(test)]
    exact = exact_f1(gold, texts, [found["x"] for found in model.predict(texts)])
    assert report.test["f1"] == pytest.approx(exact)
    assert model.evaluate("x", examples).scores["f1"] == pytest.approx(exact)


@pytest.mark.parametrize("engine", ["onnx", "torch"])
def test_so_it_is_with_every_engine(engine: str, tiny: Loaded, tmp_path: Path) -> None:
    train, gold = sentences("Latin")
    model = trunkline.load(deployed.with_both(tiny, tmp_path / "both"), engine=engine)
    texts, entities = zip(*gold, strict=True)
    report = model.fit("x", *zip(*train, strict=True), family="ner", test=(texts, entities))
    exact = exact_f1(gold, list(texts), [found["x"] for found in model.predict(texts, ["x"])])
    assert 0 < exact < 1
    assert report.test["f1"] == pytest.approx(exact)
    assert model.evaluate("x", texts, entities).scores["f1"] == pytest.approx(exact)
