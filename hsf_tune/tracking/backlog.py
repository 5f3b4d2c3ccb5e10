"""What MLflow does not have yet: the tracker's memory, and all that it ever holds.

An epoch that was reported twice (its worker died and it went on from its checkpoint)
counts with its later report, as in the records, unless the earlier one was already sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hsf_tune.records import EpochEnded, TrialEnded, TrialRecord, TrialStarted


@dataclass(frozen=True)
class RunFiles:
    """Files and metrics of the whole run."""

    paths: tuple[Path, ...]
    metrics: Mapping[str, float]


@dataclass
class Backlog:
    """What MLflow does not have yet."""

    trials: dict[str, TrialRecord] = field(default_factory=dict)  # those not fully sent
    points: dict[str, None] = field(default_factory=dict)  # trial ids, in order of change
    files: dict[str, None] = field(default_factory=dict)
    run_files: list[RunFiles] = field(default_factory=list)
    strikes: dict[str, int] = field(default_factory=dict)
    refused: dict[str, Exception] = field(default_factory=dict)  # set aside

    def __len__(self) -> int:
        return len({**self.points, **self.files, **self.refused}) + len(self.run_files)

    def take(self, item: Any) -> None:
        """Note an event, a whole record or files of the run."""
        if isinstance(item, RunFiles):
            self.run_files.append(item)
        elif isinstance(item, TrialRecord):
            self.trials[item.id] = item
            self.changed(item.id)
        elif isinstance(item, TrialStarted):
            known = self.trials.setdefault(item.trial, TrialRecord(item))
            known.started, known.ended = item, None
            self.changed(item.trial)
        elif isinstance(item, EpochEnded | TrialEnded) and item.trial in self.trials:
            record = self.trials[item.trial]
            if isinstance(item, EpochEnded):
                record.epochs[item.epoch] = item
            else:
                record.ended = item
            self.changed(item.trial)

    def changed(self, trial: str) -> None:
        self.points[trial] = None
        self.strikes.pop(trial, None)
        self.refused.pop(trial, None)

    def set_aside(self, trial: str, error: Exception) -> None:
        self.refused[trial] = error
        self.points.pop(trial, None)
        self.files.pop(trial, None)
