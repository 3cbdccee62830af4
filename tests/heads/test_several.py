"""Heads of yes and no: as many regressions as labels, each scikit-learn's, and thresholds of the best F1."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from scaling import scaled
from trunkline.errors import TrunklineError
from trunkline.heads import several
from trunkline.heads.fit import LabelledFeatures, convex_heads, cross_validate, fit_head, logits_of
from trunkline.heads.linear import Units, discriminant, regression
from trunkline.tasks import FAMILIES
from trunkline.tasks.classification import Scored
from trunkline.text.examples import MultiLabelExample

FAMILY = FAMILIES["multilabel"]
LABELS = ("a", "b", "c")


def drawn(count: int = 60, seed: int = 0, width: int = 6) -> tuple[Any, Any]:
    """Features, and labels by their signs; some texts have none."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(count, width)).astype(np.float32)
    return features, (features[:, :3] + 0.3 * rng.normal(size=(count, 3)) > 0.4).astype(int)


def data_of(features: Any, targets: Any) -> LabelledFeatures:
    own = [tuple(name for name, there in zip(LABELS, row, strict=True) if there) for row in targets]
    examples = [MultiLabelExample(f"text {n}", labels) for n, labels in enumerate(own)]
    texts = [(example.text, ()) for example in examples]
    return LabelledFeatures(examples, texts, list(features[:, None]), targets.tolist())


@pytest.mark.parametrize("weighted", [None, "balanced"])
def test_each_label_has_the_regression_of_scikit_learn(weighted: str | None) -> None:
    features, targets = drawn()
    head = convex_heads(FAMILY, data_of(features, targets), range(60), LABELS, 0.1, weighted)[0]
    rows = scaled(features)
    for number in range(3):
        model = LogisticRegression(C=0.1, class_weight=weighted).fit(rows, targets[:, number])
        expected = model.decision_function(rows)
        assert features @ head.weight[:, number] + head.bias[number] == pytest.approx(expected, abs=0.02)


def test_several_problems_at_once_are_those_one_by_one() -> None:
    features, targets = drawn(50, 1)
    masks = np.random.default_rng(1).integers(0, 2, (2, 50)).astype(np.float32)
    both = Units.of(features, targets, 2)
    for fit in (lambda u, m: regression(u, m, 0.3, tolerance=1e-5), discriminant):
        together = fit(both, np.repeat(masks, 3, axis=0))
        assert together.weight.shape == (6, 2, 6)
        for label in range(3):
            alone = fit(Units.of(features, targets[:, label], 2), masks)
            assert together.weight[label::3] == pytest.approx(alone.weight, abs=2e-3)
            assert together.bias[label::3] == pytest.approx(alone.bias, abs=2e-3)


def test_a_fit_predicts_what_it_was_scored_on() -> None:
    features, targets = drawn(80)
    data = data_of(features, targets)
    found = fit_head(FAMILY, data, LABELS)
    assert found.head.weight.shape == (6, 3)
    assert set(found.head.decisions["thresholds"]) == set(LABELS)
    assert found.scores["micro_f1"] > 0.8
    assert found.scores == FAMILY.score(data.examples, found.predictions)
    assert found.log_loss is not None
    assert found.log_loss < 0.4
    assert fit_head(FAMILY, data, LABELS).head.weight.tobytes() == found.head.weight.tobytes()


def test_rows_without_labels_are_learnt_from() -> None:
    features, targets = drawn(60)
    features[40:], targets[40:] = features[40:] - np.float32(3), 0
    data = data_of(features, targets)
    whole = fit_head(FAMILY, data, LABELS)
    kept = fit_head(FAMILY, data_of(features[:40], targets[:40]), LABELS)
    assert sorted(n for rows in cross_validate(FAMILY, data).held_out for n in rows) == list(range(60))
    assert len(whole.predictions) == 60
    assert not np.allclose(whole.head.weight, kept.head.weight)
    assert [said["labels"] for said in whole.predictions[40:] if said] == [[]] * 20


def test_no_label_is_lost_and_what_was_never_seen_is_not_judged() -> None:
    features, targets = drawn(12)
    targets[:, 2] = 0
    targets[5, 2] = 1  # a label of one text
    data = data_of(features, targets)
    folds = cross_validate(FAMILY, data)
    judged = folds.targets.reshape(-1, 3)
    own = [n for rows in folds.held_out for n in rows].index(5)
    assert judged[own, 2] == -1
    found = fit_head(FAMILY, data, LABELS)
    assert found.head.weight.shape == (6, 3)
    assert np.isfinite(found.head.weight).all()
    assert found.never_predicted == ["c"] or any("c" in said["labels"] for said in found.predictions)


