"""What choosing adds to an error, against searches and picks drawn by hand."""

import numpy as np
import pytest

from hsf_tune.verdict.luck import flattery, search_luck


@pytest.mark.parametrize(("tried", "finalists"), [(12, 3), (18, 3), (6, 2), (7, 1)])
def test_the_luck_of_a_search_is_how_its_finalists_mean_varies(tried, finalists):
    """Independent strategies with a spread of .03: over 4000 searches, on average the variance."""
    worth = np.random.default_rng(5).normal(0.8, 0.03, (4000, tried))
    ends = np.sort(worth, axis=1)[:, -finalists:].mean(axis=1)
    said = np.mean([search_luck(row, finalists).variance for row in worth])
    assert said == pytest.approx(ends.var(), rel=0.1)


def test_strategies_that_learn_nothing_say_nothing_of_the_luck():
    """Six of twelve near .8, the others at 0 or at .5."""
    good = [0.80, 0.81, 0.82, 0.79, 0.78, 0.80]
    dead, slow = (search_luck(np.array(good + 6 * [level]), 3) for level in (0.0, 0.5))
    assert dead == slow


def test_too_few_strategies_say_nothing_of_the_luck():
    """Three have no better half to speak of."""
    assert search_luck(np.array([0.7, 0.8, 0.9]), 2) is None


def test_a_pick_among_equals_is_flattered_as_much_as_is_estimated():
    """Six equally good strategies, ten folds: the best of them shows the estimate on average,
    within what ten folds can tell; the best of one shows nothing."""
    rng, folds = np.random.default_rng(0), np.arange(20) % 10
    pools = rng.normal(0.8, 0.02, (600, 6, 20, 1))
    flattered = (pools.mean(axis=(2, 3)).max(axis=1) - 0.8).mean()
    said = np.mean([flattery(pool, folds) for pool in pools])
    assert said == pytest.approx(flattered, rel=0.15)
    assert flattery(pools[0][:1], folds) == 0.0


def test_a_clear_best_is_not_flattered():
    """It is picked on whichever half of the folds; also of more folds than are halved in all ways."""
    for n in (9, 10, 24):
        pool = np.array([0.9, 0.8, 0.7])[:, None, None] + np.linspace(0, 0.01, n)[None, :, None]
        assert flattery(pool, np.arange(n)) < 0.001


def test_a_pick_is_judged_on_the_subjects_that_all_have():
    """By hand: A .9 .7, B .8 .8 on two folds; the third subject lacks B. Both score .8. A, the
    best on the first, scores .7 on the second; B, the best there, .8: on average .05 less."""
    pool = np.array([[0.9, 0.7, 0.1], [0.8, 0.8, np.nan]])[..., None]
    assert flattery(pool, np.array([1, 2, 3])) == pytest.approx(0.05)
