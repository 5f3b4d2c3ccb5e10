"""Decide whether a running trial is worth its remaining epochs. Pure.

Only `search.pruner: median` asks. Before its last block has opened and settled no trial
can be judged, so there is little to save; the race over folds saves it instead.
"""

from __future__ import annotations

import math
from statistics import median

from hsf_tune.records import EpochEnded, Records, TrialRecord

SETTLED_EPOCHS = 2  # after the last opening, before which no trial is judged
SMALLEST_VALIDATION = 4  # subjects; with fewer a median says nothing
SMALLEST_COMPANY = 4  # other trials that have to have reached the epoch


def median_reason(records: Records, event: EpochEnded) -> str | None:
    """Why a trial should end after this epoch; None where it should go on.

    It should end when its validation Dice lies below the median of the exploration trials
    of its fold at the same epoch.
    """
    record = records.trials.get(event.trial)
    dice = event.metrics.get("val_dice")
    if record is None or dice is None or not _judgeable(record, event.epoch):
        return None
    others = [
        float(other.epochs[event.epoch].metrics["val_dice"])
        for other in records.trials.values()
        if other is not record and _comparable(record, other, event.epoch)
    ]
    if len(others) < SMALLEST_COMPANY or dice >= median(others):
        return None
    return (
        f"Dice {dice:.4f} in epoch {event.epoch} is below {median(others):.4f}, the median of"
        f" {len(others)} trials"
    )


def _judgeable(record: TrialRecord, epoch: int) -> bool:
    started = record.started
    last_opening = max(started.opening_epochs.values(), default=0)
    return (
        started.phase == "explore"
        and len(set(started.validate)) >= SMALLEST_VALIDATION
        and last_opening + SETTLED_EPOCHS <= epoch < started.max_epochs - 1
    )


def _comparable(record: TrialRecord, other: TrialRecord, epoch: int) -> bool:
    a, b = record.started, other.started
    value = other.epochs[epoch].metrics.get("val_dice") if epoch in other.epochs else None
    return (
        (a.phase, a.fold, a.max_epochs) == (b.phase, b.fold, b.max_epochs)
        and value is not None
        and math.isfinite(value)
    )
