"""What happened in a run, on disk and back: the truth that every later part reads.

`trials.jsonl` is an append-only list of events, one JSON object a line, written by
one process alone (the driver of a search, or `finetune.py`). Tables are views of it
and can be written again at any time. A trial may report the same epoch twice, after
its worker died and it went on from its checkpoint: the later report counts.
"""

from __future__ import annotations

import errno
import io
import json
import math
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, cast

import numpy as np
from filelock import FileLock, Timeout

from hsf_tune.errors import HsfTuneError, RunError, SearchError
from hsf_tune.files import csv_text, write_text
from hsf_tune.run_folder import TRIAL_ID, RunFolder

_CANT_LOCK = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP)
Status = Literal["finished", "pruned", "failed"]
Phase = Literal["explore", "confirm", "test", "finetune", "base"]
BASE, DEFAULT, RECOMMENDED = "base", "documented_default", "recommended"
NO_ARMS = (BASE, DEFAULT, RECOMMENDED)  # what trials outside of all arms carry as their arm


class Score(NamedTuple):
    """One number: a metric of one label of one case. `value` may be nan (label in neither)."""

    subject: str
    case: str
    label: str
    metric: str
    value: float


@dataclass(frozen=True)
class TrialStarted:
    """A trial began (or began again on another worker)."""

    kind: ClassVar[str] = "trial_started"
    trial: str
    phase: str
    arm: str
    strategy: Mapping[str, Any]  # canonical dotted keys; empty for the unchanged base
    fold: int
    seed: int
    max_epochs: int
    train: Sequence[str]
    validate: Sequence[str]
    steps: int = 0  # optimiser steps of the whole trial
    opening_epochs: Mapping[str, int] = field(default_factory=dict)  # block -> epoch it opens at
    parameters_trained: int = 0  # number of weights that train once all blocks are open
    device: str = ""
    precision: str = ""  # that `lightning.precision: auto` came to
    time: float = field(default_factory=time.time)


@dataclass(frozen=True)
class EpochEnded:
    """One epoch's metrics: train_loss, val_loss, val_dice, val_dice/<label>, lr/<block>,
    open_blocks, epoch_seconds."""

    kind: ClassVar[str] = "epoch_ended"
    trial: str
    epoch: int
    metrics: Mapping[str, float]
    time: float = field(default_factory=time.time)


@dataclass(frozen=True)
class TrialEnded:
    """A trial is over. `scores` are the last epoch's; `dice` is what ranks."""

    kind: ClassVar[str] = "trial_ended"
    trial: str
    status: str  # finished, pruned, failed
    dice: float | None = None  # last epoch's, mean over subjects
    best_dice: float | None = None
    best_epoch: int | None = None
    epochs: int = 0
    seconds: float = 0.0  # training and validation, resumed parts included
    parameters_trained: int = 0
    scores: Sequence[Score] = ()
    last_checkpoint: str | None = None  # relative to the run's folder
    best_checkpoint: str | None = None
    figures: Sequence[str] = ()
    reason: str | None = None  # why it was pruned or failed; one line
    traceback: str | None = None
    time: float = field(default_factory=time.time)


@dataclass(frozen=True)
class Note:
    """Anything of the run itself: start, stop, stage, finalists, a warning."""

    kind: ClassVar[str] = "note"
    about: str
    text: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)
    time: float = field(default_factory=time.time)


Event = TrialStarted | EpochEnded | TrialEnded | Note
_KINDS: dict[str, type] = {e.kind: e for e in (TrialStarted, EpochEnded, TrialEnded, Note)}
_NUMBER = (int, float)
_HOLDS: dict[str, Any] = {
    **dict.fromkeys(("trial", "phase", "arm", "status", "about", "text"), str),
    **dict.fromkeys(("strategy", "metrics", "data", "opening_epochs"), Mapping),
    **dict.fromkeys(("train", "validate", "scores", "figures"), list),
    **dict.fromkeys(("fold", "seed", "epoch", "max_epochs", "epochs", "steps"), int),
    **dict.fromkeys(("time", "seconds", "parameters_trained"), _NUMBER),
    **dict.fromkeys(("dice", "best_dice"), (*_NUMBER, type(None))),
    **dict.fromkeys(("last_checkpoint", "best_checkpoint"), (str, type(None))),
}  # key -> what the program reads it as; it may come from someone else's file


def event_to_dict(event: Event) -> dict[str, Any]:
    """Plain JSON values; nan and infinities become None."""
    return {"event": event.kind, **_jsonable(asdict(event))}


