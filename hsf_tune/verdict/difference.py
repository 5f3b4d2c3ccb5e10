"""Estimate a paired difference of Dice between two groups of strategies, and its error.

The subject is the unit. Here are numbers only: what a difference allows to be
claimed is decided in `decision.py`, what is compared with what in `judge.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

Floats = NDArray[np.float64]

EXACT_UP_TO = 16  # subjects; 2**16 sign patterns are enumerated, more are drawn
RESAMPLES = 10_000


@dataclass(frozen=True)
class Estimate:
    """A mean difference with the three parts of its squared standard error.

    Attributes:
        mean: of the subjects' differences, A - B.
        n_subjects: subjects that both sides have a score for.
        from_subjects: var(d) / n.
        from_seeds: what the seed of a training adds.
        from_finalists: what the luck of the search adds; 0 for a strategy claim.
        finalists_noise: the part of `from_finalists` that few subjects explain: it would shrink
            with their number, the rest would not.
        subjects: (n_subjects,) index of each subject in the arrays compared.
        values: (n_subjects,) each subject's difference.
    """

    mean: float
    n_subjects: int
    from_subjects: float
    from_seeds: float
    from_finalists: float
    subjects: NDArray[np.int64]
    values: Floats
    finalists_noise: float = 0.0

    @property
    def se(self) -> float:
        """Standard error; nan with fewer than two subjects."""
        return math.sqrt(self.from_subjects + self.from_seeds + self.from_finalists)

    def interval(self, level: float) -> tuple[float, float]:
        """Two-sided t interval with n - 1 degrees of freedom, e.g. `level=0.95`."""
        if self.n_subjects < 2:
            return math.nan, math.nan
        half = float(stdtrit(self.n_subjects - 1, 0.5 + level / 2)) * self.se
        return self.mean - half, self.mean + half

    def p_beyond(self, margin: float) -> float:
        """The smallest alpha whose two-sided (1 - alpha) interval lies beyond +-margin."""
        if self.n_subjects < 2:
            return 1.0
        distance = abs(self.mean) - margin
        if self.se == 0:
            return 0.0 if distance > 0 else 1.0
        return min(1.0, 2.0 * float(stdtr(self.n_subjects - 1, -distance / self.se)))


def estimate(a: Floats, b: Floats, folds: NDArray[np.int64], *, arm_claim: bool) -> Estimate:
    """The difference a - b, paired on subjects and seeds.

    A subject's difference is averaged over seeds. SE^2 = var(d)/n + the mean over folds
    of the variance over seeds of the fold's mean difference, divided by folds x seeds;
    for an arm claim + var(finalists' means)/k of both sides: without it, luck in the
    search passes for a better arm. A fold with one seed says nothing of seeds and is left
    out of their part.

    Args:
        a, b: (finalists, subjects, seeds) Dice; nan where a score is missing. A subject
            and seed count where all finalists of both sides have a score.
        folds: (subjects,) the confirmation fold in which a subject validates.
        arm_claim: add the variance over finalists; both sides then need at least two.

    Raises:
        ValueError: an arm claim over a single finalist.
    """
    if arm_claim and min(len(a), len(b)) < 2:
        raise ValueError("an arm claim needs at least two finalists on either side")
    cells = a.mean(axis=0) - b.mean(axis=0)  # (subjects, seeds)
    scored = ~np.isnan(cells)
    subjects = np.flatnonzero(scored.any(axis=1))
    values = _row_means(cells, scored)[subjects]
    n = len(subjects)
    luck = noise = 0.0
    if arm_claim and n:
        parts = [_finalists_variance(side, scored) for side in (a, b)]
        luck, noise = (sum(part) for part in zip(*parts, strict=True))
    return Estimate(
        mean=float(values.mean()) if n else math.nan,
        n_subjects=n,
        from_subjects=float(values.var(ddof=1)) / n if n > 1 else math.nan,
        from_seeds=_seeds_variance(cells, scored, folds),
        from_finalists=luck,
        subjects=subjects,
        values=values,
        finalists_noise=noise,
    )


def _row_means(cells: Floats, scored: NDArray[np.bool_]) -> Floats:
    counts = scored.sum(axis=1)
    sums = np.where(scored, cells, 0.0).sum(axis=1)
    return np.divide(sums, counts, out=np.full(len(cells), np.nan), where=counts > 0)


def _seeds_variance(cells: Floats, scored: NDArray[np.bool_], folds: NDArray[np.int64]) -> float:
    """Mean over folds of the variance over seeds, divided by the trainings paired."""
    in_fold = folds[None, :] == np.unique(folds)[:, None]  # (folds, subjects)
    counts = in_fold.astype(float) @ scored  # (folds, seeds)
    sums = in_fold.astype(float) @ np.where(scored, cells, 0.0)
    trained = counts > 0
    means = np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=trained)
    repeated = trained.sum(axis=1) > 1
    if not repeated.any():
        return 0.0
    if trained.all():
        variances = means.var(axis=1, ddof=1)
    else:
        variances = np.array([row[t].var(ddof=1) for row, t in zip(means, trained, strict=True)
                              if t.sum() > 1])  # fmt: skip
    return float(variances.mean()) / int(trained.sum())


def _finalists_variance(side: Floats, scored: NDArray[np.bool_]) -> tuple[float, float]:
    """var(finalists' means) / k over what is scored, and the part that subjects explain.

    The second is the interaction of finalist and subject (the residual of a two-way
    layout) over n * k: what the first would be if the finalists were equally good.
    """
    rows = np.stack([_row_means(finalist, scored) for finalist in side])[:, scored.any(axis=1)]
    k, n = rows.shape
    means = rows.mean(axis=1)
    total = float(means.var(ddof=1)) / k
    if n < 2:
        return total, 0.0
    residual = rows - means[:, None] - rows.mean(axis=0) + rows.mean()
    noise = float((residual**2).sum()) / ((k - 1) * (n - 1)) / (n * k)
    return total, min(total, noise)


def sign_flip_p(values: Floats, seed: int = 0) -> float:
    """Two-sided sign-flip permutation p of the mean being 0.

    Exact (all 2**n patterns) up to 16 subjects, else 10,000 random patterns with the
    observed one counted in.

    Source: Fisher 1935, The Design of Experiments, section 21; Phipson and Smyth 2010,
    doi:10.2202/1544-6115.1585 (why the observed pattern counts).
    """
    n = len(values)
    if n == 0:
        return math.nan
    observed = abs(values.sum()) * (1 - 1e-12)  # ties count as at least as extreme
    if n <= EXACT_UP_TO:
        patterns = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
        return float((np.abs((1 - 2 * patterns) @ values) >= observed).mean())
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(RESAMPLES, n))
    extreme = int((np.abs(signs @ values) >= observed).sum())
    return (extreme + 1) / (RESAMPLES + 1)


def bootstrap_interval(values: Floats, level: float = 0.95, seed: int = 0) -> tuple[float, float]:
    """Percentile bootstrap of the mean over subjects; too narrow with few subjects.

    Source: Efron 1979, doi:10.1214/aos/1176344552.
    """
    if len(values) < 2:
        return math.nan, math.nan
    picks = np.random.default_rng(seed).integers(len(values), size=(RESAMPLES, len(values)))
    low, high = np.quantile(values[picks].mean(axis=1), [0.5 - level / 2, 0.5 + level / 2])
    return float(low), float(high)