def test_labels_that_all_texts_have_are_said_always_and_others_never_alone() -> None:
    features, targets = drawn(20)
    targets[:, 0] = 1
    found = fit_head(FAMILY, data_of(features, targets), LABELS).head
    chances = FAMILY.probabilities(features[:1] @ found.weight + found.bias)
    assert chances[0, 0] == 1
    with pytest.raises(TrunklineError, match="all 2 texts have the labels a, c"):
        fit_head(FAMILY, data_of(features[:2], np.array([[1, 0, 1], [1, 0, 1]])), LABELS)


def test_yes_and_no_are_logits_of_a_softmax() -> None:
    features, targets = drawn()
    data = data_of(features, targets)
    head = convex_heads(FAMILY, data, range(60), LABELS, 0.1)[0]
    both = logits_of(head, data.features, FAMILY)
    assert both.shape == (180, 2)
    assert (both[:, 1] - both[:, 0]).reshape(60, 3) == pytest.approx(features @ head.weight + head.bias, abs=1e-4)


def test_losses_are_added_up_by_text() -> None:
    known = np.array([True, False, True, True])
    assert several.per_text(np.array([1.0, 2.0, 4.0]), known, 2).tolist() == [1.0, 6.0]


def naive_threshold(chances: Any, targets: Any, label: int) -> float:
    """The best F1 of a label by the whole of all labels, tried at every place between two probabilities."""
    levels = np.unique(chances.astype(float))
    grid = [0.0, *((levels[1:] + levels[:-1]) / 2), 1.0]
    share = several.STRENGTH / targets.sum()
    found = []
    for threshold in grid:
        hit = chances >= threshold
        right, said = targets * hit, hit.astype(float)
        up = right[:, label].sum() + share * right.sum()
        down = said[:, label].sum() + targets[:, label].sum() + share * (said.sum() + targets.sum())
        found.append(2 * up / down)
    best = [grid[n] for n, value in enumerate(found) if value >= max(found) - 1e-12]
    return float(best[len(best) // 2])


@pytest.mark.parametrize("seed", range(4))
def test_thresholds_have_the_best_f1_with_all_labels_as_a_prior(seed: int) -> None:
    rng = np.random.default_rng(seed)
    targets = (rng.random((40, 3)) < [0.5, 0.2, 0.1]).astype(int)
    chances = np.clip(0.3 * targets + rng.random((40, 3)) * [0.7, 0.5, 0.3], 0, 1).astype(np.float32)
    expected = [naive_threshold(chances, targets, label) for label in range(3)]
    assert several.best_thresholds(chances, targets) == pytest.approx(expected, abs=1e-6)


def test_thresholds_are_of_one_label_where_its_texts_are_many() -> None:
    rng = np.random.default_rng(0)
    targets = (rng.random((3000, 2)) < 0.5).astype(int)
    # Probabilities of the second are a tenth of what they should be.
    chances = (np.where(targets == 1, 0.8, 0.2) + 0.01 * rng.random((3000, 2))) * [1, 0.1]
    found = several.best_thresholds(chances.astype(np.float32), targets)
    assert 0.2 < found[0] < 0.8
    assert 0.02 < found[1] < 0.08


def test_held_out_scores_are_of_thresholds_that_did_not_see_them() -> None:
    rng = np.random.default_rng(3)
    targets = (rng.random((40, 2)) < 0.3).astype(int)
    chances = rng.random((40, 2)).astype(np.float32)
    chances[:20] *= np.float32(0.1)  # of the first fold the thresholds of the second say nothing
    examples = data_of(np.zeros((40, 1)), np.column_stack([targets, np.zeros(40, int)])).examples
    rows = [(example, (example.text, ()), row) for example, row in zip(examples, targets, strict=True)]
    scores, said, decisions = several.with_thresholds(FAMILY, rows, ("a", "b"), chances, [20, 20])
    first = several.best_thresholds(chances[20:], targets[20:]).tolist()
    chosen = {"thresholds": {"a": first[0], "b": first[1]}}
    own = Scored(list(chances[:20, None]), [("", ())] * 20, ("a", "b"), None, chosen)
    assert said[:20] == FAMILY.decode([own])[0]
    assert list(decisions["thresholds"].values()) == several.best_thresholds(chances, targets).tolist()
    assert scores == FAMILY.score(examples, said)
