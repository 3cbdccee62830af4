"""The lab's F1 is the exact one of what `predict` returns, wherever it is counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import deployed
import trunkline
from many_scripts import SCRIPTS, sentences
from trunkline.data.inputs import examples_from
from trunkline.encoder.bundle_files import Loaded
from trunkline_lab.few_labels.draws import Draw
from trunkline_lab.few_labels.methods import Answer
from trunkline_lab.few_labels.run import measures
from trunkline_lab.fitting import TaskData, file_of, fit
from trunkline_lab.resampling import counts_of, score_of_counts


@pytest.mark.parametrize("script", SCRIPTS[::3])
def test_it_is_the_exact_one(script: str, tiny: Loaded, tmp_path: Path) -> None:
    train, gold = ([examples_from(*zip(*part, strict=True), "ner")[1]] for part in sentences(script))
    [examples], [test] = train, gold
    model = trunkline.load(deployed.with_both(tiny, tmp_path / "both"), engine="torch")
    fitted = fit(TaskData("x", "ner", examples, test=test), tiny)
    model.add("x", file_of(fitted, model.bundle.manifest))
    predicted = [found["x"] for found in model.predict([example.text for example in test], ["x"])]
    true = {(n, s.start, s.end, s.label) for n, example in enumerate(test) for s in example.spans}
    found = {(n, one["start"], one["end"], one["label"]) for n, own in enumerate(predicted) for one in own}
    exact = 2 * len(true & found) / max(len(true) + len(found), 1)
    draw = Draw("x", "ner", "natural", 8, 0, examples)
    assert measures(draw, test, Answer(predicted, 0.0, 0))["f1"] == pytest.approx(exact, abs=1e-5)
    counts = np.sum(counts_of("ner", test, predicted), axis=0)
    assert score_of_counts("ner")(counts) == pytest.approx(exact)
    assert fitted.test["f1"] == pytest.approx(exact)
