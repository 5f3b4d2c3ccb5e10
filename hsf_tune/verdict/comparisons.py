"""Decide what is compared with what, in which order, and run the tests.

First the winner against the documented default, then encoder against decoder (as arms
and by their best strategies), each at its full level; then all others, corrected for
their number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from hsf_tune.config import VerdictConfig
from hsf_tune.records import BASE, DEFAULT
from hsf_tune.verdict.claims import Claim, Difference
from hsf_tune.verdict.decision import Status, decide, holm, subjects_needed
from hsf_tune.verdict.difference import Estimate, bootstrap_interval, estimate, sign_flip_p
from hsf_tune.verdict.scores import Confirmation, Confirmed


@dataclass(frozen=True)
class PlannedTest:
    """A comparison that was planned before any number was looked at."""

    between: tuple[str, str]
    claim: Claim
    first: tuple[Confirmed, ...]
    second: tuple[Confirmed, ...]


def planned_tests(
    confirmation: Confirmation,
    finalists: Mapping[str, tuple[Confirmed, ...]],
    best: Mapping[str, Confirmed],
    winner: Confirmed,
) -> tuple[list[PlannedTest], list[PlannedTest]]:
    """Tests in their order: the main ones, and the others that Holm corrects."""
    main, others = [], []
    default, base = confirmation.default, confirmation.base
    if default and default.key != winner.key:
        main.append(PlannedTest((winner.arm, DEFAULT), "strategy", (winner,), (default,)))
    pairs = list(combinations(finalists, 2))
    first = ("encoder", "decoder") if {"encoder", "decoder"} <= set(finalists) else None
    first = first or (pairs[0] if pairs else None)
    for pair in [first] if first else []:
        main += _arm_test(pair, finalists)
        main.append(PlannedTest(pair, "strategy", (best[pair[0]],), (best[pair[1]],)))
    for pair in pairs:
        if first and set(pair) != set(first):
            by_strategy = PlannedTest(pair, "strategy", (best[pair[0]],), (best[pair[1]],))
            others += _arm_test(pair, finalists) or [by_strategy]
    if base:
        others.append(PlannedTest((winner.arm, BASE), "strategy", (winner,), (base,)))
    return main, others


def _arm_test(
    pair: tuple[str, str], finalists: Mapping[str, tuple[Confirmed, ...]]
) -> list[PlannedTest]:
    """No arm claim where an arm has a single finalist: its spread is unknown."""
    a, b = finalists[pair[0]], finalists[pair[1]]
    return [PlannedTest(pair, "arm", a, b)] if min(len(a), len(b)) > 1 else []


def run_tests(
    tests: list[PlannedTest], confirmation: Confirmation, margins: VerdictConfig, *, corrected: bool
) -> list[Difference]:
    found = [_estimate(test, confirmation) for test in tests]
    statuses = holm(found, margins) if corrected else [decide(e, margins) for e in found]
    return [
        _difference(test, e, status, confirmation, margins, corrected)
        for test, e, status in zip(tests, found, statuses, strict=True)
    ]


def _estimate(test: PlannedTest, confirmation: Confirmation) -> Estimate:
    return estimate(
        np.stack([c.dice for c in test.first]),
        np.stack([c.dice for c in test.second]),
        confirmation.folds,
        arm_claim=test.claim == "arm",
    )


def _difference(
    test: PlannedTest,
    found: Estimate,
    status: Status,
    confirmation: Confirmation,
    margins: VerdictConfig,
    corrected: bool,
) -> Difference:
    p_value = sign_flip_p(found.values)
    if test.claim == "arm":
        p_value = max(p_value, found.p_beyond(0.0))
    names = [confirmation.subjects[i] for i in found.subjects]
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
        status=status,
        better=test.between[0 if found.mean > 0 else 1] if status == "superior" else None,
        needed=subjects_needed(found, margins) if status == "undecided" else None,
        corrected=corrected,
        of_subject=dict(zip(names, map(float, found.values), strict=True)),
    )


def without_subjects(
    fold_1: frozenset[str],
    confirmation: Confirmation,
    main: list[PlannedTest],
    margins: VerdictConfig,
) -> tuple[Difference, ...]:
    """The main tests again among the other subjects; empty where that leaves none or all."""
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
    tests = [replace(t, first=only(t.first), second=only(t.second)) for t in main]
    return tuple(run_tests(tests, fewer, margins, corrected=False))
