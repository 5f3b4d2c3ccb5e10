"""What must not change a difference, whatever the scores are."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from hsf_tune.verdict.difference import Part, estimate


@st.composite
def two_arms(draw):
    """Scores (2, finalists, subjects, seeds) with some missing, and folds."""
    n, k = draw(st.integers(3, 12)), draw(st.integers(2, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scores = rng.normal(0.8, 0.05, (2, k, n, 2))
    scores[:, :, rng.random(n) < 0.2, 1] = np.nan
    return scores, np.arange(n) % 3


@settings(max_examples=60, deadline=None)
@given(two_arms())
def test_swapping_the_arms_only_turns_the_sign(made):
    """Neither arm is privileged."""
    (a, b), folds = made
    one, other = (estimate(*pair, folds, [Part(1e-4, 4)]) for pair in ((a, b), (b, a)))
    assert other.mean == pytest.approx(-one.mean)
    assert other.se == pytest.approx(one.se)
    low, high = one.interval(0.95)
    assert other.interval(0.95) == pytest.approx((-high, -low))


@settings(max_examples=60, deadline=None)
@given(two_arms(), st.integers(0, 2**32 - 1))
def test_a_subjects_difficulty_and_place_change_nothing(made, seed):
    """Paired differences: a hard case is hard for both; the order is nobody's."""
    (a, b), folds = made
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(folds))
    harder = rng.normal(0, 0.1, len(folds))[None, :, None]
    one = estimate(a, b, folds)
    other = estimate((a + harder)[:, order], (b + harder)[:, order], folds[order])
    assert other.mean == pytest.approx(one.mean)
    assert other.se == pytest.approx(one.se)


@settings(max_examples=60, deadline=None)
@given(two_arms())
def test_an_arm_claim_is_never_surer_than_its_subjects_alone(made):
    """The luck of the search only widens; the 90 % interval lies inside the 95 % one."""
    (a, b), folds = made
    plain, arm = estimate(a, b, folds), estimate(a, b, folds, [Part(1e-4, 4)])
    assert arm.se >= plain.se
    assert arm.mean == plain.mean
    assert 0 <= plain.lasting <= plain.sampling.variance
    assert arm.interval(0.95)[0] <= arm.interval(0.90)[0]


@settings(max_examples=60, deadline=None)
@given(two_arms())
def test_an_interval_is_never_narrower_than_its_subjects_or_its_folds_say(made):
    """The wider of scipy's t intervals: over subjects, and, of equal folds, over their means."""
    (a, b), _ = made
    n = 3 * (a.shape[1] // 3)
    a, b, folds = a[:, :n], b[:, :n], np.arange(n) % 3
    found = estimate(a, b, folds)
    means = [found.values[folds == f].mean() for f in range(3)]
    for values in (found.values, np.array(means)):
        limits = stats.ttest_1samp(values, 0).confidence_interval(0.95)
        assert found.interval(0.95)[1] >= limits.high - 1e-9
        assert found.interval(0.95)[0] <= limits.low + 1e-9
