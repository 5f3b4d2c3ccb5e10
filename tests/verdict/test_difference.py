"""Numbers against hand calculations and scipy's independent implementations."""

from itertools import product

import numpy as np
import pytest
from scipy import stats

from hsf_tune.verdict.difference import Part, bootstrap_interval, estimate, sign_flip_p

D = np.array([0.010, 0.022, 0.031, 0.015, 0.004, 0.027])


def one_strategy(cells):
    """(subjects, seeds) -> (1, subjects, seeds)."""
    return np.asarray(cells, dtype=float)[None]


def test_one_subject_a_fold_gives_the_paired_t_interval():
    """Leave-one-out: scipy's t interval of the subjects' differences."""
    b = np.linspace(0.7, 0.8, 6)
    found = estimate(one_strategy((b + D)[:, None]), one_strategy(b[:, None]), np.arange(6))
    expected = stats.ttest_1samp(D, 0).confidence_interval(0.95)
    assert found.n_subjects == 6
    assert found.mean == pytest.approx(D.mean())
    assert found.interval(0.95) == pytest.approx((expected.low, expected.high))
    assert found.p_beyond(0.0) == pytest.approx(stats.ttest_1samp(D, 0).pvalue)


def test_folds_that_differ_more_than_their_subjects_give_the_error():
    """By hand: fold means .01 .03 .05, mean .03, mean square 2 x .0008 / 2 = .0008, over 6 subjects;
    2 degrees of freedom (t .975 = 4.303). It is the analysis of variance's mean square."""
    d = np.array([0.009, 0.011, 0.029, 0.031, 0.049, 0.051])
    folds = np.array([1, 1, 2, 2, 3, 3])
    found = estimate(one_strategy(d[:, None]), np.zeros((1, 6, 1)), folds)
    assert found.sampling.variance == pytest.approx(0.0008 / 6)
    assert found.interval(0.95)[1] - 0.03 == pytest.approx(4.3027 * (0.0008 / 6) ** 0.5, rel=1e-4)
    within = np.mean([0.000002, 0.000002, 0.000002])
    assert stats.f_oneway(*d.reshape(3, 2)).statistic == pytest.approx(0.0008 / within)
    assert found.lasting == pytest.approx((0.0008 - within) / 6)


def test_folds_that_differ_less_than_their_subjects_change_nothing():
    """The same mean in each fold: the paired t interval with five degrees of freedom."""
    d = np.array([0.01, 0.03, 0.01, 0.03, 0.01, 0.03])
    found = estimate(one_strategy(d[:, None]), np.zeros((1, 6, 1)), np.array([1, 1, 2, 2, 3, 3]))
    expected = stats.ttest_1samp(d, 0).confidence_interval(0.95)
    assert found.interval(0.95) == pytest.approx((expected.low, expected.high))
    assert found.lasting == 0.0


def test_a_subject_enters_by_its_mean_over_seeds():
    """Seeds that move a subject up and down by as much add nothing; there is no term of theirs."""
    d = [[0.01, 0.03], [0.03, 0.01], [0.02, 0.02], [0.02, 0.02]]
    found = estimate(one_strategy(d), one_strategy(np.zeros((4, 2))), np.array([1, 1, 2, 2]))
    assert found.values == pytest.approx([0.02] * 4)
    assert found.se == pytest.approx(0.0)


def test_what_luck_adds_has_degrees_of_freedom_of_its_own():
    """By hand, Satterthwaite: variances .0004 with 5 and .0012 with 3 degrees of freedom, in all
    .0016; .0016^2 / (.0004^2 / 5 + .0012^2 / 3) = 5 exactly."""
    b = np.zeros((1, 6, 1))
    plain = estimate(one_strategy(D[:, None]), b, np.arange(6))
    scale = (0.0004 / plain.sampling.variance) ** 0.5
    found = estimate(one_strategy(scale * D[:, None]), b, np.arange(6), [Part(0.0012, 3)])
    assert found.se == pytest.approx(0.04)
    assert found.df == pytest.approx(0.0016**2 / (0.0004**2 / 5 + 0.0012**2 / 3))
    half = stats.t.ppf(0.975, 5) * 0.04
    assert found.df == pytest.approx(5.0)
    assert found.interval(0.95) == pytest.approx((found.mean - half, found.mean + half))


