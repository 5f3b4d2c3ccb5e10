"""Decide what a search runs next, from what its records hold. Pure: no Ray, no Optuna.

Exploration is a race over folds. Each arm tries its strategies on fold 1, the best go
on to fold 2, the best of those to the next folds. Then the finalists of all arms, the
documented default and the unchanged base are confirmed on new folds.

Two rules keep every worker busy without making the outcome depend on who finishes
first. A strategy goes on to the next fold as soon as it is certain to be among the
best, even while others still run. And an arm proposes its next strategy while another
of its own still runs only where nothing else is left to do.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from hsf_tune.config import SearchConfig
from hsf_tune.data.splits import Split, Splits
from hsf_tune.records import (
    BASE,
    DEFAULT,
    ConfirmationVoided,
    Event,
    Exhausted,
    FinalistsNamed,
    Proposed,
    Records,
    RetriedAlone,
    StageBegan,
    TrialEnded,
    TrialSpec,
    TrialStarted,
)
from hsf_tune.search.arms import Arm, Space
from hsf_tune.strategy import Strategy

FAILED = -math.inf  # where a trial that failed or was pruned ranks


class Slot(NamedTuple):
    """What is never run twice: a strategy on a split with a seed."""

    phase: str
    fold: int
    seed: int
    key: str

    @classmethod
    def of(cls, trial: TrialSpec | TrialStarted) -> Slot:
        return cls(trial.phase, trial.fold, trial.seed, trial.strategy.key)


@dataclass(frozen=True)
class Propose:
    """Ask an arm for its strategy of that number (from 1)."""

    arm: str
    number: int


@dataclass(frozen=True)
class Wait:
    """Nothing can start until a running trial ends."""


@dataclass(frozen=True)
class Done:
    """Everything planned has been run."""


@dataclass(frozen=True)
class ArmPlan:
    """How many of an arm's strategies reach which fold.

    Attributes:
        strategies: on fold 1.
        keep: on folds 2, 3, ...
        finalists: of those on the last fold, how many are confirmed.
    """

    name: str
    strategies: int
    keep: tuple[int, ...]
    finalists: int


@dataclass(frozen=True)
class RacePlan:
    """All that a search will run, as far as it is known before it starts.

    Attributes:
        default: the documented default's canonical strategy.
        default_arms: the arms that propose it among their first.
        base: whether the unchanged base can be scored on these labels.
        confirm, confirm_seeds: empty where there is no confirmation.
        test: jobs on the locked test set, once the verdict has named its strategies.
    """

    arms: tuple[ArmPlan, ...]
    explore: tuple[Split, ...]
    confirm: tuple[Split, ...]
    seed: int
    confirm_seeds: tuple[int, ...]
    default: Strategy
    default_arms: tuple[str, ...]
    base: bool
    test: tuple[TrialSpec, ...] = ()


class Member(NamedTuple):
    """A strategy that an arm proposed: its number in the arm, from 1, and its key."""

    arm: str
    number: int
    key: str


@dataclass
class State:
    """What the records say, as the race needs it.

    Attributes:
        members: arm -> its proposals, in order.
        strategies: key -> strategy.
        done: slot -> Dice, or FAILED.
        begun: slots that started and have not ended.
        trials: slot -> id of its trial.
        slots: id of a trial -> what it ran.
        exhausted: arms that have no further strategy to propose.
        finalists: arm -> the finalists that were named last.
        voided: strategies were added after that, and after a look at the confirmation.
        stages: that began.
        alone: trials that ran out of memory, and run alone since.

    What is read from a file and what is followed event by event are the same state.
    """

    members: dict[str, list[Member]] = field(default_factory=dict)
    strategies: dict[str, Strategy] = field(default_factory=dict)
    done: dict[Slot, float] = field(default_factory=dict)
    begun: set[Slot] = field(default_factory=set)
    trials: dict[Slot, str] = field(default_factory=dict)
    slots: dict[str, Slot] = field(default_factory=dict)
    exhausted: set[str] = field(default_factory=set)
    finalists: dict[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    voided: bool = False
    stages: set[str] = field(default_factory=set)
    alone: set[str] = field(default_factory=set)

    def apply(self, event: Event) -> None:
        """Take one more event of the records into account."""
        match event:
            case Proposed():
                member = Member(event.arm, event.number, event.strategy.key)
                self.members.setdefault(event.arm, []).append(member)
                self.strategies[member.key] = event.strategy
            case Exhausted():
                self.exhausted.add(event.arm)
            case FinalistsNamed():
                self.finalists[event.arm] = event.finalists
                self.voided = False
            case ConfirmationVoided():
                self.voided = True
            case StageBegan():
                self.stages.add(event.text)
            case RetriedAlone():
                self.alone.add(event.trial)
            case TrialStarted():
                slot = self.slots[event.trial] = Slot.of(event)
                self.strategies.setdefault(slot.key, event.strategy)
                self.trials[slot] = event.trial
                self.begun.add(slot)
                self.done.pop(slot, None)
            case TrialEnded() if event.trial in self.slots:
                slot = self.slots[event.trial]
                self.begun.discard(slot)
                self.done[slot] = score_of(event)


def plan_race(
    space: Space, search: SearchConfig, splits: Splits, seed: int, *, base: bool
) -> RacePlan:
    """Fit the search's settings to the arms and to the folds that there are."""
    folds = min(search.folds, len(splits.explore))
    return RacePlan(
        arms=tuple(_plan_arm(arm, search, folds) for arm in space.arms),
        explore=splits.explore[:folds],
        confirm=splits.confirm if search.confirm else (),
        seed=seed,
        confirm_seeds=tuple(seed + i for i in range(search.confirm_seeds)),
        default=space.default,
        default_arms=space.arms_that_start_with_default(),
        base=base,
    )


