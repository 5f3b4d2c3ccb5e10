"""What of a trial's record becomes which parameter, tag, metric point and status.

Pure functions of the record, so that the same record always gives the same points with
the same times; nothing here knows MLflow's client.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from hsf_tune.records import (
    EpochEnded,
    TrialEnded,
    TrialRecord,
    TrialStarted,
    label_means,
    subject_means,
)

STATUS = {"finished": "FINISHED", "pruned": "KILLED", "failed": "FAILED"}
RUN_TAG, KIND_TAG, TRIAL_TAG = "hsf_tune.run", "hsf_tune.kind", "hsf_tune.trial"
EPOCH_TAG, SENT_TAG = "hsf_tune.last_epoch", "hsf_tune.sent"  # how far a run has got
REASON_TAG = "reason"

_NOT_A_RESULT = ("lr/", "open_blocks", "epoch_seconds")  # of an epoch, never a final_ value


class Point(NamedTuple):
    """One value of one metric."""

    name: str
    value: float
    time_ms: int
    step: int


def params_of(started: TrialStarted) -> dict[str, str]:
    """The strategy under short names (`mode`, `depth`, `lr`, ...), and the arm.

    Two keys that end alike keep their full names.
    """
    shorts = [key.rsplit(".", 1)[-1] for key in started.strategy]
    params = {
        short if shorts.count(short) == 1 else key: str(value)
        for short, (key, value) in zip(shorts, started.strategy.items(), strict=True)
    }
    return {
        **params,
        "arm": started.arm,
        "max_epochs": str(started.max_epochs),
        "steps": str(started.steps),
    }


def tags_of(started: TrialStarted) -> dict[str, str]:
    """Where the trial stands in its search."""
    tags = {"phase": started.phase, "fold": str(started.fold), "seed": str(started.seed)}
    return {**tags, "device": started.device} if started.device else tags


def epoch_points(record: TrialRecord, after: int) -> Iterator[Point]:
    """The metrics of all epochs after a given one, in order; nan is left out."""
    for epoch in sorted(e for e in record.epochs if e > after):
        event = record.epochs[epoch]
        yield from _points(event.metrics, event.time, epoch)


def final_points(record: TrialRecord) -> Iterator[Point]:
    """The last epoch's results as `final_*`, the best epoch's as `best_*`, and the costs.

    `final_val_dice` is what ranks. The unchanged base has no epoch: its results come from
    its scores.
    """
    ended = record.ended
    assert ended is not None
    last = max(record.epochs, default=0)
    costs = {
        "epochs": ended.epochs,
        "seconds": ended.seconds,
        "parameters_trained": ended.parameters_trained or record.started.parameters_trained,
    }
    final = {**_results(record.epochs.get(last)), **_score_means(ended), "val_dice": ended.dice}
    best: dict[str, Any] = {}
    if ended.best_epoch is not None:
        best = {**_results(record.epochs.get(ended.best_epoch)), "epoch": ended.best_epoch}
    if ended.best_dice is not None:
        best["val_dice"] = ended.best_dice
    yield from _points(costs, ended.time, last)
    yield from _points({f"final_{k}": v for k, v in final.items()}, ended.time, last)
    yield from _points({f"best_{k}": v for k, v in best.items()}, ended.time, last)


def metric_name(name: str) -> str:
    """A name that MLflow takes: other characters become `_`, empty path parts go.

    A label may be called anything; 'val_dice/Subiculum (pre)' becomes
    'val_dice/Subiculum _pre_'.
    """
    clean = re.sub(r"[^/\w.\- ]", "_", name, flags=re.ASCII)
    parts = [part if part.strip(".") else "_" * len(part) for part in clean.split("/") if part]
    return "/".join(parts)[:250]


def millis(seconds: float) -> int:
    """MLflow's unit of time."""
    return int(seconds * 1000)


def _results(event: EpochEnded | None) -> dict[str, Any]:
    metrics = event.metrics if event else {}
    return {k: v for k, v in metrics.items() if not k.startswith(_NOT_A_RESULT)}


def _score_means(ended: TrialEnded) -> dict[str, float]:
    """Means over subjects of every metric, and of Dice for each label."""
    names = dict.fromkeys(score.metric for score in ended.scores)
    means = {f"val_{m}": list(subject_means(ended.scores, m).values()) for m in names}
    result = {name: sum(values) / len(values) for name, values in means.items() if values}
    labels = label_means(ended.scores, "dice")
    return {**result, **{f"val_dice/{label}": value for label, value in labels.items()}}


def _points(metrics: Mapping[str, Any], time_s: float, step: int) -> Iterator[Point]:
    for name, value in metrics.items():
        if value is not None and math.isfinite(value):
            yield Point(metric_name(name), float(value), millis(time_s), step)
