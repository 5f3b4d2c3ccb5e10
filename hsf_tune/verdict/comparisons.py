"""Decide what is compared with what, and run the tests.

Planned before any number is looked at, and each tested at its full level: the winner
against the documented default, and encoder against decoder, by their best strategies and
as arms. All other comparisons are corrected for their number. None depends on another.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from hsf_tune.config import VerdictConfig
from hsf_tune.records import BASE, DEFAULT
from hsf_tune.verdict.claims import Claim, Difference, Outlier
from hsf_tune.verdict.coverage import ArmChecks
from hsf_tune.verdict.decision import Status, decide, holm, subjects_needed
from hsf_tune.verdict.difference import (
    Estimate,
    Floats,
    Part,
    bootstrap_interval,
    estimate,
    sign_flip_p,
)
from hsf_tune.verdict.luck import flattery, search_luck
from hsf_tune.verdict.scores import Confirmation, Confirmed


@dataclass(frozen=True)
class PlannedTest:
    """A comparison of two groups of strategies.

    Attributes:
        first, second: those compared: of a strategy claim one each, of an arm claim all finalists.
        pools: those that `first` and `second` were picked from as the best.
    """

    between: tuple[str, str]
    claim: Claim
    first: tuple[Confirmed, ...]
    second: tuple[Confirmed, ...]
    pools: tuple[tuple[Confirmed, ...], tuple[Confirmed, ...]]


@dataclass(frozen=True)
class Evidence:
    """What tests are run on.

    Attributes:
        tried: arm -> Dice of its strategies on the exploration's first fold.
        checks: arm -> what was tried of it; they may withhold a claim.
    """

    confirmation: Confirmation
    tried: Mapping[str, Floats]
    checks: Mapping[str, ArmChecks]
    margins: VerdictConfig

    def luck(self, arm: str) -> Part | None:
        """What the luck of the search adds to the mean of an arm's finalists; None: not known."""
        members = self.confirmation.finalists.get(arm, ())
        return search_luck(self.tried[arm], len(members)) if arm in self.tried else None


def planned_tests(
    evidence: Evidence,
    finalists: Mapping[str, tuple[Confirmed, ...]],
    best: Mapping[str, Confirmed],
    winner: Confirmed,
) -> tuple[list[PlannedTest], list[PlannedTest]]:
    """The planned tests, and the others that Holm corrects."""
    main = list(_against(evidence.confirmation.default, DEFAULT, finalists, winner))
    others = []
    pairs = list(combinations(finalists, 2))
    first = next((p for p in pairs if set(p) == {"encoder", "decoder"}), pairs[0] if pairs else ())
    for pair in pairs:
        a, b = (finalists[arm] for arm in pair)
        by_strategy = PlannedTest(pair, "strategy", (best[pair[0]],), (best[pair[1]],), (a, b))
        if pair != first:
            others.append(by_strategy)
            continue
        main.append(by_strategy)
        if all(len(finalists[arm]) > 1 and evidence.luck(arm) for arm in pair):
            main.append(replace(by_strategy, claim="arm", first=a, second=b))
    return main, [*others, *_against(evidence.confirmation.base, BASE, finalists, winner)]


def _against(
    rival: Confirmed | None,
    role: str,
    finalists: Mapping[str, tuple[Confirmed, ...]],
    winner: Confirmed,
) -> Iterator[PlannedTest]:
    if rival is not None and rival.key != winner.key:
        pools = (tuple(c for members in finalists.values() for c in members), (rival,))
        yield PlannedTest((winner.arm, role), "strategy", (winner,), (rival,), pools)


def run_tests(
    tests: Sequence[PlannedTest], evidence: Evidence, *, corrected: bool
) -> list[Difference]:
    found = [estimate_test(test, evidence) for test in tests]
    margins = evidence.margins
    statuses = holm(found, margins) if corrected else [decide(e, margins) for e in found]
    return [
        _difference(test, e, status, evidence, corrected)
        for test, e, status in zip(tests, found, statuses, strict=True)
    ]


def estimate_test(test: PlannedTest, evidence: Evidence) -> Estimate:
    """A test's difference, its error widened by the luck of the search or of a pick."""
    folds = evidence.confirmation.folds
    if test.claim == "arm":
        extra = [part for arm in test.between if (part := evidence.luck(arm))]
    else:
        extra = picked(stack(test.pools[0]), stack(test.pools[1]), folds)
    return estimate(stack(test.first), stack(test.second), folds, extra)


def picked(first_pool: Floats, second_pool: Floats, folds: NDArray[np.int64]) -> list[Part]:
    """What it adds that either side is the best of a pool: nothing where both are of as many,
    because then they are flattered alike."""
    if len(first_pool) == len(second_pool):
        return []
    excess = flattery(first_pool, folds) - flattery(second_pool, folds)
    return [Part(excess**2, max(1, len(np.unique(folds)) - 1))]


def stack(members: Sequence[Confirmed]) -> Floats:
    return np.stack([c.dice for c in members])


def _difference(
    test: PlannedTest, found: Estimate, status: Status, evidence: Evidence, corrected: bool
) -> Difference:
    p_value = sign_flip_p(found.values, found.folds)
    if found.extra:
        p_value = max(p_value, found.p_beyond(0.0))
    names = [evidence.confirmation.subjects[i] for i in found.subjects]
    first, second = test.between
    checks = evidence.checks.get(first)
    withheld = (
        checks is not None
        and second in evidence.checks
        and (checks.withholds(second) or evidence.checks[second].withholds(first))
    )
    superior = status == "superior" and not withheld
    return Difference(
        between=test.between,
        claim=test.claim,
        mean=found.mean,
        se=found.se,
        ci95=found.interval(0.95),
        ci90=found.interval(0.90),
        bootstrap95=bootstrap_interval(found.values),
        p_value=p_value,
        n_subjects=found.n_subjects,
        status="not_comparable" if withheld else status,
        better=test.between[0 if found.mean > 0 else 1] if superior else None,
        needed=subjects_needed(found, evidence.margins) if status == "undecided" else None,
        corrected=corrected,
        of_subject=dict(zip(names, map(float, found.values), strict=True)),
        outlier=_outlier(found, names),
    )


def _outlier(found: Estimate, names: Sequence[str]) -> Outlier | None:
    place = found.dominant()
    if place is None:
        return None
    others = found.without(place)
    return Outlier(names[place], others.mean, others.interval(0.95))


def without_subjects(
    fold_1: frozenset[str], main: Sequence[PlannedTest], evidence: Evidence
) -> tuple[Difference, ...]:
    """The planned tests again among the other subjects; empty where that leaves none or all."""
    confirmation = evidence.confirmation
    keep = np.array([s not in fold_1 for s in confirmation.subjects])
    if keep.all() or keep.sum() < 2:
        return ()

    def only(members: tuple[Confirmed, ...]) -> tuple[Confirmed, ...]:
        return tuple(replace(c, dice=c.dice[keep]) for c in members)

    fewer = replace(
        confirmation,
        subjects=tuple(s for s in confirmation.subjects if s not in fold_1),
        folds=confirmation.folds[keep],
    )
    tests = [
        replace(
            t,
            first=only(t.first),
            second=only(t.second),
            pools=(only(t.pools[0]), only(t.pools[1])),
        )
        for t in main
    ]
    return tuple(run_tests(tests, replace(evidence, confirmation=fewer), corrected=False))
