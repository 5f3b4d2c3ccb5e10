"""Numbers against hand calculations and scipy's independent implementations."""

import numpy as np
import pytest
from scipy import stats

from hsf_tune.verdict.difference import bootstrap_interval, estimate, sign_flip_p

D = np.array([0.010, 0.022, 0.031, 0.015, 0.004, 0.027])


def one_strategy(cells):
    """(subjects, seeds) -> (1, subjects, seeds)."""
    return np.asarray(cells, dtype=float)[None]


def test_with_one_seed_the_interval_is_the_paired_t_interval():
    """No seeds to vary: scipy's t interval of the subjects' differences."""
    b = np.linspace(0.7, 0.8, 6)
    found = estimate(one_strategy((b + D)[:, None]), one_strategy(b[:, None]), np.arange(6),
                     arm_claim=False)  # fmt: skip
    expected = stats.ttest_1samp(D, 0).confidence_interval(0.95)
    assert found.n_subjects == 6
    assert found.mean == pytest.approx(D.mean())
    assert found.interval(0.95) == pytest.approx((expected.low, expected.high))
    assert found.p_beyond(0.0) == pytest.approx(stats.ttest_1samp(D, 0).pvalue)


def test_seeds_add_the_mean_variance_of_fold_means_over_trainings():
    """By hand: fold 1 gives .01 and .03 (variance .0002), fold 2 twice .02 (0); mean .0001,
    divided by 2 folds x 2 seeds."""
    d = [[0.01, 0.03], [0.02, 0.02]]
    found = estimate(one_strategy(d), one_strategy(np.zeros((2, 2))), np.array([1, 2]),
                     arm_claim=False)  # fmt: skip
    assert found.from_subjects == pytest.approx(0.0)
    assert found.from_seeds == pytest.approx(0.0001 / 4)
    assert found.se == pytest.approx(0.005)


def test_a_fold_of_two_subjects_enters_by_its_mean():
    """Seeds that move two subjects of a fold in opposite directions add nothing."""
    d = [[0.01, 0.03], [0.03, 0.01], [0.0, 0.0], [0.0, 0.0]]
    found = estimate(one_strategy(d), one_strategy(np.zeros((4, 2))), np.array([1, 1, 2, 2]),
                     arm_claim=False)  # fmt: skip
    assert found.from_seeds == pytest.approx(0.0)


def test_an_arm_claim_adds_the_variance_over_finalists():
    """By hand: finalists at .80 .82 .84 have variance .0004, over 3; the other arm's are equal."""
    a = np.full((3, 6, 1), 0.0) + np.array([0.80, 0.82, 0.84])[:, None, None]
    b = np.full((3, 6, 1), 0.70)
    found = estimate(a, b, np.arange(6), arm_claim=True)
    assert found.mean == pytest.approx(0.12)
    assert found.from_finalists == pytest.approx(0.0004 / 3)
    assert found.from_subjects == pytest.approx(0.0)
    assert found.finalists_noise == pytest.approx(0.0)


def test_finalists_that_differ_by_chance_alone_differ_by_noise_that_subjects_shrink():
    """Equally good finalists, many subjects: the noise part is on average the whole part."""
    rng = np.random.default_rng(3)
    parts = np.zeros(2)
    for _ in range(300):
        a, b = rng.normal(0, 0.01, (2, 3, 30, 1))
        found = estimate(a, b, np.arange(30), arm_claim=True)
        parts += [found.from_finalists, found.finalists_noise]
    assert parts[0] / 300 == pytest.approx(2 * 0.01**2 / 30 / 3, rel=0.1)
    assert 0.5 * parts[0] < parts[1] <= parts[0]


def test_an_arm_of_one_finalist_supports_no_arm_claim():
    """Its spread is unknown."""
    with pytest.raises(ValueError, match="two finalists"):
        estimate(np.zeros((1, 6, 1)), np.zeros((3, 6, 1)), np.arange(6), arm_claim=True)


def test_missing_scores_are_dropped_in_pairs():
    """A subject counts with the seeds that both sides have, or not at all."""
    a = np.array([[0.9, 0.5], [0.8, np.nan], [np.nan, np.nan]])
    b = np.array([[0.7, np.nan], [0.7, 0.7], [0.7, 0.7]])
    found = estimate(one_strategy(a), one_strategy(b), np.array([1, 2, 3]), arm_claim=False)
    assert found.subjects.tolist() == [0, 1]
    assert found.values == pytest.approx([0.2, 0.1])


def test_a_single_subject_has_no_interval():
    """One difference says nothing of its spread; nothing can be beyond a margin."""
    found = estimate(np.full((1, 1, 1), 0.9), np.full((1, 1, 1), 0.5), np.array([1]),
                     arm_claim=False)  # fmt: skip
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
    assert sign_flip_p(np.array(values)) == pytest.approx(expected)


def test_sign_flip_p_is_scipys_exact_permutation_test():
    """An independent implementation, by enumeration."""
    values = np.array([0.01, -0.004, 0.02, 0.013, -0.001, 0.008, 0.017])
    expected = stats.permutation_test(
        (values,), np.mean, permutation_type="samples", n_resamples=np.inf
    )
    assert sign_flip_p(values) == pytest.approx(expected.pvalue)


def test_sign_flip_p_of_many_subjects_is_near_the_t_test():
    """Drawn patterns instead of all 2**40; never exactly 0."""
    values = np.random.default_rng(1).normal(0.3, 1.0, 40)
    assert sign_flip_p(values) == pytest.approx(stats.ttest_1samp(values, 0).pvalue, abs=0.01)
    assert sign_flip_p(values + 100) == pytest.approx(1 / 10_001)


def test_bootstrap_of_few_subjects_is_narrower_than_t():
    """The reason that it is only shown beside it; checked against scipy's percentile method."""
    low, high = bootstrap_interval(D)
    expected = stats.bootstrap((D,), np.mean, method="percentile", rng=np.random.default_rng(2))
    limits = expected.confidence_interval
    t = stats.ttest_1samp(D, 0).confidence_interval(0.95)
    assert (low, high) == pytest.approx((limits.low, limits.high), abs=3e-4)
    assert high - low < t.high - t.low
