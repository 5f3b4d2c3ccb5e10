"""Estimate a paired difference of Dice between two groups of strategies, and its error.

The subject is the unit, but the subjects of a fold share a training. Here are numbers
only: what a difference allows to be claimed is decided in `decision.py`, what choosing
adds to its error in `luck.py`, what is compared with what in `comparisons.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.special import stdtr, stdtrit

Floats = NDArray[np.float64]

RESAMPLES = 10_000


class Part(NamedTuple):
    """A part of a squared standard error, with its degrees of freedom."""

    variance: float
    df: float


@dataclass(frozen=True)
class Estimate:
    """A mean difference with the parts of its squared standard error.

    Attributes:
        mean: of the subjects' differences, A - B.
        sampling: what subjects and trainings add.
        lasting: how much of that a training shared by a fold adds; more subjects in as many folds
            would not make it smaller.
        extra: what the luck of the search or of a pick adds; see `luck.py`.
        subjects, folds: (n_subjects,) index in the arrays compared, and fold.
        values: (n_subjects,) each subject's difference.
    """

    mean: float
    sampling: Part
    lasting: float
    extra: tuple[Part, ...]
    subjects: NDArray[np.int64]
    folds: NDArray[np.int64]
    values: Floats

    @property
    def n_subjects(self) -> int:
        return len(self.values)

    @property
    def se(self) -> float:
        """Standard error; nan with fewer than two subjects."""
        return math.sqrt(self.sampling.variance + sum(p.variance for p in self.extra))

    @property
    def df(self) -> float:
        """Degrees of freedom of the sum of the parts.

        Source: Satterthwaite 1946, doi:10.2307/3002019.
        """
        if not self.se > 0:
            return self.sampling.df
        return self.se**4 / sum(v**2 / df for v, df in (self.sampling, *self.extra))

    def interval(self, level: float) -> tuple[float, float]:
        """Two-sided t interval, e.g. `level=0.95`."""
        if self.n_subjects < 2:
            return math.nan, math.nan
        half = float(stdtrit(self.df, 0.5 + level / 2)) * self.se
        return self.mean - half, self.mean + half

    def p_beyond(self, margin: float) -> float:
        """The smallest alpha whose two-sided (1 - alpha) interval lies beyond +-margin."""
        if self.n_subjects < 2:
            return 1.0
        distance = abs(self.mean) - margin
        if self.se == 0:
            return 0.0 if distance > 0 else 1.0
        return min(1.0, 2.0 * float(stdtr(self.df, -distance / self.se)))

    def dominant(self) -> int | None:
        """The place of the subject with more than half of the sum of squares about the mean."""
        squares = (self.values - self.mean) ** 2
        if self.n_subjects < 3 or not squares.max() > squares.sum() / 2:
            return None
        return int(squares.argmax())

    def without(self, place: int) -> Estimate:
        """The same over all other subjects."""
        keep = np.arange(self.n_subjects) != place
        return _from_values(self.values[keep], self.subjects[keep], self.folds[keep], self.extra)


def estimate(
    a: Floats, b: Floats, folds: NDArray[np.int64], extra: Sequence[Part] = ()
) -> Estimate:
    """The difference a - b, paired on subjects and seeds.

    A subject's difference is averaged over seeds. SE^2 = var(d) / n with n - 1 degrees of freedom
    or mean square between folds / n with folds - 1, whichever gives the wider 95 % interval, + the
    extra parts.

    Args:
        a, b: (finalists, subjects, seeds) Dice; nan where a score is missing. A subject
            and seed count where all finalists of both sides have a score.
        folds: (subjects,) the confirmation fold in which a subject validates.
    """
    cells = a.mean(axis=0) - b.mean(axis=0)  # (subjects, seeds)
    values = mean_over_seeds(cells)
    subjects = np.flatnonzero(~np.isnan(values))
    return _from_values(values[subjects], subjects, folds[subjects], tuple(extra))


def mean_over_seeds(cells: Floats) -> Floats:
    """(..., seeds) -> (...), over the seeds that have a score; nan where none has."""
    known = ~np.isnan(cells)
    sums, counts = np.where(known, cells, 0.0).sum(axis=-1), known.sum(axis=-1)
    return np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)


def _from_values(
    values: Floats, subjects: NDArray[np.int64], folds: NDArray[np.int64], extra: tuple[Part, ...]
) -> Estimate:
    mean = float(values.mean()) if len(values) else math.nan
    sampling, lasting = _sampling(values, folds)
    return Estimate(mean, sampling, lasting, extra, subjects, folds, values)


def _sampling(values: Floats, folds: NDArray[np.int64]) -> tuple[Part, float]:
    n = len(values)
    if n < 2:
        return Part(math.nan, 1), math.nan
    single = Part(float(values.var(ddof=1)) / n, n - 1)
    _, which, sizes = np.unique(folds, return_inverse=True, return_counts=True)
    k = len(sizes)
    if not 1 < k < n:
        return single, 0.0
    means = np.bincount(which, values) / sizes
    between = float(sizes @ (means - values.mean()) ** 2) / (k - 1)
    of_folds = Part(between / n, k - 1)
    if _half_width(of_folds) <= _half_width(single):
        return single, 0.0
    within = float(((values - means[which]) ** 2).sum()) / (n - k)
    return of_folds, max(0.0, between - within) / n


def _half_width(part: Part) -> float:
    return float(stdtrit(part.df, 0.975)) * math.sqrt(part.variance)


def sign_flip_p(values: Floats, folds: NDArray[np.int64], seed: int = 0) -> float:
    """Two-sided sign-flip permutation p of the mean being 0; what was trained together, a fold,
    is flipped together.

    Exact up to 13 folds, else 10,000 random patterns with the observed one counted in.

    Source: Fisher 1935, The Design of Experiments, section 21; Winkler et al. 2015,
    doi:10.1016/j.neuroimage.2015.05.092 (whole blocks).
    """
    if not len(values):
        return math.nan
    sums = np.bincount(np.unique(folds, return_inverse=True)[1], values)
    if len(sums) < 2:
        return 1.0
    found = stats.permutation_test(
        (sums,), np.sum, permutation_type="samples", vectorized=True, n_resamples=RESAMPLES,
        rng=np.random.default_rng(seed),
    )  # fmt: skip
    return float(found.pvalue)


def bootstrap_interval(values: Floats, level: float = 0.95, seed: int = 0) -> tuple[float, float]:
    """Percentile bootstrap of the mean over subjects; too narrow with few subjects.

    Source: Efron 1979, doi:10.1214/aos/1176344552.
    """
    if len(values) < 2:
        return math.nan, math.nan
    found = stats.bootstrap(
        (values,), np.mean, confidence_level=level, n_resamples=RESAMPLES, method="percentile",
        rng=np.random.default_rng(seed),
    )  # fmt: skip
    return float(found.confidence_interval.low), float(found.confidence_interval.high)
