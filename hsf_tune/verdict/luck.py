"""What choosing adds to an error: the luck of a search, and the luck of a pick.

Finalists of one guided search resemble each other, so their scatter can't tell how another
search would have ended. What can is the scatter of all that was tried: of its better half,
because the worse half (rates at which nothing is learned) says nothing of how well a search
ends. How the two are related is taken from independent strategies, for which a search has
most to gain from luck; guided ones vary less (simulated, docs/statistics.md).
"""

from __future__ import annotations

from functools import lru_cache
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from hsf_tune.verdict.difference import Floats, Part, mean_over_seeds

FEWEST_TRIED = 4  # strategies; fewer have no better half to speak of
MOST_HALVED = 10  # folds; of more not all halves are looked at
_DRAWS, _WAYS = 20_000, 252


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

    Its mean, less what the best on half of the folds scores on the other half, on average over
    the ways to halve them. 0 with one strategy or one fold.

    Args:
        pool: (strategies, subjects, seeds) Dice; subjects that one of them lacks are left out.
        folds: (subjects,).
    """
    rows = mean_over_seeds(pool)  # (strategies, subjects)
    scored = ~np.isnan(rows).any(axis=0)
    rows, inside = rows[:, scored], folds[scored] == np.unique(folds[scored])[:, None]
    if len(rows) < 2 or len(inside) < 2:
        return 0.0
    halves, sizes = _halves(len(inside)), inside.sum(axis=1)
    sums = rows @ inside.T  # (strategies, folds)
    here, there = (sums @ h.T / (h @ sizes) for h in (halves, 1 - halves))
    picked = there[here.argmax(axis=0), np.arange(len(halves))]
    return max(0.0, float(rows.mean(axis=1).max() - picked.mean()))


@lru_cache
def _halves(n: int) -> NDArray[np.int64]:
    """(ways, n) of 0 and 1: the larger half of n folds in all ways, up to ten folds; else drawn."""
    size = (n + 1) // 2
    if n <= MOST_HALVED:
        chosen = np.array(list(combinations(range(n), size)))
    else:
        rng = np.random.default_rng(0)
        chosen = np.array([rng.permutation(n)[:size] for _ in range(_WAYS)])
    halves = np.zeros((len(chosen), n), dtype=np.int64)
    np.put_along_axis(halves, chosen, 1, axis=1)
    return halves
