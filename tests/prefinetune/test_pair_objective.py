"""Classification in pre-finetuning: pairs in a batch."""

import pytest
import torch

from trunkline.prefinetune.objectives import TextPairObjective
from trunkline.text.examples import PairExample


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
