"""Arrange a run's scores for the statistics: who was scored on whom, in which phase.

Sides and contrasts are averaged within the subject, Dice over the foreground labels.
The confirmation alone is quoted; the exploration's scores stand beside it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsf_tune.records import BASE, DEFAULT, Score, TrialRecord, mean_dice, subject_means
from hsf_tune.strategy import describe, strategy_key
from hsf_tune.verdict.difference import Floats, mean_over_seeds


@dataclass(frozen=True, eq=False)
class Confirmed:
    """One strategy's scores in the confirmation.

    Attributes:
        dice: (subjects, seeds); nan where no score is recorded.
        labels: label's name -> the same shape.
        late_gain: Dice gained in the last quarter of its trainings; nan where there are no curves.
    """

    key: str
    arm: str
    strategy: Mapping[str, Any]
    dice: Floats
    labels: Mapping[str, Floats] = field(default_factory=dict)
    late_gain: float = math.nan

    @property
    def complete(self) -> bool:
        """Whether each subject has a score with one seed at least."""
        return bool((~np.isnan(self.dice)).any(axis=1).all())

    @property
    def mean(self) -> float:
        """Mean over subjects of the mean over seeds."""
        return mean_over_subjects(self.dice)

    def mean_on(self, cells: NDArray[np.bool_]) -> float:
        """The same over some (subjects, seeds) only."""
        return mean_over_subjects(np.where(cells, self.dice, np.nan))


@dataclass(frozen=True, eq=False)
class Confirmation:
    """The confirmation's scores, on one axis of subjects and one of seeds.

    Attributes:
        folds: (subjects,) the fold in which each subject validates.
        finalists: arm -> its finalists that have a score for every subject.
        dropped: one sentence for each arm with finalists that lack scores.
        failed: one sentence for each strategy of which a training failed.
    """

    subjects: tuple[str, ...]
    seeds: tuple[int, ...]
    folds: NDArray[np.int64]
    finalists: Mapping[str, tuple[Confirmed, ...]]
    default: Confirmed | None = None
    base: Confirmed | None = None
    dropped: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()

    @property
    def shared(self) -> NDArray[np.bool_]:
        """(subjects, seeds) that all finalists and the documented default have a score for, so that
        ranks are those of the same subjects; all of them where there is none."""
        everyone = [c for members in self.finalists.values() for c in members]
        everyone += [self.default] if self.default else []
        known = np.logical_and.reduce([~np.isnan(c.dice) for c in everyone])
        return known if known.any() else np.ones_like(known)


@dataclass(frozen=True)
class Explored:
    """One strategy's Dice in the exploration, fold by fold (mean over a fold's subjects)."""

    key: str
    arm: str
    strategy: Mapping[str, Any]
    dice_of_fold: Mapping[int, float]

    @property
    def dice(self) -> float:
        return float(np.mean(list(self.dice_of_fold.values())))


def mean_over_subjects(cells: Floats) -> float:
    """Mean over subjects of the mean over seeds of (subjects, seeds); nan where all are."""
    rows = mean_over_seeds(cells)
    known = ~np.isnan(rows)
    return float(rows[known].mean()) if known.any() else math.nan


def gather(
    trials: Iterable[TrialRecord],
    documented_default: Mapping[str, Any] | None = None,
    phase: str = "confirm",
    members: Mapping[str, Collection[str]] | None = None,
) -> Confirmation:
    """Arrange the finished trials of the confirmation (or of the test).

    Args:
        trials: of a run; those of other phases are passed over.
        documented_default: its canonical strategy, where it may also be a finalist of an
            arm: then its trials ran once and serve as both.
        phase: "confirm" or "test".
        members: arm -> keys of its finalists; a strategy that two arms hand on is run
            once and counts for both. None: a trial counts for the arm it carries.
    """
    trials = list(trials)
    done = [t for t in trials if t.started.phase == phase and t.finished]
    rows = {t.id: subject_means(t.ended.scores if t.ended else ()) for t in done}
    fold_of = {s: t.started.fold for t in done for s in rows[t.id]}
    subjects = tuple(sorted(fold_of))
    seeds = tuple(sorted({t.started.seed for t in done}))
    by_role: dict[tuple[str, str], list[TrialRecord]] = {}
    for t in done:
        by_role.setdefault((_role(t), strategy_key(t.started.strategy)), []).append(t)
    made = [_confirmed(*role, found, subjects, seeds) for role, found in sorted(by_role.items())]
    made = [c for c in made if not np.isnan(c.dice).all()]
    finalists, dropped = _complete_finalists(_by_arm(made, members))
    return Confirmation(
        subjects=subjects,
        seeds=seeds,
        folds=np.array([fold_of[s] for s in subjects], dtype=np.int64),
        finalists=finalists,
        default=_default(made, documented_default),
        base=next((c for c in made if c.arm == BASE), None),
        dropped=tuple(dropped),
        failed=tuple(_failures([t for t in trials if t.started.phase == phase])),
    )


def gather_exploration(trials: Iterable[TrialRecord]) -> list[Explored]:
    """The strategies that the exploration scored, in order of their first trial."""
    dice: dict[tuple[str, str], dict[int, float]] = {}
    strategies: dict[tuple[str, str], Mapping[str, Any]] = {}
    for t in trials:
        if t.started.phase != "explore" or not t.finished or not t.ended:
            continue
        value = t.ended.dice if t.ended.dice is not None else mean_dice(t.ended.scores)
        if not np.isnan(value) and t.started.strategy:
            name = (t.started.arm, strategy_key(t.started.strategy))
            strategies[name] = t.started.strategy
            dice.setdefault(name, {})[t.started.fold] = value
    return [Explored(key, arm, strategies[arm, key], d) for (arm, key), d in dice.items()]


def gather_tried(trials: Iterable[TrialRecord]) -> dict[str, list[Mapping[str, Any]]]:
    """arm -> the strategies that it began to explore, also those that failed."""
    tried: dict[str, dict[str, Mapping[str, Any]]] = {}
    for t in trials:
        if t.started.phase == "explore" and t.started.strategy:
            strategy = t.started.strategy
            tried.setdefault(t.started.arm, {})[strategy_key(strategy)] = strategy
    return {arm: list(strategies.values()) for arm, strategies in tried.items()}


def subjects_of_fold_1(trials: Iterable[TrialRecord]) -> frozenset[str]:
    """Subjects on whom the exploration's first fold ranked all strategies."""
    return frozenset(
        subject
        for t in trials
        if t.started.phase == "explore" and t.started.fold == 1
        for subject in t.started.validate
    )


