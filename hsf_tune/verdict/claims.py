"""What a verdict says: tested differences, levels, flags, a recommendation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from hsf_tune.verdict.coverage import ArmChecks
from hsf_tune.verdict.decision import Status, SubjectsNeeded
from hsf_tune.verdict.scores import Confirmed

Claim = Literal["strategy", "arm"]
VerdictStatus = Literal[
    "winner", "equivalent", "undecided", "not_comparable", "not_confirmed", "single_arm"
]


@dataclass(frozen=True)
class Outlier:
    """A subject that makes up more than half of a difference's sum of squares, and the
    difference among all others."""

    subject: str
    mean: float
    ci95: tuple[float, float]


@dataclass(frozen=True)
class Difference:
    """A tested difference of Dice, first minus second.

    Attributes:
        between: arms, or an arm and a baseline ("documented_default", "base").
        bootstrap95: shown beside ci95; too narrow with few subjects.
        p_value: sign-flip permutation of folds; not below that of the t interval where luck or a
            pick widens it.
        status: not_comparable: whatever the interval says, see `coverage.py`.
        better: the one of `between` that is superior; None where neither is.
        needed: subjects that would decide; None where decided or not reachable.
        corrected: superiority was corrected, after Holm, for the number of other comparisons.
        of_subject: subject -> its difference.
    """

    between: tuple[str, str]
    claim: Claim
    mean: float
    se: float
    ci95: tuple[float, float]
    ci90: tuple[float, float]
    bootstrap95: tuple[float, float]
    p_value: float
    n_subjects: int
    status: Status | Literal["not_comparable"]
    better: str | None
    needed: SubjectsNeeded | None
    of_subject: Mapping[str, float] = field(repr=False)
    corrected: bool = False
    outlier: Outlier | None = None

    @property
    def reachable(self) -> bool:
        """Whether it is decided, or a number of subjects would decide it."""
        return self.status != "undecided" or self.needed is not None


@dataclass(frozen=True)
class Level:
    """Dice of an arm (mean of its finalists) or of one strategy, over subjects."""

    mean: float
    ci95: tuple[float, float]
    n_subjects: int
    labels: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class LabelFlag:
    """A label that may have become worse than under the documented default."""

    label: str
    mean: float
    lower: float  # of the 95 % interval


@dataclass(frozen=True)
class Recommendation:
    """What to finetune with, whatever the verdict.

    Attributes:
        arm: "base": don't finetune; the strategy is then empty.
        level: its own confirmed Dice; None where nothing was confirmed.
        candidates: of how many finalists it was picked as the best; 1: it was not picked.
        flattered_by: what having been picked adds to its Dice, estimated.
    """

    arm: str | None
    strategy: Mapping[str, Any]
    reason: str
    level: Level | None = None
    candidates: int = 1
    flattered_by: float = 0.0


@dataclass(frozen=True)
class Verdict:
    """What a search supports.

    Attributes:
        claim: that `status` rests on: "arm" where the arm claim says the same as the strategy claim.
        arm: the better arm where `status` is "winner", else None.
        best: arm -> its finalist with the highest confirmed mean.
        arms: arm -> the mean of its finalists.
        checks: arm -> what was tried of it.
        differences: the planned ones first.
        without_fold_1: the encoder-against-decoder differences, and the winner's against the
            default, among subjects that the exploration's fold 1 did not rank on.
        flags: labels to look at before anything else.
        warnings: sentences on what limits the verdict.
    """

    status: VerdictStatus
    arm: str | None
    sentence: str
    recommendation: Recommendation
    claim: Claim | None = None
    winner: Confirmed | None = None
    best: Mapping[str, Confirmed] = field(default_factory=dict)
    arms: Mapping[str, Level] = field(default_factory=dict)
    baselines: Mapping[str, Level] = field(default_factory=dict)
    checks: Mapping[str, ArmChecks] = field(default_factory=dict)
    differences: tuple[Difference, ...] = ()
    without_fold_1: tuple[Difference, ...] = ()
    flags: tuple[LabelFlag, ...] = ()
    warnings: tuple[str, ...] = ()
