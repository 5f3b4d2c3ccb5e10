"""Follow the events of a run and send them to MLflow from a thread of its own.

The caller only ever puts an event into a queue. The thread keeps what is not sent yet,
tries again after a failure, and says once that MLflow is away and once that it is back.
What is left when the process ends can be sent later: `sync` compares the records with
MLflow and sends the difference.
"""

from __future__ import annotations

import logging
import os
import queue
import shlex
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from hsf_tune.config import TrackingConfig
from hsf_tune.credentials import kept_apart, redacted
from hsf_tune.errors import RunError, TrackingError
from hsf_tune.installed import typed
from hsf_tune.records import Event, Records, TrialRecord
from hsf_tune.tracking.backlog import Backlog, RunFiles
from hsf_tune.tracking.store import MlflowStore, is_passing

PARENT_STATUS = {"finished": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}
PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0  # between two rounds; it doubles from failure to failure
CLOSING_PAUSE_S = 0.5
STRIKES = 3  # refusals by a server that answers, after which a trial is set aside


class MlflowTracker:
    """An observer of events that never stops, slows or fails the run it observes.

    Args:
        config: where MLflow is, the experiment, and whether it is required at the start.
        folder: the run's folder; its `trials.jsonl` holds an event before it comes here.
        name: of the parent run, or of the only one; the folder's name by default.
        nested: a parent run with one child a trial; False where there is one trial only.
        say: called, mostly from the thread, with a sentence for the user.
    """

    def __init__(
        self,
        config: TrackingConfig,
        folder: Path | str,
        *,
        name: str | None = None,
        nested: bool = True,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.config, self.folder = config, Path(folder).resolve()
        self._store = MlflowStore(config, self.folder, name or self.folder.name, nested)
        self._say = say or logging.getLogger(__name__).warning
        self._inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._backlog = Backlog()
        self._trouble: Exception | None = None  # why the last round failed
        self._pause_s = PAUSE_S
        self._sent = self._gone = 0  # things that got through; files that were no longer there
        self._status: str | None = None  # of the search, once it is closing
        self._over = False  # all is sent, the search's status too
        self._tried, self._hurry, self._stopped, self._done = (threading.Event() for _ in range(4))
        threading.Thread(target=self._work, name="mlflow", daemon=True).start()

    def check_reachable(self, timeout_s: float = 60.0) -> bool:
        """Wait for the first connection, which also creates a missing SQLite database.

        Returns:
            Whether MLflow answered; where it did not, the tracker goes on trying.

        Raises:
            TrackingError: it did not, and `tracking.required` is set.
        """
        answered = self._tried.wait(timeout_s)
        trouble = self._trouble if answered else TimeoutError(f"no answer in {timeout_s:.0f} s")
        if trouble is None:
            return True
        if self.config.required:
            self._stop()
            raise _unreachable(self.config.uri, trouble) from trouble
        self._say(_away(self.config.uri, trouble))
        return False

    def __call__(self, event: Event) -> None:
        """Take note of an event that is already in the records; costs microseconds."""
        self._inbox.put(event)

    def sync(self, records: Records) -> None:
        """Send all that the records hold and MLflow lacks; call it before a run goes on."""
        for record in records.trials.values():
            self._inbox.put(TrialRecord(record.started, dict(record.epochs), record.ended))

    def log_artifacts(
        self, paths: Iterable[Path | str] = (), metrics: Mapping[str, float] | None = None
    ) -> None:
        """Attach files and summary metrics to the parent run, or to the only trial's."""
        known = {k: v for k, v in (metrics or {}).items() if v is not None}
        self._inbox.put(RunFiles(tuple(Path(p) for p in paths), known))

    def close(
        self, timeout_s: float = 30.0, status: str = "finished", *, patient: bool = False
    ) -> int:
        """Send what is left, for at most this long, and stop.

        Args:
            status: of the search: finished, interrupted or failed. Trials that still run
                become KILLED, and RUNNING again when they go on.
            patient: count `timeout_s` anew whenever something got through.

        Returns:
            Number of trials and uploads that MLflow lacks; the user is told how to send them.
        """
        self._status = PARENT_STATUS[status]
        self._hurry.set()
        self._inbox.put(None)
        before = -1
        while not (finished := self._done.wait(timeout_s)) and patient and self._sent > before:
            before = self._sent
        self._stop()
        self._absorb()
        left = len(self._backlog) if finished else max(1, len(self._backlog))
        if left:
            why = self._trouble or next(iter(self._backlog.refused.values()), None)
            self._say(
                f"MLflow at {self.config.uri} still lacks {left} trials or uploads"
                f"{f' ({_short(why)})' if why else ''}. Nothing is lost:"
                f" {typed('sync-mlflow', str(self.folder))}{_flag(self.config)} sends them from the"
                " records."
            )
        if self._gone:
            self._say(f"{self._gone} files were no longer there to be sent to MLflow.")
        return left

    # The thread

    def _work(self) -> None:
        while not self._stopped.is_set():
            self._attempt()
            if self._over:
                break
            self._rest()
        self._done.set()

    def _rest(self) -> None:
        """Sleep until there is something to send, or until it is time to try again."""
        if self._status:
            self._stopped.wait(CLOSING_PAUSE_S)
            return
        if self._trouble is None:
            self._backlog.take(self._inbox.get())  # close() wakes it with None
        self._hurry.wait(self._pause_s)  # meanwhile events gather into one request

    def _attempt(self) -> None:
        """One round; a failure is kept, said once, and makes the next pause longer."""
        try:
            if not self._store.connected:
                self._store.connect()
            self._tried.set()
            self._round()
        except Exception as error:
            self._store.forget()
            if self._trouble is None and self._tried.is_set() and not self._stopped.is_set():
                self._say(_away(self.config.uri, error))
            self._trouble = error
            self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
        else:
            if self._trouble is not None:
                self._say(f"MLflow at {self.config.uri} is back and has everything up to here.")
            self._trouble, self._pause_s = None, PAUSE_S
        self._tried.set()

    def _round(self) -> None:
        """Send until nothing is left: points before files, as files may take long."""
        backlog, ending = self._backlog, False
        while not self._stopped.is_set():
            self._absorb()
            if self._status and not ending:
                ending = True
                for trial in [t for t, record in backlog.trials.items() if record.ended is None]:
                    backlog.changed(trial)
            if backlog.points:
                self._try(next(iter(backlog.points)), self._send_points)
            elif backlog.files:
                self._try(next(iter(backlog.files)), self._send_files)
            elif backlog.run_files and self._may_send_run_files():
                self._send_run_files(backlog.run_files[0])
            else:
                if self._status:
                    self._store.end_search(self._status)
                    self._over = True
                return
            self._sent += 1

    def _absorb(self) -> None:
        """Take all that has arrived."""
        try:
            while True:
                self._backlog.take(self._inbox.get_nowait())
        except queue.Empty:
            return

    def _try(self, trial: str, send: Callable[[TrialRecord], None]) -> None:
        """Send for one trial; what MLflow refuses again and again must not hold up the others."""
        backlog = self._backlog
        try:
            send(backlog.trials[trial])
        except Exception as error:
            if is_passing(error):
                raise
            self._store.forget()
            alien = isinstance(error, RunError)  # it names files outside of the run, for ever
            backlog.strikes[trial] = STRIKES if alien else backlog.strikes.get(trial, 0) + 1
            if backlog.strikes[trial] >= STRIKES:
                backlog.set_aside(trial, error)
                who = "Not sent:" if alien else "MLflow refuses"
                self._say(f"{who} trial {trial} ({_short(error)}). The run goes on.")

    def _send_points(self, record: TrialRecord) -> None:
        self._store.send_points(record, interrupted=self._status is not None)
        del self._backlog.points[record.id]
        if record.ended is not None:
            self._backlog.files[record.id] = None

    def _send_files(self, record: TrialRecord) -> None:
        self._gone += len(self._store.send_files(record))
        del self._backlog.files[record.id]
        del self._backlog.trials[record.id]  # all sent: memory stays flat

    def _send_run_files(self, files: RunFiles) -> None:
        try:
            self._gone += len(self._store.send_run_files(files.paths, files.metrics))
        except Exception as error:
            if is_passing(error):
                raise
            self._backlog.refused["the run's files"] = error
            self._say(f"MLflow refuses files of the run ({_short(error)}). The run goes on.")
        self._backlog.run_files.remove(files)

    def _may_send_run_files(self) -> bool:
        """Run-level files need a run to go to, which needs a record to be told by."""
        has_run = self._store.nested or self._store.has_trials or self._status is not None
        return self._store.identified and has_run

    def _stop(self) -> None:
        self._stopped.set()
        self._hurry.set()
        self._inbox.put(None)


def address_for(noted: TrackingConfig, given: str | None) -> TrackingConfig:
    """Where a run that was read from a folder is sent: to the address that the user knows of.

    The folder may be someone else's. The address in it counts only where it is the default or
    the environment's.

    Args:
        noted: as the run's configuration has it.
        given: an address from the command line.

    Raises:
        TrackingError: the run names another address, and the command line none.
    """
    if given is None and _flag(noted):
        raise TrackingError(
            f"The run's configuration names MLflow at {noted.uri!r}. Nothing was sent there, as a"
            f" run may be someone else's. If it is yours, say so:{_flag(noted)}"
        )
    return replace(noted, uri=given or noted.uri)


def is_known(config: TrackingConfig) -> bool:
    """Whether an address is the default or the environment's, so that a folder may name it."""
    return config.uri in (
        TrackingConfig.uri,
        kept_apart(os.environ.get("MLFLOW_TRACKING_URI", "")),
    )


def _flag(config: TrackingConfig) -> str:
    """What a command needs to be told to send to this address; '' where it does so unasked."""
    return "" if is_known(config) else f" --tracking-uri {shlex.quote(config.uri)}"


def sync_folder(
    folder: Path | str, config: TrackingConfig, *, say: Callable[[str], None] = print
) -> int:
    """Rebuild in MLflow all runs of a finished or interrupted run from its records.

    Returns:
        Number of trials and uploads that could not be sent.

    Raises:
        TrackingError: the folder holds no records, or MLflow can't be reached.
    """
    folder = Path(folder).resolve()
    records = Records(folder)
    if not records.trials:
        raise TrackingError(
            f"{records.path} holds no trial. Give the folder of a run: outputs/NAME."
        )
    trials = records.trials.values()
    nested = not any(record.started.phase == "finetune" for record in trials)
    tracker = MlflowTracker(replace(config, required=True), folder, nested=nested, say=say)
    tracker.check_reachable()
    tracker.sync(records)
    tracker.log_artifacts(records.files.to_show)
    over = all(record.ended is not None for record in trials)
    return tracker.close(120.0, "finished" if over else "interrupted", patient=True)


def _away(uri: str, error: Exception) -> str:
    return (
        f"MLflow at {uri} can't be used now ({_short(error)}). The run goes on; what MLflow misses"
        " is sent when it is back."
    )


def _unreachable(uri: str, error: Exception) -> TrackingError:
    if isinstance(error, TrackingError):
        return error
    return TrackingError(
        f"MLflow at {uri} can't be used: {_short(error)}. Start it, correct tracking.uri, or go on"
        " without waiting for it: tracking.required=false. No tracking at all:"
        " tracking.enabled=false."
    )


def _short(error: Exception) -> str:
    """The first line, cut where a library appends its whole history."""
    lines = redacted(str(error)).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:200]