def _plan_arm(arm: Arm, search: SearchConfig, folds: int) -> ArmPlan:
    """An arm that asks for fewer strategies also keeps fewer, in proportion."""
    wanted = min(arm.strategies or search.strategies_per_arm, search.strategies_per_arm)
    n = min(wanted, arm.size) if arm.size is not None else wanted
    share = n / search.strategies_per_arm
    keep, previous = [], n
    for kept in search.keep[: folds - 1]:
        previous = min(previous, max(1, round(kept * share)))
        keep.append(previous)
    finalists = min(keep[-1] if keep else max(1, round(search.keep[-1] * share)), n)
    return ArmPlan(arm.name, n, tuple(keep), min(finalists, arm.finalists or finalists))


def read_state(records: Records) -> State:
    """What the race needs to know of a run's records."""
    state = State()
    for event in records.events():
        state.apply(event)
    return state


def trial_id(arm: str, number: int, fold: int = 1) -> str:
    """Name of an exploration trial."""
    return f"explore-{arm}-{number:03d}-f{fold}"


def score_of(ended: TrialEnded) -> float:
    """The Dice that ranks; FAILED for a trial that did not finish or has no finite Dice."""
    if ended.status != "finished" or ended.dice is None:
        return FAILED
    return float(ended.dice) if math.isfinite(ended.dice) else FAILED


def next_step(
    plan: RacePlan, state: State, running: Collection[Slot]
) -> TrialSpec | Propose | Wait | Done:
    """What a free worker does now.

    Args:
        running: slots that a worker holds at this moment. A trial that began and is not
            among them was interrupted, and goes on before anything new starts.
    """
    view = _View(plan, state, frozenset(running))
    for candidates in (
        view.interrupted,
        view.baselines,
        view.exploration,
        view.confirmation,
        view.early_proposals,
        view.test,
    ):
        for step in candidates():
            return step
    return Done() if view.complete() and not running else Wait()


@dataclass(frozen=True)
class Ranked:
    """A strategy of an arm with what exploration says about it."""

    member: Member
    folds: int
    dice: float


def ranking(plan: RacePlan, state: State, arm: ArmPlan) -> list[Ranked]:
    """An arm's strategies, best first: those on more folds before those on fewer.

    Complete or not, its first `arm.finalists` are the finalists of what has been run.
    """
    ranked = []
    for member in state.members.get(arm.name, [])[: arm.strategies]:
        scores = []
        for split in plan.explore:
            score = state.done.get(Slot("explore", split.fold, plan.seed, member.key))
            if score is None or score == FAILED:
                break
            scores.append(score)
        if scores:
            ranked.append(Ranked(member, len(scores), sum(scores) / len(scores)))
    return sorted(ranked, key=lambda r: (-r.folds, -r.dice, r.member.number))


def finalists(plan: RacePlan, state: State, arm: ArmPlan) -> list[Ranked]:
    """The strategies of an arm that are confirmed, best first."""
    return ranking(plan, state, arm)[: arm.finalists]


