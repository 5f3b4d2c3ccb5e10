"""Say what a confirmation supports: which claims hold, and what is recommended.

Two claims are never mixed. A strategy claim compares the best finalist of one side with
the best of the other; an arm claim compares the means over all finalists, its error
widened by the luck of the search. The verdict's status is the strategy claim's, which is
what a user can act on; where the arm claim says the same, the verdict rests on that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from hsf_tune.config import VerdictConfig
from hsf_tune.verdict import sentences
from hsf_tune.verdict.claims import Claim, Difference, LabelFlag, Level, Verdict, VerdictStatus
from hsf_tune.verdict.comparisons import (
    Evidence,
    planned_tests,
    run_tests,
    stack,
    without_subjects,
)
from hsf_tune.verdict.coverage import Scope, check_arms, reservations
from hsf_tune.verdict.decision import FEWEST_SUBJECTS
from hsf_tune.verdict.difference import Floats, Part, estimate
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
    scope: Scope | None = None,
) -> Verdict:
    """The verdict of a search.

    Args:
        confirmation: from `scores.gather`.
        explored: from `scores.gather_exploration`: how much an arm's strategies differ, and what
            is recommended where nothing was confirmed.
        arms: the search space's arms, in its order.
        fold_1: subjects of the exploration's fold 1.
        scope: what could be tried and was; None: not known, and so not checked.
    """
    finalists = {a: f for a in arms if (f := confirmation.finalists.get(a))}
    if not finalists:
        advice = recommend_explored(explored)
        return Verdict("not_confirmed", None, sentences.NOT_CONFIRMED, advice)
    checks = check_arms(scope or Scope(), finalists, margins)
    evidence = Evidence(confirmation, _tried(explored), checks, margins)
    shared = confirmation.shared
    best = {a: max(f, key=lambda one: one.mean_on(shared)) for a, f in finalists.items()}
    winner = max(best.values(), key=lambda one: one.mean_on(shared))
    main, others = planned_tests(evidence, finalists, best, winner)
    planned = run_tests(main, evidence, corrected=False)
    status, claim, arm = _status(planned, arms)
    advice, chosen = recommend(confirmation, finalists, winner)
    verdict = Verdict(
        status=status,
        arm=arm,
        sentence="",
        recommendation=replace(advice, level=_level((chosen,), confirmation)),
        claim=claim,
        winner=winner,
        best=best,
        arms={
            name: _level(members, confirmation, evidence.luck(name))
            for name, members in finalists.items()
        },
        baselines={
            name: _level((one,), confirmation)
            for name, one in ((BASE, confirmation.base), (DEFAULT, confirmation.default))
            if one
        },
        checks=checks,
        differences=(*planned, *run_tests(others, evidence, corrected=True)),
        without_fold_1=without_subjects(fold_1, main, evidence),
        flags=_flags(winner, confirmation, margins),
    )
    verdict = replace(verdict, warnings=tuple(_warnings(confirmation, finalists, verdict)))
    return replace(verdict, sentence=sentences.verdict(verdict, len(confirmation.subjects)))


def _tried(explored: Sequence[Explored]) -> dict[str, Floats]:
    """arm -> Dice of its strategies on the exploration's first fold."""
    first = min((f for e in explored for f in e.dice_of_fold), default=1)
    dice: dict[str, list[float]] = {}
    for e in explored:
        if first in e.dice_of_fold:
            dice.setdefault(e.arm, []).append(e.dice_of_fold[first])
    return {arm: np.array(values) for arm, values in dice.items()}


def _status(
    planned: Sequence[Difference], arms: Sequence[str]
) -> tuple[VerdictStatus, Claim | None, str | None]:
    """The strategy claim's, of the pair that was to be tested first."""
    if len(arms) == 1:
        return "single_arm", None, None
    of_pair = {d.claim: d for d in planned if d.between[1] != DEFAULT}
    if not of_pair:
        return "undecided", None, None
    found, general = of_pair["strategy"], of_pair.get("arm")
    same = general and (general.status, general.better) == (found.status, found.better)
    claim: Claim = "arm" if same and found.status in ("superior", "equivalent") else "strategy"
    return ("winner" if found.status == "superior" else found.status), claim, found.better


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
        found = estimate(a, b, confirmation.folds)
        lower = found.interval(0.95)[0]
        if lower < margins.label_flag:
            flags.append(LabelFlag(label, found.mean, lower))
    return tuple(sorted(flags, key=lambda flag: flag.lower))


def _level(
    members: tuple[Confirmed, ...], confirmation: Confirmation, luck: Part | None = None
) -> Level:
    """Mean over finalists and subjects; the same error as a difference's from zero."""
    dice = stack(members)
    extra = [luck] if luck and len(members) > 1 else []
    found = estimate(dice, np.zeros_like(dice), confirmation.folds, extra)
    names = sorted({label for c in members for label in c.labels})
    labels = {
        name: float(
            np.mean([mean_over_subjects(c.labels[name]) for c in members if name in c.labels])
        )
        for name in names
    }
    return Level(found.mean, found.interval(0.95), found.n_subjects, labels)


def _warnings(
    confirmation: Confirmation, finalists: Mapping[str, tuple[Confirmed, ...]], found: Verdict
) -> Iterator[str]:
    n = len(confirmation.subjects)
    if n < FEWEST_SUBJECTS:
        yield (
            f"Only {n} subjects were confirmed; below {FEWEST_SUBJECTS} the verdict is always"
            " undecided."
        )
    yield from sentences.outliers(found.differences)
    yield from confirmation.dropped
    yield from confirmation.failed
    shared = confirmation.shared
    if not shared.all():
        yield (
            "Not all finalists and baselines were scored on the same subjects; they are ranked on"
            f" the {shared.any(axis=1).sum()} of {n} subjects that all have a score for."
        )
    base, winner = confirmation.base, found.winner
    if base and winner and base.mean_on(shared) > winner.mean_on(shared):
        yield (
            f"The unchanged base model scores higher ({base.mean_on(shared):.3f}) than every"
            f" finetuned one (at most {winner.mean_on(shared):.3f}): finetuning does not help these"
            " data."
        )
    yield from reservations(found.checks)
    for arm, members in finalists.items():
        if len(finalists) > 1 and len({c.key for c in members}) == 1:
            yield f"{arm} has one finalist, so it can be compared as a strategy, not as an arm."