def event_from_dict(plain: Mapping[str, Any]) -> Event:
    """The inverse of `event_to_dict`; unknown fields of a newer version are dropped.

    Raises:
        ValueError: it is no event: of no known kind, without a field it needs, or with one that
            holds something else.
    """
    name = plain.get("event") if isinstance(plain, Mapping) else None
    if name not in _KINDS:
        raise ValueError(f"the event {name!r} is none of {', '.join(_KINDS)}")
    kind = _KINDS[name]
    names = {f.name for f in fields(kind)}
    values = {k: v for k, v in plain.items() if k in names}
    for key, value in values.items():
        if not isinstance(value, _HOLDS.get(key, object)):
            raise ValueError(f"{key} holds {value!r}")
    if "trial" in names and not TRIAL_ID.fullmatch(values.get("trial", "")):
        raise ValueError(f"{values.get('trial')!r} can't be the id of a trial")
    if kind is TrialEnded:
        rows = values.get("scores", ())
        values["scores"] = [
            Score(subject, case, label, metric, math.nan if value is None else float(value))
            for subject, case, label, metric, value in rows
        ]
    try:
        return cast(Event, kind(**values))
    except TypeError as error:  # a field is missing
        raise ValueError(str(error)) from None


@dataclass
class TrialRecord:
    """All that is known of one trial."""

    started: TrialStarted
    epochs: dict[int, EpochEnded] = field(default_factory=dict)
    ended: TrialEnded | None = None

    @property
    def id(self) -> str:
        return self.started.trial

    @property
    def finished(self) -> bool:
        return self.ended is not None and self.ended.status == "finished"

    def curve(self, metric: str) -> tuple[list[int], list[float]]:
        """Epochs and values of one metric, in order; epochs without it are left out."""
        steps = [e for e in sorted(self.epochs) if self.epochs[e].metrics.get(metric) is not None]
        return steps, [float(self.epochs[e].metrics[metric]) for e in steps]


class Records:
    """The records of one run folder.

    Args:
        folder: the run's folder; created if missing.

    Attributes:
        trials: trial id -> TrialRecord, in order of first start.
        notes: all notes, in order.

    Raises:
        RunError: the file holds what is no event.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self.path = self.files.inside(self.files.records.name)
        self.trials: dict[str, TrialRecord] = {}
        self.notes: list[Note] = []
        for event in read_events(self.path):
            self._apply(event)

    @property
    def files(self) -> RunFolder:
        """The folder's files by name."""
        return RunFolder(self.folder)

    def append(self, event: Event) -> None:
        """Write one event through to the disk, then take it into account.

        Raises:
            HsfTuneError: the folder is gone or the disk is full; nothing was half-written.
        """
        self.extend([event])

    def extend(self, events: Iterable[Event]) -> None:
        """Append several events with one write."""
        batch = list(events)
        lines = "".join(json.dumps(event_to_dict(e), allow_nan=False) + "\n" for e in batch)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            _append_whole(self.path, lines.encode())
        except OSError as error:
            raise HsfTuneError(
                f"{self.path} can't be written ({error.strerror}). Records up to here are safe;"
                " make room or bring the folder back, then go on with --resume."
            ) from error
        for event in batch:
            self._apply(event)

    def write_tables(self) -> None:
        """Write `scores.csv` and `trials.csv` anew, each atomically."""
        write_text(self.files.scores_table, csv_text(SCORE_COLUMNS, self.score_rows()))
        write_text(self.files.trials_table, csv_text(TRIAL_COLUMNS, self.trial_rows()))

    def score_rows(self) -> Iterator[list[Any]]:
        """One row a case, label and metric of every ended trial, as in `scores.csv`."""
        for record in self.trials.values():
            s = record.started
            for score in record.ended.scores if record.ended else ():
                yield [s.phase, s.trial, s.arm, s.fold, s.seed, *score]

    def trial_rows(self) -> Iterator[list[Any]]:
        """One row a trial, as in `trials.csv`."""
        for r in self.trials.values():
            s, e = r.started, r.ended
            status = e.status if e else "running"
            tail = [e.dice, e.best_dice, e.best_epoch, e.epochs, round(e.seconds, 3)] if e else []
            strategy = json.dumps(_jsonable(s.strategy), sort_keys=True)
            row = [s.phase, s.trial, s.arm, s.fold, s.seed, status, *tail]
            yield row + [None] * (11 - len(row)) + [s.parameters_trained, strategy]

    def _apply(self, event: Event) -> None:
        if isinstance(event, Note):
            self.notes.append(event)
        elif isinstance(event, TrialStarted):
            known = self.trials.get(event.trial)
            if known is None:
                self.trials[event.trial] = TrialRecord(event)
            else:  # it goes on after an interruption; its epochs so far stay
                known.started, known.ended = event, None
        elif event.trial in self.trials:
            record = self.trials[event.trial]
            if isinstance(event, EpochEnded):
                record.epochs[event.epoch] = event
            else:
                record.ended = event