def _failures(trials: Sequence[TrialRecord]) -> Iterator[str]:
    """What is scored of a strategy that often fails is only where it went well."""
    by_key: dict[str, list[TrialRecord]] = {}
    for t in trials:
        if t.ended is not None:
            by_key.setdefault(strategy_key(t.started.strategy), []).append(t)
    for members in by_key.values():
        reasons = [t.ended.reason for t in members if t.ended and t.ended.status == "failed"]
        if reasons:
            yield (
                f"{len(reasons)} of {len(members)} trainings of"
                f" {describe(members[0].started.strategy)} failed ({reasons[0]}); its scores are of"
                " the others."
            )


def _role(trial: TrialRecord) -> str:
    """The arm that a trial counts for, or the baseline that it is."""
    return trial.started.arm if trial.started.strategy else BASE


def _confirmed(
    role: str,
    key: str,
    trials: list[TrialRecord],
    subjects: tuple[str, ...],
    seeds: tuple[int, ...],
) -> Confirmed:
    row = {s: i for i, s in enumerate(subjects)}
    shape = (len(subjects), len(seeds))
    dice = np.full(shape, np.nan)
    labels: dict[str, Floats] = {}
    for t in trials:
        column = seeds.index(t.started.seed)
        scores = t.ended.scores if t.ended else ()
        for subject, value in subject_means(scores).items():
            dice[row[subject], column] = value
        for label, chosen in _by_label(scores).items():
            cells = labels.setdefault(label, np.full(shape, np.nan))
            for subject, value in subject_means(chosen).items():
                cells[row[subject], column] = value
    if role == BASE:  # nothing is trained: one seed's score is every seed's
        dice, labels = _spread(dice), {name: _spread(cells) for name, cells in labels.items()}
    return Confirmed(key, role, trials[0].started.strategy, dice, labels, _late_gain(trials))


def _late_gain(trials: Iterable[TrialRecord]) -> float:
    """Mean over trials of the last Dice less that at three quarters of the epochs."""
    curves = [t.curve("val_dice")[1] for t in trials]
    gains = [c[-1] - c[(3 * len(c) - 1) // 4] for c in curves if len(c) >= 4]
    return float(np.mean(gains)) if gains else math.nan


def _by_label(scores: Iterable[Score]) -> dict[str, list[Score]]:
    found: dict[str, list[Score]] = {}
    for score in scores:
        if score.metric == "dice":
            found.setdefault(score.label, []).append(score)
    return found


def _spread(cells: Floats) -> Floats:
    return np.repeat(mean_over_seeds(cells)[:, None], cells.shape[1], axis=1)


def _by_arm(
    made: list[Confirmed], members: Mapping[str, Collection[str]] | None
) -> list[Confirmed]:
    if members is None:
        return [c for c in made if c.arm not in (BASE, DEFAULT)]
    return [
        replace(c, arm=arm) for arm, keys in members.items() for c in made if c.key in set(keys)
    ]


def _complete_finalists(
    made: list[Confirmed],
) -> tuple[dict[str, tuple[Confirmed, ...]], list[str]]:
    """Finalists by arm; those that lack subjects are left out, unless all of them do."""
    arms: dict[str, tuple[Confirmed, ...]] = {}
    dropped = []
    for arm in dict.fromkeys(c.arm for c in made):
        members = [c for c in made if c.arm == arm]
        whole = [c for c in members if c.complete]
        if whole and len(whole) < len(members):
            dropped.append(
                f"{len(members) - len(whole)} of {len(members)} finalists of {arm} lack scores on"
                " whole folds of the confirmation and are left out of the verdict."
            )
        arms[arm] = tuple(whole or members)
    return arms, dropped


def _default(made: list[Confirmed], strategy: Mapping[str, Any] | None) -> Confirmed | None:
    key = None if strategy is None else strategy_key(strategy)
    return next((c for c in made if c.arm == DEFAULT or c.key == key), None)
