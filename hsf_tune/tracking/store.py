"""Bring the runs of one search in MLflow up to the records, over and over.

Each call compares what a run already has (told by its tags) with a record and sends the
difference, so that repeating it after a failure or in a new process adds nothing twice.
Failures come out as exceptions; when to try again is for `tracker.py` to decide.
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from hsf_tune.config import TrackingConfig
from hsf_tune.credentials import complete
from hsf_tune.errors import TrackingError
from hsf_tune.records import TrialEnded, TrialRecord, TrialStarted
from hsf_tune.run_folder import RunFolder
from hsf_tune.tracking.translation import (
    EPOCH_TAG,
    KIND_TAG,
    REASON_TAG,
    RUN_TAG,
    SENT_TAG,
    STATUS,
    TRIAL_TAG,
    Point,
    epoch_points,
    final_points,
    metric_name,
    millis,
    params_of,
    tags_of,
)

_ENVIRONMENT = {  # set where the user has not; a server that is away blocks seconds, not minutes
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
_QUIET = {"mlflow": logging.WARNING, "alembic": logging.WARNING, "urllib3": logging.ERROR}
SQLITE = "sqlite:///"
_SEARCH = ""  # key of the parent among the runs
_BATCH = 900  # points a request; MLflow takes 1000


@dataclass
class _Run:
    """What a run in MLflow is known to have."""

    id: str
    phase: str = ""
    status: str = "RUNNING"
    last_epoch: int = -1
    described: bool = False  # parameters and tags
    reason: str = ""
    sent: str = ""  # time of the end whose points and artifacts are complete
    ended: str = ""  # time of the end whose points and status are there


class MlflowStore:
    """The runs of one search, or of one finetuning.

    Args:
        config: where MLflow is, and the experiment's name.
        folder: the run's folder; artifacts are named relative to it.
        name: of the parent run, or of the only one.
        nested: one parent with a child a trial; without it every trial stands alone.
    """

    def __init__(self, config: TrackingConfig, folder: Path, name: str, nested: bool) -> None:
        self.config, self.name, self.nested = config, name, nested
        self.files = RunFolder(folder)
        self._client: Any = None
        self._experiment: str | None = None
        self._identity: str | None = None
        self._runs: dict[str, _Run] | None = None

    @property
    def client(self) -> Any:
        """MLflow's own client, once connected."""
        return self._client

    @property
    def connected(self) -> bool:
        return self._experiment is not None

    @property
    def identified(self) -> bool:
        """Whether the first record is there, which tells this run from others."""
        path = self.files.records
        return self._identity is not None or (path.exists() and path.stat().st_size > 0)

    @property
    def has_trials(self) -> bool:
        return any(key != _SEARCH for key in self._runs or ())

    def connect(self) -> None:
        """Reach MLflow; create its database and the experiment where they are missing.

        Raises:
            TrackingError: the experiment was deleted, which trying again does not mend.
            Exception: whatever MLflow raises when it can't be reached.
        """
        if self._client is None:
            self._client = _client(self.config.uri)
        found = self._client.get_experiment_by_name(self.config.experiment)
        if found is not None and found.lifecycle_stage != "active":
            raise TrackingError(
                f"The MLflow experiment '{self.config.experiment}' at {self.config.uri} is deleted."
                " Restore it there, or choose another name: tracking.experiment=NAME."
            )
        self._experiment = (
            found.experiment_id
            if found
            else self._client.create_experiment(self.config.experiment, _artifacts(self.config.uri))
        )

    def forget(self) -> None:
        """Look everything up again next time: after a failure it is not known what arrived."""
        self._runs = self._experiment = None

    def send_points(self, record: TrialRecord, *, interrupted: bool = False) -> None:
        """Everything of a trial but its files: parameters, tags, points, status.

        Args:
            interrupted: the search stops while the trial runs; its run becomes KILLED, and
                RUNNING again once the trial goes on.
        """
        run = self._run_of(record.started)
        ended = record.ended
        points = list(epoch_points(record, after=run.last_epoch))
        tags: dict[str, str] = {}
        if points:
            tags[EPOCH_TAG] = str(max(p.step for p in points))
        if ended is not None and run.ended != repr(ended.time):
            points += final_points(record)
        waiting = "the search was interrupted" if interrupted else ""
        reason = waiting if ended is None else ended.reason or ""
        if reason != run.reason:
            tags[REASON_TAG] = run.reason = reason
        params = {} if run.described else params_of(record.started)
        self._log(run.id, points, params, tags)
        run.described = True
        run.last_epoch = int(tags.get(EPOCH_TAG, run.last_epoch))
        self._set_status(run, ended, interrupted)

    def send_files(self, record: TrialRecord) -> list[str]:
        """The files of an ended trial: figures, best checkpoint, traceback.

        Returns:
            Those that are not there (any more), relative to the folder.

        Raises:
            RunError: one of them lies outside of the folder.
        """
        run, ended = self._run_of(record.started), record.ended
        if ended is None or run.sent == repr(ended.time):
            return []
        missing = []
        named = [(figure, "figures") for figure in ended.figures]
        named += [(ended.best_checkpoint, "checkpoints")] if ended.best_checkpoint else []
        for path, file, where in [(self.files.inside(file), file, where) for file, where in named]:
            if path.is_file():
                self._client.log_artifact(run.id, str(path), where)
            else:
                missing.append(file)
        if ended.traceback:
            self._client.log_text(run.id, ended.traceback, "traceback.txt")
        run.sent = repr(ended.time)
        self._log(run.id, [], {}, {SENT_TAG: run.sent})
        return missing

    def send_run_files(self, paths: Iterable[Path], metrics: Mapping[str, float]) -> list[Path]:
        """Files and summary metrics of the whole run, to the parent (or the only trial).

        Returns:
            Paths that are not there.
        """
        run = self._main_run()
        now = millis(time.time())
        points = [Point(metric_name(name), float(v), now, 0) for name, v in metrics.items()]
        self._log(run.id, points, {}, {})
        missing = []
        for path in paths:
            if path.exists():
                self._client.log_artifact(run.id, str(path))
            else:
                missing.append(path)
        return missing

    def end_search(self, status: str) -> None:
        """Set the parent's status, where there is one: FINISHED, KILLED or FAILED."""
        if self.identified and (self.nested or _SEARCH in self._listed()):
            run = self._parent()
            self._client.set_terminated(run.id, status)
            run.status = status

    def find_main_run(self) -> str | None:
        """Id of the parent run, or of the only trial's; None where MLflow has neither."""
        runs = self._listed()
        if _SEARCH in runs:
            return runs[_SEARCH].id
        return self._main_run().id if runs else None

    # Runs

    def _run_of(self, started: TrialStarted) -> _Run:
        run = self._listed().get(started.trial)
        if run is None:
            tags = {**tags_of(started), KIND_TAG: "trial", TRIAL_TAG: started.trial}
            if self.nested:
                tags["mlflow.parentRunId"] = self._parent().id
            name = started.trial if self.nested else self.name
            run = self._create(started.trial, name, tags, started.time)
        return run

    def _parent(self) -> _Run:
        run = self._listed().get(_SEARCH)
        if run is None:
            return self._create(_SEARCH, self.name, {KIND_TAG: "search"}, time.time())
        if run.status != "RUNNING":  # the search goes on
            self._client.update_run(run.id, status="RUNNING")
            run.status = "RUNNING"
        return run

    def _main_run(self) -> _Run:
        trials = [run for key, run in self._listed().items() if key != _SEARCH]
        if self.nested or not trials:
            return self._parent()
        return next((run for run in trials if run.phase != "base"), trials[0])

    def _create(self, key: str, name: str, tags: dict[str, str], start_s: float) -> _Run:
        runs = self._listed()
        tags = {RUN_TAG: self._run_identity(), "mlflow.source.name": "hsf_tune", **tags}
        created = self._client.create_run(
            self._experiment, start_time=millis(start_s), tags=tags, run_name=name
        )
        runs[key] = _Run(created.info.run_id, tags.get("phase", ""))
        return runs[key]

    def _listed(self) -> dict[str, _Run]:
        """All runs of this search by trial; a twin left by a lost answer is removed."""
        if self._runs is None:
            runs: dict[str, _Run] = {}
            for run in self._search():
                key = run.data.tags.get(TRIAL_TAG, _SEARCH)
                if key in runs:
                    self._client.delete_run(run.info.run_id)
                else:
                    runs[key] = _known(run)
            self._runs = runs
        return self._runs

    def _search(self) -> Iterator[Any]:
        """Runs that carry our tag, the oldest first."""
        if not self.connected:
            self.connect()
        query, token = f"tags.`{RUN_TAG}` = '{self._run_identity()}'", None
        while True:
            page = self._client.search_runs(
                [self._experiment], query, page_token=token, order_by=["start_time ASC"]
            )
            yield from page
            token = page.token
            if not token:
                return

    def _run_identity(self) -> str:
        """Tells this run from every other of the same name: the time of its first record."""
        if self._identity is None:
            with self.files.records.open(encoding="utf-8") as lines:
                first = json.loads(next(lines))
            self._identity = f"{self.files.name}-{millis(first['time'])}"
        return self._identity

    # Sending

    def _log(
        self, run_id: str, points: list[Point], params: Mapping[str, str], tags: Mapping[str, str]
    ) -> None:
        """One request for most trials; the tags go last, so that they claim only what is there."""
        from mlflow.entities import Metric, Param, RunTag

        if not (points or params or tags):
            return
        metrics = [Metric(p.name, p.value, p.time_ms, p.step) for p in points]
        while len(metrics) > _BATCH:
            self._client.log_batch(run_id, metrics=metrics[:_BATCH], synchronous=True)
            metrics = metrics[_BATCH:]
        self._client.log_batch(
            run_id,
            metrics=metrics,
            params=[Param(k, v) for k, v in params.items()],
            tags=[RunTag(k, v) for k, v in tags.items()],
            synchronous=True,
        )

    def _set_status(self, run: _Run, ended: TrialEnded | None, interrupted: bool) -> None:
        if ended is not None:
            status, at = STATUS[ended.status], repr(ended.time)
            if (run.status, run.ended) != (status, at):
                self._client.set_terminated(run.id, status, millis(ended.time))
            run.ended = at
        else:
            status = "KILLED" if interrupted else "RUNNING"
            if run.status != status:
                self._client.update_run(run.id, status=status)
        run.status = status


