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
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout

from hsf_tune.errors import HsfTuneError, RunError, SearchError
from hsf_tune.records.events import (
    EpochEnded,
    Event,
    Note,
    TrialEnded,
    TrialStarted,
    event_from_dict,
    event_to_dict,
)
from hsf_tune.run_folder import RunFolder

_CANT_LOCK = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP)
N = TypeVar("N", bound=Note)


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

    def noted(self, kind: type[N]) -> list[N]:
        """All notes of a kind, in order."""
        return [note for note in self.notes if isinstance(note, kind)]

    def events(self) -> Iterator[Event]:
        """Events that lead to these records: the notes, then trial after trial."""
        yield from self.notes
        for record in self.trials.values():
            yield record.started
            yield from record.epochs.values()
            if record.ended:
                yield record.ended

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
