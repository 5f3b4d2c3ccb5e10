"""Replay one search: the real race, studies and pruner, trainings looked up in a table.

A `Coordinator` is driven as Ray drives it, by workers that take as long as the recorded
trainings took; nothing is written to disk. What is looked at is what the search would
pick if it were stopped after each training.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import optuna

from benchmarks.replay.memory import History, RememberedStudy
from benchmarks.replay.table import GridTable, Training
from hsf_tune.records import (
    DEFAULT,
    EpochEnded,
    Records,
    TrialEnded,
    TrialSpec,
)
from hsf_tune.run_folder import RunFolder
from hsf_tune.search.arms import Arm, Space, Terms
from hsf_tune.search.coordinator import Coordinator
from hsf_tune.search.pruner import SMALLEST_VALIDATION
from hsf_tune.search.race import (
    RacePlan,
    finalists,
    plan_race,
    ranking,
)
from hsf_tune.search.samplers import SAMPLERS
from hsf_tune.search.study import ArmStudy
from hsf_tune.strategy import DEPTH, FREQUENCY

TOLERANCE = 0.005  # Dice below the grid's best that still counts as having found it


@dataclass(frozen=True)
class SearchSetting:
    """What a search is configured by.

    Attributes:
        strategies: of each arm on fold 1.
        keep: on folds 2, 3, ...; one number for each fold beyond the first.
        judge_small_folds: let the pruner act on folds with fewer subjects than it asks for.
    """

    sampler: str = "tpe"
    pruner: str = "none"
    strategies: int = 12
    keep: tuple[int, ...] = (6, 3, 3)
    startup: int = 4
    judge_small_folds: bool = False

    def search(self) -> dict[str, Any]:
        """As keys of the group `search`."""
        return {
            "sampler": self.sampler,
            "pruner": self.pruner,
            "strategies_per_arm": self.strategies,
            "keep": list(self.keep),
            "folds": len(self.keep) + 1,
            "n_startup_trials": self.startup,
            "confirm": False,
        }


@dataclass(frozen=True)
class Replay:
    """How a replayed search went.

    Attributes:
        trainings, epochs: that were run, those of pruned trainings counted as far as they got.
        pruned: trainings that the pruner ended.
        needed, needed_epochs: trainings and epochs after which what the search would pick is
            within the tolerance of the grid's best, and stays so; None where the last pick isn't.
        dice: true Dice of the pick, that is its mean over all recorded folds.
        finalists_dice: true Dice of the best of all arms' finalists.
        pick: its key in the table.
        seconds: simulated wall-clock time.
    """

    trainings: int
    epochs: int
    pruned: int
    needed: int | None
    needed_epochs: int | None
    dice: float
    finalists_dice: float
    pick: str
    seconds: float


@dataclass(frozen=True)
class Bench:
    """A table and a setting, ready to be replayed with any seed."""

    table: GridTable
    setting: SearchSetting

    def __post_init__(self) -> None:
        if len(self.setting.keep) + 1 > len(self.table.folds):
            raise ValueError(
                f"{len(self.setting.keep) + 1} folds asked for, {len(self.table.folds)} recorded"
            )

    @cached_property
    def space(self) -> Space:
        space = self.table.space_under(self.setting.search())
        terms = _QuickTerms(space.terms.config, space.terms.blocks, space.terms.varied)
        return replace(space, terms=terms)

    def run(
        self,
        seed: int,
        *,
        workers: int = 2,
        tolerance: float = TOLERANCE,
        memory: Memory | None = None,
    ) -> Replay:
        """Replay one search; equal seeds give equal results.

        Args:
            memory: shared with other searches, which are then quicker and equal.
        """
        return _Search(self, self.coordinator(seed, memory), tolerance).run(workers)

    def coordinator(self, seed: int, memory: Memory | None = None) -> _InMemory:
        """A coordinator that keeps records and studies in memory."""
        config = self.space.config.search
        splits = self.table.splits_of(len(self.setting.keep) + 1)
        plan = plan_race(self.space, config, splits, seed, base=False)
        return _InMemory(
            plan=replace(plan, default_arms=plan.default_arms or (DEFAULT,)),  # no extra training
            records=_NoFile(Path("replay")),
            studies={arm.name: self._study(arm, seed, memory) for arm in self.space.arms},
        )

    def _study(self, arm: Arm, seed: int, memory: Memory | None) -> ArmStudy:
        setting = self.setting
        walked = SAMPLERS[setting.sampler].walks_grid or arm.size is not None
        length = setting.strategies if walked else None
        same = (setting.sampler, setting.startup, length, seed, arm.name)
        history = History() if memory is None else memory.setdefault(same, History())
        return RememberedStudy(history, lambda: self._real_study(arm, seed))

    def _real_study(self, arm: Arm, seed: int) -> ArmStudy:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        storage = optuna.storages.InMemoryStorage()
        return ArmStudy(arm, self.space.terms, self.space.config.search, storage, seed)


Memory = dict[tuple[Any, ...], History]  # what makes studies the same -> their empty history


class _NoFile(Records):
    """Records that are kept in memory alone."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, RunFolder(folder).records
        self.trials, self.notes = {}, []

    def extend(self, events: Any) -> None:
        for event in events:
            self._apply(event)


class _QuickTerms(Terms):
    """Terms that look the configuration's own values up once."""

    @cached_property
    def _defaults(self) -> Mapping[str, Any]:
        return super().defaults()

    def defaults(self) -> dict[str, Any]:
        return dict(self._defaults)


