"""Mixtures: the order depends on seed and step alone."""

from collections import Counter
from itertools import islice

import pytest

from trunkline.prefinetune.model import Mixture, Source, split_source


def sources():
    return [Source("a", [f"a{i}" for i in range(7)], [], weight=3.0), Source("b", [f"b{i}" for i in range(50)], [])]


def steps(mixture, numbers, size=5):
    return [[mixture.sources[s].train[i] for s, i in islice(mixture.draw(step), size)] for step in numbers]


def test_same_seed_same_order_other_seed_other_order():
    assert steps(Mixture(sources(), 1), range(6)) == steps(Mixture(sources(), 1), range(6))
    assert steps(Mixture(sources(), 1), range(6)) != steps(Mixture(sources(), 2), range(6))


@pytest.mark.parametrize("one_source", [True, False])
def test_a_restored_mixture_goes_on_where_it_was(one_source):
    whole = Mixture(sources(), 3, one_source_a_step=one_source)
    before, after = steps(whole, range(4)), steps(whole, range(4, 9))
    first = Mixture(sources(), 3, one_source_a_step=one_source)
    assert steps(first, range(4)) == before
    second = Mixture(sources(), 3, one_source_a_step=one_source)
    second.restore(first.state())
    assert steps(second, range(4, 9)) == after


def test_weights_are_shares_and_each_epoch_has_every_example_once():
    mixture = Mixture(sources(), 0)
    drawn = [(s, mixture.sources[s].train[i]) for s, i in islice(mixture.draw(0), 4000)]
    share = Counter(source for source, _ in drawn)[0] / len(drawn)
    assert share == pytest.approx(0.75, abs=0.03)
    from_a = [example for source, example in drawn if source == 0]
    for epoch in range(len(from_a) // 7):
        assert len(set(from_a[7 * epoch : 7 * epoch + 7])) == 7
    assert from_a[:7] != from_a[7:14]


def test_one_source_a_step():
    mixture = Mixture(sources(), 0, one_source_a_step=True)
    found = {tuple({source for source, _ in islice(mixture.draw(step), 9)}) for step in range(20)}
    assert found == {(0,), (1,)}


def test_split_source_sets_aside_and_caps():
    train, held = split_source(100, held_out=20, cap=30, seed=0)
    assert (len(train), len(held)) == (30, 10), "at most a tenth is held out"
    assert not set(train) & set(held)


def test_examples_that_are_drawn_very_often_are_told_of():
    mixture = Mixture(sources(), 0)
    list(islice(mixture.draw(0), 400))
    assert list(mixture.repeats(1.0)) == []
    [told] = mixture.repeats(0.1)
    assert told.startswith("the 7 examples of a will be drawn about 4") and "times each: add data" in told
