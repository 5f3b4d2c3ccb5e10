"""One arm's Optuna study: propose strategies, be told how they did.

All studies of a run live in one `optuna.db`, which only the driver touches and which
`optuna-dashboard` opens. The run's records are the truth: a study that was lost, or
that missed what happened before a crash, is brought up to date from them. What runs
when, and on which fold, is decided in `race.py`.
"""

from __future__ import annotations

import itertools
import json
import math
import random
import sqlite3
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, Trial, TrialState

from hsf_tune.config import SearchConfig
from hsf_tune.errors import SearchError
from hsf_tune.files import set_aside
from hsf_tune.records import TrialRecord
from hsf_tune.search.arms import Arm, Terms
from hsf_tune.search.domain import Domain
from hsf_tune.search.samplers import sampler_of
from hsf_tune.strategy import Strategy

ATTEMPTS = 30  # suggestions that repeat or don't fit, before one is drawn at random
DRAWS = 2000  # random draws before an arm counts as exhausted
GRID_POINTS = 5  # of an endless range, for a sampler that walks a grid
_TRIAL, _STRATEGY, _REASON = "trial", "strategy", "reason"  # user attributes
_BESIDE = ("-journal", "-wal", "-shm")  # what SQLite may keep beside its file
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)


@dataclass(frozen=True)
class Proposal:
    """A strategy that an arm has not proposed before.

    Attributes:
        params: what the study suggested, from which it can be rebuilt.
    """

    strategy: Strategy
    params: Mapping[str, Any]

    @property
    def key(self) -> str:
        return self.strategy.key


