"""The events of a run, and the JSON form in which they are kept and travel.

What 0.1.0 wrote is read as what is written now: the form has not changed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np

from hsf_tune.records.scores import Score
from hsf_tune.run_folder import TRIAL_ID

BASE, DEFAULT, RECOMMENDED = "base", "documented_default", "recommended"
NO_ARMS = (BASE, DEFAULT, RECOMMENDED)  # what trials outside of all arms carry as their arm


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
    return {"event": event.kind, **jsonable(asdict(event))}


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


def jsonable(node: Any) -> Any:
    if isinstance(node, Mapping):
        return {str(k): jsonable(v) for k, v in node.items()}
    if isinstance(node, list | tuple):
        return [jsonable(v) for v in node]
    if isinstance(node, np.generic):
        node = node.item()
    if isinstance(node, float) and not math.isfinite(node):
        return None
    return str(node) if isinstance(node, Path) else node
