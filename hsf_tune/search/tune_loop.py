"""Let Ray Tune run the jobs of a coordinator.

Tune asks our Searcher for the next trial, spreads trials over the machines, brings
those of dead workers back, and hands every report to our Callback. No exception of ours
may reach its loop: one in a searcher retries trials, one in a callback ends the run.
"""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.progress_reporter import TrialProgressCallback
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from hsf_tune.records import TrialSpec, event_from_dict
from hsf_tune.search.coordinator import Coordinator
from hsf_tune.search.race import Done, Wait
from hsf_tune.search.resources import Capacity, Resources
from hsf_tune.search.trial import EVENTS, Workplace, run_trial


def run_jobs(
    coordinator: Coordinator,
    place: Workplace,
    resources: Resources,
    *,
    capacity: Capacity,
    retries: int,
    shared: Path | None = None,
) -> None:
    """Run jobs until the coordinator has none left or was asked to stop.

    Args:
        capacity: how many trials fit side by side now.
        retries: how often a trial is brought back whose worker or node died.
        shared: folder for Tune's own files that all nodes see; None on a single machine.
    """

    def train(config: dict[str, Any]) -> None:
        run_trial(TrialSpec.from_dict(json.loads(config["job"])), place)

    own = Path(tempfile.mkdtemp(prefix="hsf-tune-", dir=shared))
    try:
        tune.run(
            tune.with_resources(train, lambda config: _bundle(config, resources)),
            name="search",
            storage_path=str(own),
            num_samples=-1,
            search_alg=_Jobs(coordinator, capacity),
            scheduler=_AsTheyCome(),
            callbacks=[_Events(coordinator)],
            stop=_Stop(coordinator),
            reuse_actors=True,
            max_failures=retries,
            raise_on_failed_trial=False,
            trial_name_creator=_trial_name,
            trial_dirname_creator=_trial_name,
            verbose=0,
        )
    finally:
        shutil.rmtree(own, ignore_errors=True)


class _Jobs(Searcher):
    """Tune's searcher: hands out the coordinator's jobs, no more than fit."""

    def __init__(self, coordinator: Coordinator, capacity: Capacity) -> None:
        super().__init__()
        self._coordinator, self._capacity = coordinator, capacity

    def suggest(self, trial_id: str) -> Any:
        found: list[Any] = [Searcher.FINISHED]
        self._coordinator.guarded(lambda: found.append(self._next(trial_id)))
        return found[-1]

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        self._coordinator.guarded(lambda: self._coordinator.ended(trial_id, died=error))

    def _next(self, trial_id: str) -> Any:
        coordinator = self._coordinator
        if coordinator.stopping:
            return Searcher.FINISHED
        if not self._has_room():
            return None
        step = coordinator.next_job(trial_id)
        if isinstance(step, TrialSpec):
            alone = coordinator.is_alone(step)
            return {"job": json.dumps(step.to_dict()), "alone": alone}
        if isinstance(step, Done):
            return Searcher.FINISHED
        assert isinstance(step, Wait)
        return None

    def _has_room(self) -> bool:
        """A trial that is tried again alone waits for the others, and they for it."""
        running = len(self._coordinator.running)
        return running == 0 if self._coordinator.one_goes_alone else running < self._capacity()

    def save(self, checkpoint_path: str) -> None:
        """The records are the truth; there is nothing else to keep."""

    def restore(self, checkpoint_path: str) -> None:
        """See `save`."""


class _AsTheyCome(FIFOScheduler):
    """Tune's own order, with one difference.

    Tune's scheduler gives a worker that became free to the trial that waits longest, and
    cancels the worker that was starting for that trial. With trials shorter than the start
    of a worker, the second worker then never comes up. A new trial takes the free worker.
    """

    def choose_trial_to_run(self, tune_controller: Any) -> None:
        return None


class _Events(TrialProgressCallback):
    """Hands what workers report to the coordinator, and forgets it.

    It takes the place of Tune's own progress callback, which would print every trial.
    """

    def __init__(self, coordinator: Coordinator) -> None:
        super().__init__()
        self._coordinator = coordinator

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        text = result.pop(EVENTS, "[]")
        self._coordinator.guarded(
            lambda: self._coordinator.receive([event_from_dict(e) for e in json.loads(text)])
        )

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Print nothing."""

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Print nothing."""


class _Stop(tune.Stopper):
    """Ends all trials once the coordinator can't or should not go on."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return bool(self._coordinator.stopping)


def _bundle(config: dict[str, Any], resources: Resources) -> tune.PlacementGroupFactory:
    needs = resources.needs()
    if config.get("alone"):
        needs = {name: float(max(1, math.ceil(amount))) for name, amount in needs.items()}
    return tune.PlacementGroupFactory([needs])


def _trial_name(trial: Any) -> str:
    config = trial.config or {}
    return str(json.loads(config["job"])["trial"]) if "job" in config else str(trial.trial_id)
