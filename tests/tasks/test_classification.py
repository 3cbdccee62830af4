"""Classification: labels, scores, and pairs in a batch."""

import numpy as np
import pytest
import torch

from trunkline.config import FamilySection
from trunkline.prefinetune.objectives.classification import TextPairObjective
from trunkline.tasks.classification import Classification
from trunkline.text.examples import PairExample, TextExample

FAMILY = Classification()


def test_decode_ranks_all_labels():
    [found] = FAMILY.decode([np.array([[0.2, 0.5, 0.3]])], [("x", ())], ("a", "b", "c"))
    assert found["label"] == "b"
    assert list(found["probabilities"]) == ["b", "c", "a"]
    assert found["score"] == pytest.approx(0.5)


def test_scores_and_counts_agree():
    gold = [TextExample("x", label) for label in "aabb"]
    predicted = [{"label": label} for label in "aaab"]
    scores = FAMILY.score(gold, predicted)
    assert scores["accuracy"] == 0.75
    assert scores["macro_f1"] == pytest.approx((0.8 + 2 / 3) / 2)
    assert FAMILY.score_of_counts(np.sum(FAMILY.counts(gold, predicted), axis=0)) == 0.75


def test_labels_unknown_to_the_head_are_left_out():
    assert FAMILY.labels([TextExample("x", "b"), TextExample("y", "a")]) == ("a", "b")
    assert FAMILY.unit_targets(TextExample("x", "c"), ("a", "b")) == [-1]


def test_a_text_never_is_its_own_negative():
    pairs = [PairExample("a", "b"), PairExample("a", "c"), PairExample("d", "b"), PairExample("e", "f")]
    kept = TextPairObjective(0.05).targets([(0, pair) for pair in pairs], 0)
    assert kept.kept.tolist() == [0, 3]


def test_pairs_of_a_group_are_no_negatives_of_each_other():
    pairs = [PairExample("a", "b", "x"), PairExample("c", "d", "x"), PairExample("e", "f"), PairExample("g", "h")]
    objective = TextPairObjective(0.1)
    targets = objective.targets([(0, pair) for pair in pairs], 0)
    assert targets.groups.tolist() == [0, 0, 1, 2]
    features = torch.randn(8, 4)
    changed = features.clone().requires_grad_(True)
    objective(changed, targets).backward()
    left, right = features[0::2].double(), features[1::2].double()
    cosines = torch.nn.functional.normalize(left, dim=-1) @ torch.nn.functional.normalize(right, dim=-1).T / 0.1
    cosines[0, 1] = cosines[1, 0] = -torch.inf
    expected = -(cosines.log_softmax(1).diagonal().mean() + cosines.log_softmax(0).diagonal().mean()) / 2
    assert float(objective(features, targets)) == pytest.approx(float(expected), abs=1e-5)
    assert torch.isfinite(changed.grad).all()


def random_pairs(count):
    torch.manual_seed(4)
    return torch.randn(2 * count, 4), [(0, PairExample(f"l{i}", f"r{i}")) for i in range(count)]


def test_a_trained_temperature_starts_where_the_fixed_one_is_and_gets_a_gradient():
    features, drawn = random_pairs(5)
    section = FamilySection(sources={"x": {}}, temperature=0.07)
    fixed = FAMILY.objective(section, [], None, 0)
    trained = FAMILY.objective(section.model_copy(update={"learn_temperature": True}), [], None, 0)
    targets = fixed.targets(drawn, 0)
    loss = trained(features, targets)
    assert float(loss.detach()) == pytest.approx(float(fixed(features, targets)), abs=1e-6)
    loss.backward()
    assert [float(p.grad) != 0 for p in trained.parameters()] == [True]
    assert not list(fixed.parameters()), "a fixed temperature adds nothing to checkpoints"


def test_hardness_is_for_training_and_held_out_losses_are_without_it():
    features, drawn = random_pairs(6)
    section = FamilySection(sources={"x": {}})
    plain = FAMILY.objective(section, [], None, 0)
    hard = FAMILY.objective(section.model_copy(update={"hardness": 1.0}), [], None, 0)
    targets = plain.targets(drawn, 0)
    assert float(hard(features, targets)) != pytest.approx(float(plain(features, targets)), rel=1e-3)
    assert float(hard.eval()(features, targets)) == float(plain.eval()(features, targets))