class ArmStudy:
    """The study of one arm.

    Args:
        terms: what turns suggestions into strategies.
        storage: where the study is kept, see `open_storage`.
        seed: with the arm's name and the proposal's number it decides each suggestion, so
            that a search killed and started again proposes the same.
    """

    def __init__(
        self,
        arm: Arm,
        terms: Terms,
        search: SearchConfig,
        storage: optuna.storages.BaseStorage,
        seed: int,
    ) -> None:
        self.arm, self._terms, self._search, self._seed = arm, terms, search, seed
        self._sampler = sampler_of(search)
        self._distributions = {key: _distribution(d) for key, d in arm.domains.items()}
        self.study = optuna.create_study(
            study_name=arm.name,
            storage=storage,
            direction="maximize",
            sampler=optuna.samplers.RandomSampler(seed),
            load_if_exists=True,
        )
        for point in arm.start:
            self.study.enqueue_trial(_encoded(point), skip_if_exists=True)

    def propose(
        self, number: int, trial_id: str, known: Mapping[str, float | None]
    ) -> Proposal | None:
        """The arm's next strategy; None where it has no other.

        Args:
            number: of the proposal in its arm, from 1.
            trial_id: of the trial that will run it on the first fold.
            known: strategy key -> first-fold Dice of what the arm proposed before (None where
                it still runs, -inf where it failed). A repetition is answered from it.
        """
        if self.arm.size is not None and len(known) >= self.arm.size:
            return None
        for attempt in range(ATTEMPTS + 1):
            if attempt == ATTEMPTS or self._sampler.walks_grid:
                self._enqueue_unseen(number, known)
            trial = self._ask(trial_id)
            strategy = self._terms.strategy(self.arm, _decoded(self.arm, trial.params))
            if strategy is None:
                self._fail(trial, "its blocks don't all open within the run")
            elif strategy.key in known:
                self._repeat(trial, known[strategy.key])
            else:
                return self._accept(trial, strategy, trial_id)
        return None

    def tell(self, trial_id: str, record: TrialRecord) -> None:
        """Tell the study how a proposal did on the first fold; no effect the second time."""
        for trial in self._running():
            if trial.user_attrs.get(_TRIAL) == trial_id:
                self._tell(Trial(self.study, trial._trial_id), record)

    def catch_up(
        self, proposals: Mapping[str, Proposal], ended: Mapping[str, TrialRecord | None]
    ) -> None:
        """Bring the study in line with the records after a crash or the loss of its file.

        Args:
            proposals: trial id -> what the records say was proposed, in order.
            ended: trial id -> record of how it did on the first fold; None while it runs.
        """
        known = {t.user_attrs.get(_TRIAL) for t in self.study.get_trials(deepcopy=False)}
        for trial_id, proposal in proposals.items():
            if trial_id not in known:
                self._add(trial_id, proposal)
        for trial in self._running():
            record = ended.get(trial.user_attrs.get(_TRIAL, ""))
            if record is not None:
                self._tell(Trial(self.study, trial._trial_id), record)

    def _ask(self, trial_id: str) -> Trial:
        """Ask anew, or take up what had been asked for when the driver died: nobody's yet, or
        this trial's already, of which the records don't know."""

        def is_orphan(trial: FrozenTrial) -> bool:
            owner = trial.user_attrs.get(_TRIAL, trial_id)
            return trial.state == TrialState.RUNNING and owner == trial_id

        trials = self.study.get_trials(deepcopy=False)
        orphan = _first(trials, is_orphan)
        waiting = _first(trials, lambda t: t.state == TrialState.WAITING)
        number = orphan.number if orphan else waiting.number if waiting else len(trials)
        seed = _seed(self._seed, self.arm.name, number)
        self.study.sampler = self._sampler.build(self._search, seed)
        trial = Trial(self.study, orphan._trial_id) if orphan else self.study.ask()
        for key, domain in self.arm.domains.items():
            _suggest(trial, key, domain)
        return trial

    def _accept(self, trial: Trial, strategy: Strategy, trial_id: str) -> Proposal:
        trial.set_user_attr(_STRATEGY, dict(strategy))
        trial.set_user_attr(_TRIAL, trial_id)
        return Proposal(strategy, trial.params)

    def _fail(self, trial: Trial, reason: str) -> None:
        """FAIL is the one state that TPE ignores: the next suggestion is drawn as if this
        one had not been, which samples the valid part of the space in the same proportions."""
        trial.set_user_attr(_REASON, reason)
        self.study.tell(trial, state=TrialState.FAIL)

    def _repeat(self, trial: Trial, dice: float | None) -> None:
        if dice is None or not math.isfinite(dice):
            self._fail(trial, "repeats a strategy of this arm")
        else:
            trial.set_user_attr(
                _REASON, "repeats a strategy of this arm; answered from the records"
            )
            self.study.tell(trial, dice)

    def _tell(self, trial: Trial, record: TrialRecord) -> None:
        ended = record.ended
        assert ended is not None
        if ended.status == "finished" and ended.dice is not None and math.isfinite(ended.dice):
            self.study.tell(trial, ended.dice)
        elif ended.status == "pruned":
            epochs, values = record.curve("val_dice")
            if epochs and math.isfinite(values[-1]):
                trial.report(values[-1], step=epochs[-1])
            self.study.tell(trial, state=TrialState.PRUNED)
        else:
            self._fail(trial, ended.reason or "no finite Dice")

    def _add(self, trial_id: str, proposal: Proposal) -> None:
        params = {k: v for k, v in proposal.params.items() if k in self._distributions}
        self.study.add_trial(
            optuna.trial.create_trial(
                state=TrialState.RUNNING,
                params=params,
                distributions={k: self._distributions[k] for k in params},
                user_attrs={_TRIAL: trial_id, _STRATEGY: dict(proposal.strategy)},
            )
        )

    def _running(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))

    def _enqueue_unseen(self, number: int, known: Mapping[str, float | None]) -> None:
        """Have a strategy suggested next that the arm has not proposed, if there is one."""
        if any(t.state == TrialState.WAITING for t in self.study.get_trials(deepcopy=False)):
            return
        for values in self._draws(number):
            strategy = self._terms.strategy(self.arm, values)
            if strategy is not None and strategy.key not in known:
                self.study.enqueue_trial(_encoded(values))
                return

    def _draws(self, number: int) -> Iterator[dict[str, Any]]:
        """Every suggestion of a finite arm or a grid, in random order; many of another arm."""
        domains = self.arm.domains
        if self.arm.size is not None or self._sampler.walks_grid:
            points = list(itertools.product(*self._grid()))
            random.Random(_seed(self._seed, self.arm.name, 0)).shuffle(points)
            yield from (dict(zip(domains, point, strict=True)) for point in points)
            return
        draw = random.Random(_seed(self._seed, self.arm.name, number))
        for _ in range(DRAWS):
            yield {key: domain.draw(draw.random()) for key, domain in domains.items()}

    def _grid(self) -> list[list[Any]]:
        """All values of finite domains; of the others as few points as give enough strategies,
        but `GRID_POINTS` where that many are wanted: two ends alone would say nothing of a rate."""
        wanted = self.arm.strategies or self._search.strategies_per_arm
        for n in range(max(2, min(GRID_POINTS, wanted)), wanted + 2):
            listed = [domain.points(n) for domain in self.arm.domains.values()]
            if math.prod(len(values) for values in listed) >= wanted:
                break
        return listed