def test_one_failed_subject_is_found_and_the_others_are_as_without_it():
    """A tenth subject lost .3; no mean is trimmed, but the rest can be looked at."""
    d = np.append(np.tile([0.018, 0.022, 0.020], 3), -0.28)
    found = estimate(one_strategy(d[:, None]), np.zeros((1, 10, 1)), np.arange(10))
    place = found.dominant()
    assert found.mean == pytest.approx(d.mean())
    assert place == 9
    expected = stats.ttest_1samp(d[:9], 0).confidence_interval(0.95)
    assert found.without(place).interval(0.95) == pytest.approx((expected.low, expected.high))


def test_no_subject_stands_out_where_all_differ_alike():
    """Half up, half down: each makes up a tenth of the sum of squares."""
    d = np.tile([0.01, -0.01], 5)
    assert (
        estimate(one_strategy(d[:, None]), np.zeros((1, 10, 1)), np.arange(10)).dominant() is None
    )


def test_missing_scores_are_dropped_in_pairs():
    """A subject counts with the seeds that both sides have, or not at all."""
    a = np.array([[0.9, 0.5], [0.8, np.nan], [np.nan, np.nan]])
    b = np.array([[0.7, np.nan], [0.7, 0.7], [0.7, 0.7]])
    found = estimate(one_strategy(a), one_strategy(b), np.array([1, 2, 3]))
    assert found.subjects.tolist() == [0, 1]
    assert found.values == pytest.approx([0.2, 0.1])


def test_a_single_subject_has_no_interval():
    """One difference says nothing of its spread; nothing can be beyond a margin."""
    found = estimate(np.full((1, 1, 1), 0.9), np.full((1, 1, 1), 0.5), np.array([1]))
    assert np.isnan(found.interval(0.95)).all()
    assert found.p_beyond(0.0) == 1.0


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1.0, 2.0, 3.0], 2 / 8),  # only all signs equal reach the sum of 6
        ([1.0, 1.0, 1.0, 1.0, 1.0], 2 / 32),
        ([3.0, -3.0], 1.0),
    ],
)
def test_sign_flip_p_counts_patterns(values, expected):
    """By hand: the share of sign patterns whose sum is as large."""
    assert sign_flip_p(np.array(values), np.arange(len(values))) == pytest.approx(expected)


def test_sign_flip_p_is_exact_with_few_folds():
    """All 2**7 patterns, enumerated here."""
    values = np.array([0.01, -0.004, 0.02, 0.013, -0.001, 0.008, 0.017])
    sums = np.array([np.dot(signs, values) for signs in product((-1, 1), repeat=7)])
    expected = (np.abs(sums) >= abs(values.sum()) - 1e-12).mean()
    assert sign_flip_p(values, np.arange(7)) == pytest.approx(expected)


def test_sign_flip_p_of_many_subjects_is_near_the_t_test():
    """Drawn patterns instead of all 2**40; never exactly 0."""
    values = np.random.default_rng(1).normal(0.3, 1.0, 40)
    t = stats.ttest_1samp(values, 0).pvalue
    assert sign_flip_p(values, np.arange(40)) == pytest.approx(t, abs=0.01)
    assert sign_flip_p(values + 100, np.arange(40)) == pytest.approx(2 / 10_001)


def test_a_fold_flips_as_a_whole():
    """Twelve alike differences from three trainings are three, of which 2 of 8 patterns are as
    far from 0; one training says nothing."""
    values = np.full(12, 0.02)
    assert sign_flip_p(values, np.arange(12) % 3) == pytest.approx(2 / 8)
    assert sign_flip_p(values, np.ones(12, dtype=int)) == 1.0


def test_bootstrap_of_few_subjects_is_narrower_than_t():
    """The reason that it is only shown beside it; checked against resampling by hand."""
    low, high = bootstrap_interval(D)
    picks = np.random.default_rng(2).integers(6, size=(20_000, 6))
    limits = np.quantile(D[picks].mean(axis=1), [0.025, 0.975])
    t = stats.ttest_1samp(D, 0).confidence_interval(0.95)
    assert (low, high) == pytest.approx(tuple(limits), abs=3e-4)
    assert high - low < t.high - t.low