def _known(run: Any) -> _Run:
    tags = run.data.tags
    sent = tags.get(SENT_TAG, "")
    return _Run(
        id=run.info.run_id,
        phase=tags.get("phase", ""),
        status=run.info.status,
        last_epoch=int(tags.get(EPOCH_TAG, -1)),
        described=bool(run.data.params),
        reason=tags.get(REASON_TAG, ""),
        sent=sent,
        ended=sent,
    )


def _client(uri: str) -> Any:
    """MLflow's client, its import and its database's creation included, without its chatter."""
    for key, value in _ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    from mlflow.tracking import MlflowClient

    if "MLFLOW_LOGGING_LEVEL" not in os.environ:
        for name, level in _QUIET.items():
            logging.getLogger(name).setLevel(level)
    return MlflowClient(tracking_uri=_absolute(complete(uri)))


def _absolute(uri: str) -> str:
    """A relative SQLite path made absolute: MLflow would keep the first folder it meant.

    Raises:
        TrackingError: the file can't be used; MLflow would try for a minute, and not say why.
    """
    if not uri.startswith(SQLITE):
        return uri
    given, mark, options = uri.removeprefix(SQLITE).partition("?")
    path = database_path(uri)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(path)) as database:
            database.execute("BEGIN IMMEDIATE")  # works where it is one, and may be written
    except (OSError, sqlite3.Error) as error:
        raise TrackingError(
            f"The MLflow database {path} can't be used: {error}. Name another file,"
            " tracking.uri=sqlite:////FOLDER/mlflow.db, or do without: tracking.enabled=false."
        ) from None
    here = "" if given.startswith("/") else f"{Path.cwd()}/"
    quoted = quote(here)  # a % or ? in it is a name's
    scheme = SQLITE if quoted == here else "sqlite+pysqlite:///"  # for which MLflow makes no folder
    return f"{scheme}{quoted}{given}{mark}{options}"


def database_path(uri: str) -> Path:
    """The file that an SQLite address means."""
    return Path.cwd() / unquote(uri.removeprefix(SQLITE).partition("?")[0])


def _artifacts(uri: str) -> str | None:
    """Where MLflow puts files of an experiment on this machine: `mlruns`, as by default, but as
    an address in which no character of the folder's name means anything else."""
    return Path("mlruns").absolute().as_uri() if uri.startswith(SQLITE) else None


def is_passing(error: Exception) -> bool:
    """Whether trying again later may help: the server is away, busy, or asks to log in."""
    status = getattr(error, "get_http_status_code", None)
    if status is not None:
        return status() >= 500 or status() in (401, 403, 408, 429)
    return isinstance(error, OSError) or type(error).__module__.startswith(("sqlalchemy", "sqlite"))