def open_storage(path: Path) -> optuna.storages.RDBStorage:
    """Open or create `optuna.db`. SQLite: on a disk that can lock, and by one process only.

    It does not wait for the disk: what a power cut may take is rebuilt from the records. So is a
    file that is no database of studies, which is set aside.

    Raises:
        SearchError: its folder can't be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SearchError(
            f"{path.parent} can't hold the search's studies ({error.strerror}). Name a folder on a"
            " local disk that can be written: search.state_dir=DIR."
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if path.exists() and not _holds_studies(path):
        for name in (path, *(path.with_name(path.name + end) for end in _BESIDE)):
            if name.exists():
                set_aside(name)
    return _storage(path)


@contextmanager
def storage_errors(run: str) -> Iterator[None]:
    """The studies, or other files of a search, are read and written here.

    Raises:
        SearchError: in place of what the disk or SQLite can't do; how to go on.
    """
    try:
        yield
    except Exception as error:
        cause = error if isinstance(error, OSError) else _of_sqlite(error)
        if cause is None:
            raise
        raise SearchError(
            f"A file of the search can't be read or written ({cause}). What was recorded is safe;"
            f" make room or bring the disk back, then go on with --resume {run}."
        ) from error


def _holds_studies(path: Path) -> bool:
    """Whether SQLite and Optuna can read all of it.

    Raises:
        Exception: the disk or a lock prevents it; that says nothing about the file.
    """
    if path.is_dir():
        return False
    try:
        with closing(sqlite3.connect(path)) as connection:
            if connection.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
                return False
        storage = _storage(path)
        try:
            for study in storage.get_all_studies():
                storage.get_all_trials(study._study_id, deepcopy=False)
        finally:
            storage.engine.dispose()
    except Exception as error:  # a schema of another kind fails in as many ways as it may differ
        cause = _of_sqlite(error)
        if cause is not None and _code(cause) not in _DAMAGE:
            raise
        return False
    return True


def _of_sqlite(error: BaseException | None) -> sqlite3.Error | None:
    """The error of SQLite that an error of Optuna's or SQLAlchemy's comes from, if any."""
    while error is not None and not isinstance(error, sqlite3.Error):
        error = error.__cause__ or error.__context__
    return error


def _code(error: sqlite3.Error) -> int:
    """SQLite's own code of what went wrong, without its finer distinctions."""
    return int(getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)) & 0xFF


def _storage(path: Path) -> optuna.storages.RDBStorage:

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(path, timeout=60, check_same_thread=False)
        connection.execute("PRAGMA synchronous = OFF")
        return connection

    return optuna.storages.RDBStorage(f"sqlite:///{path}", engine_kwargs={"creator": connect})


def _seed(seed: int, arm: str, number: int) -> int:
    return zlib.crc32(f"{seed}/{arm}/{number}".encode())


def _first(trials: list[FrozenTrial], wanted: Callable[[FrozenTrial], bool]) -> FrozenTrial | None:
    return next((trial for trial in trials if wanted(trial)), None)


def _suggest(trial: Trial, key: str, domain: Domain) -> None:
    if domain.kind == "choice":
        trial.suggest_categorical(key, [_choice(v) for v in domain.choices])
        return
    assert domain.low is not None
    assert domain.high is not None
    if domain.kind == "int":
        trial.suggest_int(key, int(domain.low), int(domain.high))
    else:
        trial.suggest_float(key, domain.low, domain.high, log=domain.kind == "log")


def _distribution(domain: Domain) -> BaseDistribution:
    if domain.kind == "choice":
        return CategoricalDistribution([_choice(v) for v in domain.choices])
    assert domain.low is not None
    assert domain.high is not None
    if domain.kind == "int":
        return IntDistribution(int(domain.low), int(domain.high))
    return FloatDistribution(domain.low, domain.high, log=domain.kind == "log")


def _choice(value: Any) -> Any:
    """Optuna keeps plain values only; a list is kept as JSON text."""
    return json.dumps(value) if isinstance(value, tuple) else value


def _encoded(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _choice(value) for key, value in values.items()}


def _decoded(arm: Arm, params: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(params)
    for key, domain in arm.domains.items():
        if domain.kind == "choice":
            found[key] = next(v for v in domain.choices if _choice(v) == params[key])
    return found
