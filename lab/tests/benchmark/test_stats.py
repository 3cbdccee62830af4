"""Intervals cover the truth, pairing narrows them, and corrections and tests are those of the books."""

from __future__ import annotations

import time

import made_up_results as made_up
import numpy as np
import pytest
import scipy.stats

from trunkline_lab.benchmark.groups import group_results
from trunkline_lab.benchmark.stats import (
    OUTCOMES,
    Bootstrap,
    Pair,
    compare,
    compare_families,
    holm,
    interval_over_tasks,
    mean_score,
    outcome,
    p_value,
    sign_test,
    wilcoxon_test,
)
from trunkline_lab.resampling import interval

PAIR = Pair(("head", "task-primary"), ("head", "none"))


def bootstrap(results, resamples=300):
    return Bootstrap(group_results(results).groups, resamples)


def chances(rng, examples, seeds, deviation, gain):
    """[2, seeds, examples] for two encoders: hard and easy examples, good and bad seeds, and a gain of the second."""
    hard, shared = 1.5 * rng.normal(size=examples), rng.normal(size=(1, seeds, 1))
    luck = deviation * (shared + rng.normal(size=(2, seeds, 1))) / np.sqrt(2)
    return 1 / (1 + np.exp(-(0.5 + hard + luck + np.array([0, gain])[:, None, None])))


def covered(examples, seeds, deviation, repeats):
    """How often intervals hold the true mean of the second encoder, and its true gain over the first."""
    large = chances(np.random.default_rng(0), 1000, 1000, deviation, 0.3)
    truth = large[1].mean(), large[1].mean() - large[0].mean()
    held = np.zeros(2)
    for repeat in range(repeats):
        rng = np.random.default_rng(repeat + 1)
        parts = chances(rng, examples, seeds, deviation, 0.3)
        results = [
            made_up.result("classification", f"t{repeat}", name, seed, made_up.draw_counts("classification", rng, part))
            for name, of_seeds in zip(("none", "task-primary"), parts, strict=True)
            for seed, part in enumerate(of_seeds)
        ]
        found = bootstrap(results)
        (row,) = compare(found, [PAIR])
        bounds = interval(found.scores(found.groups[f"t{repeat}", "all", PAIR.first]))
        held += [bounds[0] <= truth[0] <= bounds[1], row.interval[0] <= truth[1] <= row.interval[1]]
    return held / repeats


def test_intervals_cover_the_truth():
    assert all(covered(150, 3, 0.15, 40) >= 0.9)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("examples", "seeds", "deviation", "least"),
    [(400, 3, 0.0, 0.95), (400, 3, 0.1, 0.93), (400, 3, 0.3, 0.88), (3000, 3, 0.3, 0.74), (400, 5, 0.3, 0.9)],
)
def test_how_often_intervals_cover_the_truth(examples, seeds, deviation, least):
    """The figures of docs/benchmark-report.md: safe where examples are the noise, too narrow where seeds are."""
    found = covered(examples, seeds, deviation, 300)
    assert all(found >= least), found


def test_pairing_makes_the_interval_narrower():
    found = bootstrap(made_up.suite(families=["classification"], budgets=["all"]), 1000)
    for row in compare(found, [PAIR]):
        first, second = (found.scores(found.groups[row.task, "all", system]) for system in (PAIR.first, PAIR.second))
        unpaired = interval(first - np.random.default_rng(0).permutation(second))
        assert np.diff(row.interval) < 0.75 * np.diff(unpaired)
        assert row.interval[0] < row.gain < row.interval[1]


def test_only_seeds_that_both_have_are_compared():
    results = [cell for cell in made_up.suite(families=["ner"]) if cell.encoder != "none" or cell.seed]
    found = bootstrap(results)
    for row in compare(found, [PAIR]):
        first, second = (found.groups[row.task, row.budget, system] for system in (PAIR.first, PAIR.second))
        assert row.seeds == (1, 2)
        assert row.gain == pytest.approx(mean_score(first, (1, 2)) - mean_score(second))
        assert len(first.cells) == 3
    apart = [cell for cell in results if (cell.encoder == "none") == (cell.seed == 1)]
    assert compare(bootstrap(apart), [PAIR]) == []


def test_equal_systems_tie_and_a_clear_gain_wins():
    base = list(made_up.suite(families=["classification"], encoders=["none"]))
    twin = [made_up.Result(**{**vars(cell), "encoder": "task-primary", "key": cell.key + "b"}) for cell in base]
    for row in compare(bootstrap([*base, *twin]), [PAIR]):
        assert (row.gain, row.interval, row.p, row.corrected_p, row.outcome) == (0, [0, 0], 1, 1, "tie")
    better = list(made_up.suite(families=["classification"], encoders=["task-primary"], skill=2.0))
    rows = compare(bootstrap([*base, *better], 2000), [PAIR])
    assert {row.outcome for row in rows if row.budget == "16 a class"} == {"win"}
    backwards = compare(bootstrap([*base, *better], 2000), [Pair(PAIR.second, PAIR.first)])
    assert [row.gain for row in backwards] == [-row.gain for row in rows]
    assert [row.p for row in backwards] == [row.p for row in rows]


