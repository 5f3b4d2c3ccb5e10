"""Say what a confirmation supports: which tests, in which order, and what is recommended.

Two claims are never mixed. A strategy claim compares the best finalist of one side with
the best of the other; an arm claim compares the means over all finalists, its error
widened by the luck of the search. The verdict's status is the arm claim's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from hsf_tune.config import VerdictConfig
from hsf_tune.verdict import sentences
from hsf_tune.verdict.claims import Difference, LabelFlag, Level, Verdict, VerdictStatus
from hsf_tune.verdict.comparisons import (
    PlannedTest,
    planned_tests,
    run_tests,
    without_subjects,
)
from hsf_tune.verdict.decision import FEWEST_SUBJECTS
from hsf_tune.verdict.difference import estimate
from hsf_tune.verdict.recommendation import recommend, recommend_explored
from hsf_tune.verdict.scores import (
    BASE,
    DEFAULT,
    Confirmation,
    Confirmed,
    Explored,
    mean_over_subjects,
)


def judge(
    confirmation: Confirmation,
    explored: Sequence[Explored],
    arms: Sequence[str],
    margins: VerdictConfig,
    fold_1: frozenset[str] = frozenset(),
) -> Verdict:
    """The verdict of a search.

    Args:
        confirmation: from `scores.gather`.
        explored: from `scores.gather_exploration`; recommends where nothing was confirmed.
        arms: the search space's arms, in its order.
        fold_1: subjects of the exploration's fold 1.
    """
    finalists = {a: f for a in arms if (f := confirmation.finalists.get(a))}
    if not finalists:
        advice = recommend_explored(explored)
        return Verdict("not_confirmed", None, sentences.NOT_CONFIRMED, advice)
    shared = confirmation.shared
    best = {a: max(f, key=lambda one: one.mean_on(shared)) for a, f in finalists.items()}
    winner = max(best.values(), key=lambda one: one.mean_on(shared))
    main, others = planned_tests(confirmation, finalists, best, winner)
    differences = (
        *run_tests(main, confirmation, margins, corrected=False),
        *run_tests(others, confirmation, margins, corrected=True),
    )
    status, arm = _status(differences, main, arms)
    verdict = Verdict(
        status=status,
        arm=arm,
        sentence="",
        recommendation=recommend(confirmation, best, winner),
        winner=winner,
        best=best,
        arms={name: _level(members, confirmation) for name, members in finalists.items()},
        baselines={
            name: _level((one,), confirmation)
            for name, one in ((BASE, confirmation.base), (DEFAULT, confirmation.default))
            if one
        },
        differences=differences,
        without_fold_1=without_subjects(fold_1, confirmation, main, margins),
        flags=_flags(winner, confirmation, margins),
        warnings=tuple(_warnings(confirmation, finalists, winner)),
    )
    return replace(verdict, sentence=sentences.verdict(verdict, len(confirmation.subjects)))


def _status(
    differences: Sequence[Difference],
    main: Sequence[PlannedTest],
    arms: Sequence[str],
) -> tuple[VerdictStatus, str | None]:
    """The arm claim's, of the pair that was to be tested first."""
    if len(arms) == 1:
        return "single_arm", None
    for found in differences[: len(main)]:
        if found.claim == "arm":
            if found.status == "superior":
                return "winner", found.better
            return found.status, None
    return "undecided", None


def _flags(
    winner: Confirmed, confirmation: Confirmation, margins: VerdictConfig
) -> tuple[LabelFlag, ...]:
    """Labels whose lower 95 % limit against the default is below the margin, worst first."""
    default = confirmation.default
    if default is None or default.key == winner.key:
        return ()
    flags = []
    for label in sorted(set(winner.labels) & set(default.labels)):
        a, b = winner.labels[label][None], default.labels[label][None]
        found = estimate(a, b, confirmation.folds, arm_claim=False)
        lower = found.interval(0.95)[0]
        if lower < margins.label_flag:
            flags.append(LabelFlag(label, found.mean, lower))
    return tuple(sorted(flags, key=lambda flag: flag.lower))


def _level(members: tuple[Confirmed, ...], confirmation: Confirmation) -> Level:
    """Mean over finalists and subjects; the same error as a difference's from zero."""
    dice = np.stack([c.dice for c in members])
    zero = np.zeros_like(dice)
    found = estimate(dice, zero, confirmation.folds, arm_claim=len(members) > 1)
    names = sorted({label for c in members for label in c.labels})
    labels = {
        name: float(
            np.mean([mean_over_subjects(c.labels[name]) for c in members if name in c.labels])
        )
        for name in names
    }
    return Level(found.mean, found.interval(0.95), found.n_subjects, labels)


def _warnings(
    confirmation: Confirmation, finalists: Mapping[str, tuple[Confirmed, ...]], winner: Confirmed
) -> Iterator[str]:
    n = len(confirmation.subjects)
    if n < FEWEST_SUBJECTS:
        yield (
            f"Only {n} subjects were confirmed; below {FEWEST_SUBJECTS} the verdict is always"
            " undecided."
        )
    yield from confirmation.dropped
    yield from confirmation.failed
    shared = confirmation.shared
    if not shared.all():
        yield (
            "Not all finalists and baselines were scored on the same subjects; they are ranked on"
            f" the {shared.any(axis=1).sum()} of {n} subjects that all have a score for."
        )
    base = confirmation.base
    if base and base.mean_on(shared) > winner.mean_on(shared):
        yield (
            f"The unchanged base model scores higher ({base.mean_on(shared):.3f}) than every"
            f" finetuned one (at most {winner.mean_on(shared):.3f}): finetuning does not help these"
            " data."
        )
    if len(confirmation.seeds) < 2:
        yield "One seed only: what the seed of a training adds to the error is not known."
    for arm, members in finalists.items():
        keys = {c.key for c in members}
        if len(finalists) > 1 and len(keys) == 1:
            yield f"{arm} has one finalist, so it can be compared as a strategy, not as an arm."