def is_explored(plan: RacePlan, state: State, arm: ArmPlan) -> bool:
    """Whether an arm has run its part of the race to the end."""
    view = _View(plan, state, frozenset())
    return view.explored(arm)


@dataclass(frozen=True)
class Workload:
    """What a plan comes to before anything has run.

    Attributes:
        trials: in all.
        expected: arm or baseline -> (trials, epochs) of it, confirmation included.
    """

    trials: int
    expected: Mapping[str, tuple[int, int]]


def expect(plan: RacePlan, max_epochs: int) -> Workload:
    """Count a plan's trials and epochs, the documented default not among the finalists."""
    blocks = len(plan.confirm) * len(plan.confirm_seeds)
    counts = {a.name: a.strategies + sum(a.keep) + a.finalists * blocks for a in plan.arms}
    expected = {name: (n, n * max_epochs) for name, n in counts.items()}
    alone = blocks + int(not plan.default_arms)
    if alone:
        expected[DEFAULT] = (alone, alone * plan.default.max_epochs)
    if plan.base:
        expected[BASE] = (1 + len(plan.confirm), 0)
    return Workload(sum(n for n, _ in expected.values()), expected)


@dataclass(frozen=True)
class _View:
    """The race at one moment."""

    plan: RacePlan
    state: State
    running: frozenset[Slot]

    # What can start, most urgent first.

    def interrupted(self) -> Iterator[TrialSpec]:
        if self.state.begun <= self.running:
            return
        candidates = [*self.baselines(), *self.exploration(), *self.confirmation(), *self.test()]
        for step in candidates:
            if isinstance(step, TrialSpec) and Slot.of(step) in self.state.begun:
                yield step

    def baselines(self) -> Iterator[TrialSpec]:
        """The unchanged base, and the documented default where no arm proposes it."""
        first = self.plan.explore[0]
        if self.plan.base:
            yield from self._open(
                [TrialSpec(f"explore-{BASE}-f1", BASE, Strategy(), first, self.plan.seed)]
            )
        if not self.plan.default_arms:
            trial = f"explore-{DEFAULT}-f1"
            yield from self._open(
                [TrialSpec(trial, DEFAULT, self.plan.default, first, self.plan.seed)]
            )

    def exploration(self) -> Iterator[TrialSpec | Propose]:
        """Arms side by side: the one that is least far comes first."""
        for arm in sorted(self.plan.arms, key=self._progress):
            jobs = self._jobs_of(arm)
            number = self._next_number(arm)
            if number is not None and not self._busy_on_first_fold(arm):
                yield Propose(arm.name, number)
            yield from jobs

    def confirmation(self) -> Iterator[TrialSpec]:
        """Whole (seed, fold) blocks one after the other, so that what is done is paired."""
        chosen = self._to_confirm()
        for i, seed in enumerate(self.plan.confirm_seeds):
            for split in self.plan.confirm:
                yield from self._open(
                    [
                        self._confirm_job(label, arm, key, split, seed)
                        for label, arm, key in chosen
                        if arm != BASE or i == 0
                    ]
                )

    def early_proposals(self) -> Iterator[Propose]:
        """Only so that no worker waits: the arm learns less from what it has not seen."""
        for arm in sorted(self.plan.arms, key=self._progress):
            number = self._next_number(arm)
            if number is not None:
                yield Propose(arm.name, number)

    def test(self) -> Iterator[TrialSpec]:
        yield from self._open(self.plan.test)

    # What is known.

    def complete(self) -> bool:
        return (
            all(self.explored(arm) for arm in self.plan.arms)
            and not any(True for _ in self.baselines())
            and not any(True for _ in self.confirmation())
            and not any(True for _ in self.test())
        )

    def explored(self, arm: ArmPlan) -> bool:
        return self._next_number(arm) is None and not self._unfinished(arm)

    def _unfinished(self, arm: ArmPlan) -> bool:
        rungs = self._rungs(arm)
        return any(
            self._score(member, rung) is None
            for rung, known in enumerate(rungs)
            for member in known
        )

    def _next_number(self, arm: ArmPlan) -> int | None:
        n = len(self._members(arm))
        return n + 1 if n < arm.strategies and arm.name not in self.state.exhausted else None

    def _members(self, arm: ArmPlan) -> list[Member]:
        return self.state.members.get(arm.name, [])[: arm.strategies]

    def _rungs(self, arm: ArmPlan) -> list[list[Member]]:
        """For each fold the strategies that are certain to run on it."""
        known = self._members(arm)
        missing = 0 if self._next_number(arm) is None else arm.strategies - len(known)
        rungs = [known]
        for rung, kept in enumerate(arm.keep):
            scores = {m: self._mean(m, rung) for m in rungs[rung]}
            open_places = missing + sum(1 for s in scores.values() if s is None)
            ended = [m for m in rungs[rung] if scores[m] is not None]
            ended.sort(key=lambda m: (-(scores[m] or 0.0), m.number))
            ended = [m for m in ended if scores[m] != FAILED]
            certain = ended[: max(0, kept - open_places)]
            missing = min(kept, len(ended) + open_places) - len(certain)
            rungs.append(certain)
        return rungs

    def _jobs_of(self, arm: ArmPlan) -> list[TrialSpec]:
        jobs = []
        for rung, known in enumerate(self._rungs(arm)):
            split = self.plan.explore[rung]
            for member in known:
                if self._slot(member, rung) in self.state.done:
                    continue  # most of them, most of the time
                strategy = self.state.strategies[member.key]
                trial = trial_id(arm.name, member.number, split.fold)
                jobs.append(TrialSpec(trial, arm.name, strategy, split, self.plan.seed))
        return list(self._open(jobs))

    def _busy_on_first_fold(self, arm: ArmPlan) -> bool:
        """Whether a strategy of the arm runs, or is about to, whose score it should know."""
        return any(self._score(member, 0) is None for member in self._members(arm))

    def _score(self, member: Member, rung: int) -> float | None:
        return self.state.done.get(self._slot(member, rung))

    def _slot(self, member: Member, rung: int) -> Slot:
        return Slot("explore", self.plan.explore[rung].fold, self.plan.seed, member.key)

    def _mean(self, member: Member, rung: int) -> float | None:
        """Mean over the folds up to this one; None while it runs, FAILED once it failed."""
        score = self._score(member, rung)
        if score is None or score == FAILED:
            return score
        scores = [self._score(member, r) for r in range(rung + 1)]
        return sum(s for s in scores if s is not None) / len(scores)

    def _progress(self, arm: ArmPlan) -> tuple[float, int]:
        """Share of an arm's trials that were begun, then its place in the space."""
        planned = arm.strategies + sum(arm.keep)
        begun = sum(
            1
            for rung in range(len(arm.keep) + 1)
            for member in self._members(arm)
            if self._is_begun(member, rung)
        )
        return begun / planned, self.plan.arms.index(arm)

    def _is_begun(self, member: Member, rung: int) -> bool:
        slot = self._slot(member, rung)
        return slot in self.state.done or slot in self.running or slot in self.state.begun

    def _to_confirm(self) -> list[tuple[str, str, str]]:
        """(label, arm, key) of what is certain to be confirmed, each strategy once."""
        chosen: dict[str, tuple[str, str, str]] = {}
        if not self.plan.confirm:
            return []
        if self.plan.base:
            unchanged = Strategy().key
            chosen[unchanged] = (BASE, BASE, unchanged)
        explored = [arm for arm in self.plan.arms if self.explored(arm)]
        for arm in explored:
            for found in finalists(self.plan, self.state, arm):
                label = f"{arm.name}-{found.member.number:03d}"
                chosen.setdefault(found.member.key, (label, arm.name, found.member.key))
        key = self.plan.default.key
        if len(explored) == len(self.plan.arms):
            chosen.setdefault(key, (DEFAULT, DEFAULT, key))
        return list(chosen.values())

    def _confirm_job(self, label: str, arm: str, key: str, split: Split, seed: int) -> TrialSpec:
        suffix = "" if arm == BASE else f"-s{seed}"
        strategy = Strategy() if arm == BASE else self._strategy(key)
        return TrialSpec(f"confirm-{label}-f{split.fold}{suffix}", arm, strategy, split, seed)

    def _strategy(self, key: str) -> Strategy:
        if key == self.plan.default.key:
            return self.plan.default
        return self.state.strategies[key]

    def _open(self, jobs: Iterable[TrialSpec]) -> Iterator[TrialSpec]:
        """Those that have not ended and that no worker holds, each slot once."""
        seen = set()
        for job in jobs:
            slot = Slot.of(job)
            if slot not in self.state.done and slot not in self.running and slot not in seen:
                seen.add(slot)
                yield job
