"""Hold a search together: records, race, studies and the trials that run.

Knows nothing of Ray, which asks it for jobs and hands it events (`tune_loop.py`). The
records are written first, everything else follows from them; so a search whose driver
was killed at any moment goes on by building a coordinator from the same folder.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from hsf_tune.errors import SearchError
from hsf_tune.records import (
    STAGES,
    ConfirmationVoided,
    EpochEnded,
    Event,
    Exhausted,
    FinalistsNamed,
    Proposed,
    Records,
    RetriedAlone,
    StageBegan,
    TrialEnded,
    TrialRecord,
    TrialSpec,
    Warned,
)
from hsf_tune.search.pruner import median_reason
from hsf_tune.search.race import (
    ArmPlan,
    Done,
    Propose,
    RacePlan,
    Slot,
    State,
    Wait,
    finalists,
    is_explored,
    next_step,
    read_state,
    trial_id,
)
from hsf_tune.search.study import ArmStudy, Proposal, storage_errors
from hsf_tune.search.trial import NO_FILES, NO_SPACE, OUT_OF_MEMORY

DELETION_S = 2.0  # after a fault, how long the records may still be on their way out
Observer = Callable[[Event], None]
ChooseTest = Callable[[Records], Sequence[TrialSpec]]


@dataclass
class Coordinator:
    """See the module.

    Args:
        studies: arm -> its study, brought up to date here.
        observers: told of each event after it was recorded; what they raise is noted.
        asked_to_stop: whether the search should end early.
        prune: end a running trial, for a reason.
        choose_test: names the jobs on the test set once confirmation is complete.

    Attributes:
        running: the jobs that workers hold, by Ray's name for the trial.
        fault: what made it impossible to go on.
    """

    plan: RacePlan
    records: Records
    studies: Mapping[str, ArmStudy]
    observers: Sequence[Observer] = ()
    asked_to_stop: Callable[[], bool] = lambda: False
    prune: Callable[[str, str], None] | None = None
    choose_test: ChooseTest | None = None
    running: dict[str, TrialSpec] = field(default_factory=dict)
    fault: Exception | None = None
    complete: bool = False
    _state: State | None = None
    _complaints: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._note_voided_confirmation()
        for arm, study in self.studies.items():
            proposals = {
                trial_id(arm, proposed.number): Proposal(proposed.strategy, proposed.params)
                for proposed in self.records.noted(Proposed)
                if proposed.arm == arm
            }
            study.catch_up(proposals, {t: self._first_fold(p.key) for t, p in proposals.items()})
        self._note_finalists()

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its callbacks for files that nobody reads, and observers hold
        threads and locks."""
        return {}

    @property
    def state(self) -> State:
        """What the records say, followed from event to event."""
        if self._state is None:
            self._state = read_state(self.records)
        return self._state

    @property
    def stopping(self) -> bool:
        """Whether no further trial may start and running ones should end."""
        return self.fault is not None or self.asked_to_stop()

    def next_job(self, name: str) -> TrialSpec | Wait | Done:
        """The job that Ray's trial `name` is to run."""
        while True:
            if self.stopping:
                return Done()
            step = next_step(self.plan, self.state, {Slot.of(job) for job in self.running.values()})
            if isinstance(step, Propose):
                self._propose(step)
            elif isinstance(step, TrialSpec):
                self._note_stage(step)
                self.running[name] = step
                return step
            elif isinstance(step, Done) and self._add_test_jobs():
                continue
            else:
                self.complete = isinstance(step, Done)
                return step

    def receive(self, events: Iterable[Event]) -> None:
        """Record what a worker tells, then pass it on."""
        for event in events:
            if isinstance(event, TrialEnded) and self._is_first_out_of_memory(event):
                text = f"{event.trial} ran out of memory and is tried once more, alone"
                self.record(RetriedAlone(event.trial, text=text))
                continue
            if isinstance(event, TrialEnded):
                self._require_surroundings(event)
            self.record(event)
            if isinstance(event, TrialEnded):
                self._tell_studies(event.trial)
                self._note_finalists()
            elif isinstance(event, EpochEnded) and self.prune is not None:
                reason = median_reason(self.records, event)
                if reason:
                    self.prune(event.trial, reason)

    def ended(self, name: str, *, died: bool) -> None:
        """Ray is done with a trial: it completed, or its worker died too often."""
        job = self.running.pop(name, None)
        if job is None:
            return
        record = self.records.trials.get(job.trial)
        if record is not None and record.ended is not None:
            return
        if self.is_alone(job) and not died:
            return  # it ran out of memory and will be run again
        if record is None:
            self.record(job.started())
        reason = "its worker died again and again" if died else "it ended without a result"
        self.receive([TrialEnded(job.trial, "failed", reason=reason)])

    def is_alone(self, job: TrialSpec) -> bool:
        """Whether a trial gets a machine or GPU to itself."""
        return job.trial in self.state.alone

    @property
    def one_goes_alone(self) -> bool:
        """Whether a trial that ran out of memory has yet to be tried once more."""
        return any(self.records.trials[trial].ended is None for trial in self.state.alone)

    def record(self, event: Event) -> None:
        """Write an event, then tell the observers.

        Raises:
            HsfTuneError: it can't be written, or the folder has vanished.
        """
        if self._has_vanished:
            raise self._vanished()
        state = self.state  # from before, which the event is then added to
        self.records.append(event)
        state.apply(event)
        for observer in self.observers:
            try:
                observer(event)
            except Exception as error:
                self._complain(observer, error)

    def guarded(self, action: Callable[[], None]) -> None:
        """Run something of ours inside Ray's loop, which no exception may reach."""
        try:
            with storage_errors(self.records.folder.name):
                action()
        except Exception as error:
            if self.fault is None:
                self.fault = self._vanished() if self._vanishes() else error
            logging.getLogger(__name__).debug("the search stops", exc_info=True)

    @property
    def _has_vanished(self) -> bool:
        return bool(self.records.trials) and not self.records.path.exists()

    def _vanishes(self) -> bool:
        """Whether the records are gone, or go now: a folder loses its files one by one."""
        until = time.monotonic() + DELETION_S
        while not self._has_vanished and time.monotonic() < until:
            time.sleep(0.1)
        return self._has_vanished

    def _vanished(self) -> SearchError:
        return SearchError(
            f"{self.records.path} has vanished while the search ran. Nothing was written since;"
            f" bring the folder back, then go on with --resume {self.records.folder.name}."
        )

    def _propose(self, step: Propose) -> None:
        study = self.studies[step.arm]
        known = {m.key: self._first_dice(m.key) for m in self.state.members.get(step.arm, [])}
        trial = trial_id(step.arm, step.number)
        proposal = study.propose(step.number, trial, known)
        if proposal is None:
            text = f"{step.arm} has no strategy left that was not tried"
            self.record(Exhausted(step.arm, text=text))
            return
        told = step.arm, step.number, proposal.strategy, dict(proposal.params)
        self.record(Proposed(*told, text=trial))
        record = self._first_fold(proposal.key)
        if record is not None:  # another arm has run it
            study.tell(trial, record)

    def _first_slot(self, key: str) -> Slot:
        return Slot("explore", self.plan.explore[0].fold, self.plan.seed, key)

    def _first_dice(self, key: str) -> float | None:
        return self.state.done.get(self._first_slot(key))

    def _first_fold(self, key: str) -> TrialRecord | None:
        """The record of a strategy on the first fold, once it ended."""
        record = self.records.trials.get(self.state.trials.get(self._first_slot(key), ""))
        return record if record is not None and record.ended is not None else None

    def _tell_studies(self, trial: str) -> None:
        record = self.records.trials[trial]
        slot = Slot.of(record.started)
        if slot != self._first_slot(slot.key):
            return
        for arm, study in self.studies.items():
            for member in self.state.members.get(arm, []):
                if member.key == slot.key:
                    study.tell(trial_id(arm, member.number), record)

    def _is_first_out_of_memory(self, event: TrialEnded) -> bool:
        return _failed_with(event, OUT_OF_MEMORY) and event.trial not in self.state.alone

    def _require_surroundings(self, event: TrialEnded) -> None:
        """Where disk, data or base model failed, no other strategy would do better.

        Raises:
            SearchError: they did; the trial counts as interrupted.
        """
        folder = self.records.folder
        remedies = {
            NO_SPACE: f"Make room where {folder} lies",
            NO_FILES: "Bring back what the trial could not use",
        }
        for cause, remedy in remedies.items():
            if _failed_with(event, cause):
                raise SearchError(
                    f"{event.trial} stopped: {event.reason}. {remedy}, then go on with --resume"
                    f" {folder.name}; the trial continues from its last epoch."
                )

    def _note_finalists(self) -> None:
        """Write an arm's finalists down once its part of the race is over."""
        for arm in self.plan.arms:
            if is_explored(self.plan, self.state, arm):
                best = finalists_data(self.plan, self.state, arm)
                if self.state.finalists.get(arm.name) != best:
                    self.record(FinalistsNamed(arm.name, best, text=f"{arm.name} is explored"))

    def _note_stage(self, job: TrialSpec) -> None:
        """Say once when exploration, confirmation and test begin."""
        stage = STAGES[job.phase]
        if stage not in self.state.stages:
            self.record(StageBegan(text=stage))

    def _note_voided_confirmation(self) -> None:
        """More strategies after a look at the confirmation: the report has to say so."""
        confirmed = any(
            r.started.phase == "confirm" and r.started.strategy
            for r in self.records.trials.values()
        )
        explored = all(is_explored(self.plan, self.state, arm) for arm in self.plan.arms)
        if confirmed and not explored and self.state.finalists and not self.state.voided:
            text = "more strategies were asked for after the confirmation had begun"
            self.record(ConfirmationVoided(text=text))

    def _add_test_jobs(self) -> bool:
        """Ask once which strategies the locked test set is opened for."""
        if self.choose_test is None or self.plan.test:
            return False
        jobs = tuple(self.choose_test(self.records))
        self.choose_test = None
        self.plan = replace(self.plan, test=jobs)
        return bool(jobs)

    def _complain(self, observer: Observer, error: Exception) -> None:
        """Note the first failure of each observer; the search goes on without it."""
        name = getattr(observer, "__qualname__", type(observer).__name__)
        if name not in self._complaints:
            self._complaints.add(name)
            text = f"{name} failed and may lack events: {type(error).__name__}: {error}"
            self.records.append(Warned(text=text))


def _failed_with(event: TrialEnded, cause: str) -> bool:
    return event.status == "failed" and (event.reason or "").startswith(cause)


def finalists_data(plan: RacePlan, state: State, arm: ArmPlan) -> list[dict[str, Any]]:
    """An arm's finalists as the records keep them, best first."""
    return [
        {
            "number": ranked.member.number,
            "strategy": dict(state.strategies[ranked.member.key]),
            "explored_dice": ranked.dice,
            "folds": ranked.folds,
        }
        for ranked in finalists(plan, state, arm)
    ]