class _InMemory(Coordinator):
    """A coordinator whose records are in no folder that could vanish."""

    _has_vanished = False

    def _note_finalists(self) -> None:
        """Nothing: nobody reads the notes of a replayed search."""


class _Search:
    """One replayed search and the workers that run it."""

    def __init__(self, bench: Bench, coordinator: _InMemory, tolerance: float) -> None:
        self.table, self.setting, self.tolerance = bench.table, bench.setting, tolerance
        self.coordinator = coordinator
        self.prunes = bench.setting.pruner != "none"
        if self.prunes:
            self.coordinator.prune = self._prune
        self.to_end: dict[str, str] = {}  # trial -> why the pruner ends it
        self.trainings = self.epochs = self.pruned = 0
        self.hit: tuple[int, int] | None = None  # trainings, epochs since when the pick is good

    def run(self, workers: int) -> Replay:
        queue: list[tuple[float, int, TrialSpec, int]] = []  # time, order, job, epoch that ends
        now, order = 0.0, 0
        while True:
            while len(self.coordinator.running) < workers:
                step = self.coordinator.next_job(f"worker-{order}")
                if not isinstance(step, TrialSpec):
                    break
                self._start(step)
                order += 1
                heapq.heappush(queue, (now + self._seconds(step), order, step, self._first(step)))
            if not queue:
                break
            now, number, job, epoch = heapq.heappop(queue)
            if not self._advance(job, epoch, f"worker-{number - 1}"):
                later = now + self._seconds(job)
                heapq.heappush(queue, (later, number, job, epoch + 1))
        return self._outcome(now)

    def _training(self, job: TrialSpec) -> Training:
        return self.table.trainings[self.table.nearest(job.strategy), job.split.fold]

    def _first(self, job: TrialSpec) -> int:
        """The epoch after which the job is looked at first; its last where nobody prunes."""
        return 0 if self.prunes else max(0, len(self._training(job).curve) - 1)

    def _seconds(self, job: TrialSpec) -> float:
        training = self._training(job)
        return training.seconds / max(1, len(training.curve)) if self.prunes else training.seconds

    def _start(self, job: TrialSpec) -> None:
        depth, frequency = job.strategy[DEPTH], job.strategy.get(FREQUENCY, 1)
        assert isinstance(depth, int)
        assert isinstance(frequency, int)
        openings = {f"block {k}": k * frequency for k in range(depth + 1)}
        started = job.started(opening_epochs=openings, time=0.0)
        if self.setting.judge_small_folds:
            others = [f"stand-in-{i}" for i in range(SMALLEST_VALIDATION)]
            started = replace(started, validate=[*started.validate, *others])
        self.coordinator.receive([started])
        self.trainings += 1

    def _prune(self, trial: str, reason: str) -> None:
        self.to_end[trial] = reason

    def _advance(self, job: TrialSpec, epoch: int, worker: str) -> bool:
        """Let an epoch of a job end; whether the job has ended with it."""
        training = self._training(job)
        if self.prunes and training.curve:
            metrics = {"val_dice": training.curve[epoch]}
            self.coordinator.receive([EpochEnded(job.trial, epoch, metrics, time=0.0)])
        reason = self.to_end.pop(job.trial, None)
        if reason is None and epoch + 1 < len(training.curve):
            return False
        self._end(job, training, min(epoch + 1, len(training.curve)), reason)
        self.coordinator.ended(worker, died=False)
        self._look()
        return True

    def _end(self, job: TrialSpec, training: Training, epochs: int, reason: str | None) -> None:
        status = "pruned" if reason else "finished" if training.dice is not None else "failed"
        dice = training.dice if status == "finished" else None
        self.epochs += epochs
        self.pruned += status == "pruned"
        ended = TrialEnded(job.trial, status, dice, epochs=epochs, reason=reason, time=0.0)
        self.coordinator.receive([ended])

    def _look(self) -> None:
        """Note since when the search's pick is good enough."""
        pick = self._pick()
        if pick is None or self.table.regret(pick) > self.tolerance:
            self.hit = None
        elif self.hit is None:
            self.hit = self.trainings - len(self.coordinator.running), self.epochs

    def _pick(self) -> str | None:
        """The recorded strategy that the search would pick now: of all arms' first, the one on
        most folds, then the one with the highest mean; None before the first one finished."""
        plan, state = self.coordinator.plan, self.coordinator.state
        first = [found[0] for arm in plan.arms if (found := ranking(plan, state, arm))]
        if not first:
            return None
        best = max(first, key=lambda ranked: (ranked.folds, ranked.dice))
        return self.table.nearest(state.strategies[best.member.key])

    def _outcome(self, seconds: float) -> Replay:
        pick = self._pick()
        hit = self.hit or (None, None)
        return Replay(
            trainings=self.trainings,
            epochs=self.epochs,
            pruned=self.pruned,
            needed=hit[0],
            needed_epochs=hit[1],
            dice=self.table.true_dice[pick] if pick else 0.0,
            finalists_dice=max(self._finalists(self.coordinator.plan), default=0.0),
            pick=pick or "",
            seconds=seconds,
        )

    def _finalists(self, plan: RacePlan) -> list[float]:
        state = self.coordinator.state
        return [
            self.table.true_dice[self.table.nearest(state.strategies[ranked.member.key])]
            for arm in plan.arms
            for ranked in finalists(plan, state, arm)
        ]
