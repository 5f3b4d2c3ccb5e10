"""What choosing adds to an error: the luck of a search, and the luck of a pick.

Finalists of one guided search resemble each other, so their scatter can't tell how another
search would have ended. What can is the scatter of all that was tried: of its better half,
because the worse half (rates at which nothing is learned) says nothing of how well a search
ends. How the two are related is taken from independent strategies, for which a search has
most to gain from luck; guided ones vary less (simulated, docs/statistics.md).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from hsf_tune.verdict.difference import Floats, Part, mean_over_seeds

FEWEST_TRIED = 4  # strategies; fewer have no better half to speak of
_DRAWS = 20_000


def search_luck(tried: Floats, finalists: int) -> Part | None:
    """Variance over searches of the mean of an arm's finalists.

    Args:
        tried: (strategies,) Dice of all that the arm tried on the exploration's first fold.
        finalists: how many of them the mean is over.

    Returns:
        None: too few were tried to say.
    """
    if len(tried) < FEWEST_TRIED:
        return None
    ratio, df = _calibrated(len(tried), finalists)
    return Part(ratio * _better_half_variance(np.asarray(tried)[None])[0], df)


def _better_half_variance(tried: Floats) -> Floats:
    """(searches, strategies) -> (searches,)."""
    many = tried.shape[1]
    return np.sort(tried, axis=1)[:, many // 2 :].var(axis=1, ddof=1)


@lru_cache
def _calibrated(tried: int, finalists: int) -> tuple[float, float]:
    """For independent normal strategies: var(mean of the best) / E(variance of the better half),
    and the degrees of freedom of the latter (2 E^2 / var)."""
    worth = np.random.default_rng(0).standard_normal((_DRAWS, tried))
    half = _better_half_variance(worth)
    best = np.sort(worth, axis=1)[:, -finalists:].mean(axis=1)
    return float(best.var() / half.mean()), float(2 * half.mean() ** 2 / half.var())


def flattery(pool: Floats, folds: NDArray[np.int64]) -> float:
    """By how much its own scores flatter the best of a pool, estimated.

    Its mean, less the mean over folds of what is best on all other folds. 0 with one strategy.

    Args:
        pool: (strategies, subjects, seeds) Dice; subjects that one of them lacks are left out.
        folds: (subjects,).
    """
    rows = mean_over_seeds(pool)  # (strategies, subjects)
    scored = ~np.isnan(rows).any(axis=0)
    rows, inside = rows[:, scored], folds[scored] == np.unique(folds[scored])[:, None]
    if len(rows) < 2 or len(inside) < 2:
        return 0.0
    sums = rows @ inside.T  # (strategies, folds)
    elsewhere = (rows.sum(axis=1)[:, None] - sums) / (~inside).sum(axis=1)
    picked = sums[elsewhere.argmax(axis=0), np.arange(len(inside))].sum() / rows.shape[1]
    return max(0.0, float(rows.mean(axis=1).max() - picked))
