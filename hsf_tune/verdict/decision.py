"""Decide what an estimated difference allows to be said: superior, equivalent, undecided.

The margins are in Dice and come from the configuration's `verdict` group.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from hsf_tune.config import VerdictConfig
from hsf_tune.verdict.difference import Estimate

Status = Literal["superior", "equivalent", "undecided"]

FEWEST_SUBJECTS = 6  # below it nothing is decided
MOST_SUBJECTS = 500  # more than any laboratory would label: "not reachable"
ALPHA = 0.05
QUARTILE = 0.6745  # standard errors from the mean of a normal distribution to its quartiles


class SubjectsNeeded(NamedTuple):
    """How many subjects would decide: from `low` to `high`; `high` None: perhaps never."""

    low: int
    high: int | None


def decide(found: Estimate, margins: VerdictConfig, alpha: float = ALPHA) -> Status:
    """What may be claimed of one difference.

    Superior: the (1 - alpha) interval lies beyond +-margins.superior; it takes precedence.
    Equivalent: the 90 % interval lies inside +-margins.equivalent (two one-sided tests,
    Schuirmann 1987, doi:10.1007/BF01068419). With fewer than six subjects: undecided.
    """
    if found.n_subjects < FEWEST_SUBJECTS:
        return "undecided"
    low, high = found.interval(1 - alpha)
    if low > margins.superior or high < -margins.superior:
        return "superior"
    return "equivalent" if _inside(found, margins) else "undecided"


def _inside(found: Estimate, margins: VerdictConfig) -> bool:
    low, high = found.interval(0.90)
    return low > -margins.equivalent and high < margins.equivalent


def holm(found: Sequence[Estimate], margins: VerdictConfig) -> list[Status]:
    """`decide` for a family of differences, superiority corrected for their number.

    Source: Holm 1979, doi:10.2307/4615733.
    """
    enough = [e.n_subjects >= FEWEST_SUBJECTS for e in found]
    p_values = [
        e.p_beyond(margins.superior) if many else 1.0 for e, many in zip(found, enough, strict=True)
    ]
    statuses: list[Status] = ["undecided"] * len(found)
    rejecting = True
    for rank, index in enumerate(np.argsort(p_values, kind="stable")):
        rejecting = rejecting and p_values[index] < ALPHA / (len(found) - rank)
        if rejecting:
            statuses[index] = "superior"
        elif enough[index] and _inside(found[index], margins):
            statuses[index] = "equivalent"
    return statuses


def subjects_needed(found: Estimate, margins: VerdictConfig) -> SubjectsNeeded | None:
    """The numbers of subjects that would decide, were the true difference near this one.

    The subjects' part of the error shrinks with their number; what trainings of as many folds
    and the luck of the search add does not. The range spans true differences between the
    quartiles of the estimate (mean +- 0.67 standard errors).

    Returns:
        None: not reachable, with any number up to 500 and any of these differences.
    """
    if found.n_subjects < 2:
        return None
    spread = QUARTILE * found.se
    needed = _fewest(found, np.linspace(found.mean - spread, found.mean + spread, 9), margins)
    reachable = [n for n in needed if n is not None]
    if not reachable:
        return None
    floor = max(FEWEST_SUBJECTS, found.n_subjects + 1)
    high = max(floor, *reachable) if len(reachable) == len(needed) else None
    return SubjectsNeeded(max(floor, min(reachable)), high)


def _fewest(
    found: Estimate, means: NDArray[np.float64], margins: VerdictConfig
) -> list[int | None]:
    """Fewest subjects at which exactly such a mean is superior or equivalent, for each of them."""
    n = np.arange(FEWEST_SUBJECTS, MOST_SUBJECTS + 1)
    sampling, lasting = found.sampling, found.lasting
    variance = (sampling.variance - lasting) * found.n_subjects / n + lasting
    squares = variance**2 / (n - 1.0 if sampling.df == found.n_subjects - 1 else sampling.df)
    for part in found.extra:
        variance = variance + part.variance
        squares = squares + part.variance**2 / part.df
    df = np.divide(variance**2, squares, out=n - 1.0, where=squares > 0)
    size, se = np.abs(means)[:, None], np.sqrt(variance)
    decided = size - stdtrit(df, 0.975) * se > margins.superior
    decided |= size + stdtrit(df, 0.95) * se < margins.equivalent
    return [int(n[row.argmax()]) if row.any() else None for row in decided]