SCORE_COLUMNS = [
    "phase", "trial", "arm", "fold", "seed", "subject", "case", "label", "metric", "value",
]  # fmt: skip
TRIAL_COLUMNS = [
    "phase", "trial", "arm", "fold", "seed", "status", "dice", "best_dice", "best_epoch",
    "epochs", "seconds", "parameters_trained", "strategy",
]  # fmt: skip


def subject_means(scores: Iterable[Score], metric: str = "dice") -> dict[str, float]:
    """A metric for each subject: labels averaged within a case, cases within the subject.

    A label that is in neither volume (nan) is left out. Sides and contrasts are cases.
    """
    cases: dict[tuple[str, str], list[float]] = {}
    for score in scores:
        if score.metric == metric and not math.isnan(score.value):
            cases.setdefault((score.subject, score.case), []).append(score.value)
    subjects: dict[str, list[float]] = {}
    for (subject, _), values in cases.items():
        subjects.setdefault(subject, []).append(float(np.mean(values)))
    return {subject: float(np.mean(values)) for subject, values in sorted(subjects.items())}


def mean_dice(scores: Iterable[Score]) -> float:
    """Mean over subjects of `subject_means`; nan where there is no score."""
    means = list(subject_means(scores).values())
    return float(np.mean(means)) if means else math.nan


def label_means(scores: Iterable[Score], metric: str = "dice") -> dict[str, float]:
    """A metric for each label: mean over subjects of the mean over a subject's cases."""
    by_label: dict[str, list[Score]] = {}
    for score in scores:
        by_label.setdefault(score.label, []).append(score)
    found = {name: list(subject_means(rows, metric).values()) for name, rows in by_label.items()}
    return {name: float(np.mean(values)) for name, values in found.items() if values}


def read_events(path: Path) -> Iterator[Event]:
    """Events of a file, in order; a last line cut short by a crash is left out.

    Raises:
        RunError: another line is no event.
    """
    if not path.exists():
        return
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                event = event_from_dict(json.loads(line))
            except (ValueError, TypeError, RecursionError) as error:
                raise RunError(
                    f"{path}, line {number}, is no event of a run: {error}. Bring the file back"
                    " from a copy; without the line, what it said is lost, and the rest is read."
                ) from None
            yield event


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Hold a run's folder: one process at a time writes there, and may take it again.

    The lock goes with the process that holds it, however that ends. On storage that can't
    lock there is none.

    Raises:
        SearchError: another process holds it.
        HsfTuneError: the folder can't be written.
    """
    lock = FileLock(RunFolder(folder.resolve()).lock, timeout=0, is_singleton=True)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise SearchError(
            f"{folder} is in use: another run of that name is going on. Wait for its end, or"
            " choose another --name."
        ) from None
    except OSError as error:
        if error.errno not in _CANT_LOCK:
            raise HsfTuneError(
                f"{folder} can't be written ({error.strerror}). Choose another folder with --output."
            ) from error
    try:
        yield
    finally:
        lock.release()


def _append_whole(path: Path, data: bytes) -> None:
    """Append all of `data` or nothing; first cut off a line that a crash left unfinished."""
    with path.open("a+b", buffering=0) as file:
        end = file.seek(0, os.SEEK_END)
        if end:
            file.seek(end - 1)
            if file.read(1) != b"\n":
                end = _last_line_end(file, end)
                file.truncate(end)
        try:
            written = 0
            while written < len(data):
                written += file.write(data[written:])
            os.fsync(file.fileno())
        except OSError:
            os.ftruncate(file.fileno(), end)
            raise


def _last_line_end(file: io.FileIO, end: int) -> int:
    file.seek(0)
    return file.read(end).rfind(b"\n") + 1


def _jsonable(node: Any) -> Any:
    if isinstance(node, Mapping):
        return {str(k): _jsonable(v) for k, v in node.items()}
    if isinstance(node, list | tuple):
        return [_jsonable(v) for v in node]
    if isinstance(node, np.generic):
        node = node.item()
    if isinstance(node, float) and not math.isfinite(node):
        return None
    return str(node) if isinstance(node, Path) else node
