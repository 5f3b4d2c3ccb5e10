"""Run a search: from a checked space and splits to records of all that was tried.

A search that was interrupted, by whatever, goes on by calling `run_search` with the
same folder: what ended is not run again, what ran continues from its last epoch.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from hsf_tune.config import Config
from hsf_tune.data.splits import Splits
from hsf_tune.files import write_text
from hsf_tune.interrupt import Interrupt, deferring
from hsf_tune.records import Records, SearchFinished, SearchInterrupted, TimeBudgetUsed, sole_writer
from hsf_tune.run_folder import RunFolder
from hsf_tune.search.arms import Space
from hsf_tune.search.coordinator import (
    ChooseTest,
    Coordinator,
    Observer,
    finalists_data,
)
from hsf_tune.search.race import FAILED, RacePlan, State, Workload, expect, plan_race
from hsf_tune.search.resources import (
    Capacity,
    Resources,
    ray_running,
    require_fit,
    trial_resources,
)
from hsf_tune.search.study import ArmStudy, open_storage, storage_errors
from hsf_tune.search.trial import TRAINER, Workplace

SearchEnd = SearchFinished | TimeBudgetUsed | SearchInterrupted


@dataclass(frozen=True)
class SearchOutcome:
    """How a search ended.

    Attributes:
        end: finished, or stopped by the time budget or by a signal.
        exit_code: 0; 130 after Ctrl-C and 143 after SIGTERM, also where nothing was left to run.
        failed_arms: arms that have trials, but not one that finished.
        finalists: arm -> what the arm hands on, best first; of what was run, if cut short.
        resources: what each trial was given.
    """

    end: SearchEnd
    exit_code: int
    failed_arms: tuple[str, ...]
    finalists: dict[str, object]
    resources: Resources

    @property
    def status(self) -> str:
        return self.end.about


def plan_search(
    config: Config, space: Space, splits: Splits, *, base_comparable: bool = False
) -> Workload:
    """How many trials and epochs `run_search` would run, arm by arm."""
    plan = plan_race(space, config.search, splits, config.seed, base=base_comparable)
    assert isinstance(config.lightning.max_epochs, int)
    return expect(plan, config.lightning.max_epochs)


def run_search(
    config: Config,
    space: Space,
    splits: Splits,
    folder: Path,
    records: Records,
    *,
    observers: Sequence[Observer] = (),
    base_comparable: bool = False,
    choose_test: ChooseTest | None = None,
    resources: Resources | None = None,
    trainer: str = TRAINER,
    interrupt: Interrupt | None = None,
) -> SearchOutcome:
    """Run or go on with a search until it is finished, cut short or interrupted.

    Args:
        folder: the run's folder, on storage that all nodes share.
        records: of that folder; only this process appends to them.
        observers: told of each event after it was recorded.
        base_comparable: whether the unchanged base's labels are those of the data.
        choose_test: which jobs run on the test set, once confirmation is complete.
        resources: what each trial gets; None for what the configuration says.
        trainer: module whose `fit` runs a `TrialSpec`, importable by workers.
        interrupt: notes the signals of a caller that goes on after the search; None: of the search.

    Raises:
        SearchError: another process runs this search, Ray can't be reached, or no trial fits.
        HsfTuneError: the records can't be written any more; what they hold is safe.
    """
    deadline = _Deadline(config.search.time_budget_s)
    plan = plan_race(space, config.search, splits, config.seed, base=base_comparable)
    noting = nullcontext(interrupt) if interrupt else deferring()
    with sole_writer(folder), noting as interrupt, ray_running(config.search, interrupt):
        on_gpu = config.lightning.accelerator != "cpu"
        resources = resources or trial_resources(config.search, on_gpu=on_gpu)
        if not config.search.address:  # a cluster may still grow
            require_fit(resources)
        with storage_errors(folder.name):
            coordinator = Coordinator(
                plan=plan,
                records=records,
                studies=_open_studies(config, space, folder),
                observers=observers,
                asked_to_stop=lambda: interrupt.signal is not None or deadline.passed(),
                prune=_pruner(config, folder),
                choose_test=choose_test,
            )
        _run(coordinator, config, folder, resources, trainer)
        if coordinator.fault is not None:
            raise coordinator.fault
        end = _end(coordinator, interrupt)
        coordinator.record(end)
    return _outcome(end, interrupt, coordinator, resources)


def _run(
    coordinator: Coordinator, config: Config, folder: Path, resources: Resources, trainer: str
) -> None:
    from hsf_tune.search.tune_loop import run_jobs

    place = Workplace(
        config.to_dict(),
        str(folder.resolve()),
        os.getcwd(),
        resources.threads,
        RunFolder(folder).read_dataset().get("key"),
        trainer,
    )
    run_jobs(
        coordinator,
        place,
        resources,
        capacity=Capacity(resources, config.search.max_concurrent),
        retries=config.search.max_retries,
        shared=folder.resolve() if config.search.address else None,
    )


def study_file(config: Config, folder: Path) -> Path:
    """Where the studies of the run in `folder` are kept."""
    own = RunFolder(folder)
    if not config.search.state_dir:
        return own.inside(own.study.name)
    return RunFolder(Path(config.search.state_dir) / own.name).study


def forget_studies(config: Config, folder: Path) -> None:
    """Remove what Optuna holds of a run; opened again, it is made from the records."""
    with storage_errors(folder.name):
        file = study_file(config, folder)
        if file.is_file():  # a folder is not ours, and set aside when it is opened
            file.unlink()


def retry_failed(records: Records, config: Config) -> list[str]:
    """Have a search that goes on try its failed trials again, each from its last saved epoch.

    The studies were told that they failed, and are made anew from the records.

    Returns:
        The trials' ids.
    """
    ended = [r for r in records.trials.values() if r.ended and r.ended.status == "failed"]
    if ended:
        records.extend(replace(record.started, time=time.time()) for record in ended)
        forget_studies(config, records.folder)
    return [record.id for record in ended]


def _open_studies(config: Config, space: Space, folder: Path) -> dict[str, ArmStudy]:
    storage = open_storage(study_file(config, folder))
    return {
        arm.name: ArmStudy(arm, space.terms, config.search, storage, config.seed)
        for arm in space.arms
    }


def _pruner(config: Config, folder: Path) -> Callable[[str, str], None] | None:
    if config.search.pruner == "none":
        return None
    return lambda trial, reason: write_text(RunFolder(folder).trial(trial).stop, reason)


class _Deadline:
    def __init__(self, budget_s: float | None) -> None:
        self._until = None if budget_s is None else time.monotonic() + budget_s

    def passed(self) -> bool:
        return self._until is not None and time.monotonic() > self._until


def _end(coordinator: Coordinator, interrupt: Interrupt) -> SearchEnd:
    done = len(coordinator.state.done)
    rest = f"after {done} trials; what they show is ranked, the rest was not run"
    if coordinator.complete:
        return SearchFinished(text=f"all {done} trials of the search have ended")
    if interrupt.signal is not None:
        return SearchInterrupted(text=f"the search was interrupted {rest}")
    return TimeBudgetUsed(text=f"the time budget is used up {rest}")


def _outcome(
    end: SearchEnd,
    interrupt: Interrupt,
    coordinator: Coordinator,
    resources: Resources,
) -> SearchOutcome:
    plan, state = coordinator.plan, coordinator.state
    return SearchOutcome(
        end=end,
        exit_code=interrupt.exit_code,
        failed_arms=tuple(a.name for a in plan.arms if _all_failed(plan, state, a.name)),
        finalists={a.name: finalists_data(plan, state, a) for a in plan.arms},
        resources=resources,
    )


def _all_failed(plan: RacePlan, state: State, arm: str) -> bool:
    keys = {member.key for member in state.members.get(arm, [])}
    scores = [s for slot, s in state.done.items() if slot.phase == "explore" and slot.key in keys]
    return bool(scores) and all(score == FAILED for score in scores)