def test_holm_by_hand():
    # Ranks 1 to 4 are multiplied by 4, 3, 2, 1; what falls again stays at the largest before it.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.4, 0.5]) == pytest.approx([0.8, 0.8])
    assert holm([0.9, 0.9, 0.9]) == [1, 1, 1]
    assert (holm([]), holm([0.02])) == ([], [0.02])


def test_the_correction_is_over_the_tasks_of_a_family_and_budget():
    rows = compare(bootstrap(made_up.suite()), [PAIR])
    for family in made_up.TASKS:
        for budget in made_up.BUDGETS:
            same = [row for row in rows if (row.family, row.budget) == (family, budget)]
            assert len(same) == len(made_up.TASKS[family])
            assert [row.corrected_p for row in same] == holm([row.p for row in same])


def test_p_values():
    assert p_value(np.linspace(0.1, 1, 999)) == pytest.approx(2 / 1000)
    assert p_value(-np.linspace(0.1, 1, 999)) == pytest.approx(2 / 1000)
    assert p_value(np.zeros(99)) == 1
    draws = np.r_[-np.ones(25), np.ones(974)]
    assert p_value(draws) == pytest.approx(2 * 26 / 1000)


def test_p_values_are_uniform_where_there_is_no_gain():
    rng = np.random.default_rng(0)
    values = [p_value(rng.normal(size=400) + rng.normal()) for _ in range(300)]
    assert scipy.stats.kstest(values, "uniform").pvalue > 0.01


@pytest.mark.parametrize("gains", [[0.1, 0.2, -0.1, 0.3, 0.4, 0.2], [0.1, 0.0, 0.2, -0.3], [0.5], [-0.1] * 9])
def test_the_sign_test_is_that_of_scipy(gains):
    up, down = sum(gain > 0 for gain in gains), sum(gain < 0 for gain in gains)
    assert sign_test(gains) == pytest.approx(scipy.stats.binomtest(up, up + down).pvalue)
    half = 0.5 ** (up + down)
    tail = sum(scipy.special.comb(up + down, k) * half for k in range(min(up, down) + 1))
    assert sign_test(gains) == pytest.approx(min(1, 2 * tail))


def test_tests_without_any_difference():
    assert sign_test([0.0, 0.0]) == wilcoxon_test([0.0, 0.0]) == sign_test([]) == wilcoxon_test([]) == 1
    # All of five gains up: 2 * 2**-5.
    assert sign_test([1, 2, 3, 4, 5]) == wilcoxon_test([1, 2, 3, 4, 5]) == pytest.approx(1 / 16)


@pytest.mark.parametrize(
    ("gain", "bounds", "p", "named"),
    [
        (0.1, [0.05, 0.2], 0.01, "win"),
        (-0.1, [-0.2, -0.05], 0.01, "loss"),
        (0.1, [-0.1, 0.2], 0.3, "tie"),
        (0.1, [0.0, 0.2], 0.06, "tie"),
        (0.1, [0.01, 0.2], 0.06, "unclear"),
    ],
)
def test_outcomes(gain, bounds, p, named):
    assert outcome(gain, bounds, p) == named


def test_over_tasks():
    found = bootstrap(made_up.suite())
    rows = compare(found, [PAIR])
    for family in compare_families(rows):
        same = [row for row in rows if (row.family, row.budget) == (family.family, family.budget)]
        assert family.tasks == tuple(made_up.TASKS[family.family])
        assert family.gain == pytest.approx(np.mean([row.gain for row in same]))
        assert family.interval == interval(np.mean([row.draws for row in same], axis=0))
        widths = [np.diff(row.interval)[0] for row in same]
        # Tasks are drawn independently of one another.
        assert np.diff(family.interval)[0] == pytest.approx(np.sqrt(np.sum(np.square(widths))) / len(same), rel=0.3)
        assert sum(family.outcomes.values()) == len(same) and set(family.outcomes) == set(OUTCOMES)
        assert (family.up, family.down) == (len(same), 0)
        assert family.sign_p == pytest.approx(2 * 0.5 ** len(same))


def test_the_interval_over_tasks_is_as_wide_as_that_of_their_mean():
    gains = list(np.random.default_rng(0).normal(0.05, 0.02, size=30))
    low, high = interval_over_tasks(gains, entropy=0)
    assert high - low == pytest.approx(2 * 1.96 * np.std(gains, ddof=1) / np.sqrt(30), rel=0.1)
    assert interval_over_tasks(gains[:1], entropy=0) is None
    assert interval_over_tasks([0.1, 0.1], entropy=0) == pytest.approx([0.1, 0.1])


def test_large_test_sets_take_little_time():
    rng = np.random.default_rng(0)
    results = [
        made_up.result("ner", "large", f"e{number}", seed, made_up.draw_counts("ner", rng, np.full(5000, 0.7)))
        for number in range(6)
        for seed in range(3)
    ]
    found = bootstrap(results, 2000)
    began = time.process_time()
    for group in found.groups.values():
        found.scores(group)
    # 0.2 s where it was written.
    assert time.process_time() - began < 2
