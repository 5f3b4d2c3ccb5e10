"""What a verdict says: tested differences, levels, flags, a recommendation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from hsf_tune.verdict.decision import Status, SubjectsNeeded
from hsf_tune.verdict.scores import Confirmed

Claim = Literal["strategy", "arm"]
VerdictStatus = Literal["winner", "equivalent", "undecided", "not_confirmed", "single_arm"]


@dataclass(frozen=True)
class Difference:
    """A tested difference of Dice, first minus second.

    Attributes:
        between: arms, or an arm and a baseline ("documented_default", "base").
        bootstrap95: shown beside ci95; too narrow with few subjects.
        p_value: sign-flip permutation; for an arm claim not below that of its wider t interval.
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
    status: Status
    better: str | None
    needed: SubjectsNeeded | None
    of_subject: Mapping[str, float] = field(repr=False)
    corrected: bool = False

    @property
    def reachable(self) -> bool:
        """Whether it is decided, or a number of subjects would decide it."""
        return self.status != "undecided" or self.needed is not None


@dataclass(frozen=True)
class Level:
    """Dice of an arm (mean over its finalists) or of a baseline, over subjects."""

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
    """What to finetune with, whatever the verdict."""

    arm: str | None
    strategy: Mapping[str, Any]
    reason: str


@dataclass(frozen=True)
class Verdict:
    """What a search supports.

    Attributes:
        arm: the better arm where `status` is "winner", else None.
        best: arm -> its finalist with the highest confirmed mean.
        differences: in the order of testing.
        without_fold_1: the encoder-against-decoder differences, and the winner's against the
            default, among subjects that the exploration's fold 1 did not rank on.
        flags: labels to look at before anything else.
        warnings: sentences on what limits the verdict.
    """

    status: VerdictStatus
    arm: str | None
    sentence: str
    recommendation: Recommendation
    winner: Confirmed | None = None
    best: Mapping[str, Confirmed] = field(default_factory=dict)
    arms: Mapping[str, Level] = field(default_factory=dict)
    baselines: Mapping[str, Level] = field(default_factory=dict)
    differences: tuple[Difference, ...] = ()
    without_fold_1: tuple[Difference, ...] = ()
    flags: tuple[LabelFlag, ...] = ()
    warnings: tuple[str, ...] = ()
