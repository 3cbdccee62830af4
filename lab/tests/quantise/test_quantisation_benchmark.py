"""The benchmark of quantisation: its arithmetic, and that every section runs, on a tiny encoder and made-up data."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

import tiny_models
from trunkline.data.load import load_examples
from trunkline.errors import TrunklineError
from trunkline_lab.fitting import TaskData
from trunkline_lab.quantise import benchmark as quantisation
from trunkline_lab.quantise import sections
from trunkline_lab.resampling import score_of_counts

AMOUNTS = sections.Amounts(calibration=5, texts=2, rounds=4, train=30, judged=12, read=5, pieces=(300,))


@pytest.fixture
def made_up(tmp_path, monkeypatch) -> TaskData:
    """Names of made-up data in place of those of data sets."""
    path = tiny_models.write_jsonl(tmp_path / "ner.jsonl", tiny_models.ner_rows(70))
    examples = load_examples(path, "ner")[1]
    task = TaskData("names", "ner", examples[:40], examples[40:])
    texts = (*tiny_models.SENTENCES, " ".join(tiny_models.SENTENCES * 30))
    card = SimpleNamespace(load=lambda split: [SimpleNamespace(text=text) for text in texts])
    monkeypatch.setattr(sections, "load_task", lambda name: (task, False))
    monkeypatch.setattr(sections, "load_card", lambda name: card)
    for name, cards in (("CALIBRATION", 1), ("CORPUS", 1), ("NER", 2), ("CLASSIFICATION", 0)):
        monkeypatch.setattr(sections, name, tuple(f"{name}{number}" for number in range(cards)))
    return task


def test_cosines_are_those_of_tokens() -> None:
    left = [np.array([[1.0, 0.0], [0.0, 2.0]]), np.array([[3.0, 4.0]])]
    right = [np.array([[2.0, 0.0], [2.0, 0.0]]), np.array([[4.0, 3.0]])]
    found = sections.cosines(left, right)
    assert found["mean"] == pytest.approx((1 + 0 + 0.96) / 3)
    assert found["p1"] == pytest.approx(0.02 * 0.96), "between the two smallest of three"


def test_gains_are_paired_by_example_and_their_interval_has_them() -> None:
    score = score_of_counts("classification")
    right = [[1, 1]] * 40 + [[0, 1]] * 60
    better = [[1, 1]] * 50 + [[0, 1]] * 50
    exact, draws = sections.compare_scores("task", [[right, right], [better, better], [right, right]], score)
    assert exact == pytest.approx([40, 50, 40])
    found = sections.against(exact, draws, 1, 0)
    assert found["score"] == pytest.approx(50) and found["gain"] == pytest.approx(10)
    assert 0 < found["interval"][0] < 10 < found["interval"][1] < 20
    assert sections.against(exact, draws, 2, 0)["interval"] == [0, 0], "the same predictions differ in no draw"


def test_every_section_runs_and_one_that_is_there_is_not_measured_again(made_up, tiny_folder, tmp_path, monkeypatch):
    bundle, out = str(tiny_folder("bert")), tmp_path / "out"
    results = quantisation.run(bundle, out, [], AMOUNTS)
    assert list(results["sections"]) == ["cosine", "gate", "vocabulary"]
    cosine, gate, vocabulary = results["sections"].values()
    by_plan = {row["plan"]: row for row in cosine["plans"]}
    assert all(cell["mean"] == pytest.approx(1) for cell in by_plan["float32"]["cosine"].values())
    assert 0.9 < by_plan["int8"]["cosine"]["long / no adapter"]["mean"] < 1
    assert by_plan["int8"]["bytes"] < by_plan["float32"]["bytes"]
    assert [row["judged_on"] for row in gate["tasks"]] == [12, 12]
    assert list(gate["mean"]) == ["int8", "int8, fitted on it", "int4", "int4, fitted on it"]
    assert vocabulary["sizes"][1]["embedding_bytes"] == 300 * (tiny_models.WIDTH + 4)
    text = (out / "table.md").read_text("utf-8")
    assert all(f"## {name}" in text for name in sections.SECTIONS) and "| int8, embedding int4 |" in text
    monkeypatch.setattr(quantisation, "measure", None)
    assert quantisation.run(bundle, out, [], AMOUNTS) == results
    with pytest.raises(TrunklineError, match="results of the backbone"):
        quantisation.run(str(tiny_folder("electra")), out, ["gate"], AMOUNTS)
