"""The events of a run, and the JSON form in which they are kept and travel.

What 0.1.0 wrote is read as what is written now: the form has not changed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np

from hsf_tune.records.scores import Score
from hsf_tune.run_folder import TRIAL_ID
from hsf_tune.strategy import Strategy

BASE, DEFAULT, RECOMMENDED = "base", "documented_default", "recommended"
NO_ARMS = (BASE, DEFAULT, RECOMMENDED)  # what trials outside of all arms carry as their arm
STAGES = {"explore": "exploration", "confirm": "confirmation", "test": "test", "base": "base model"}


@dataclass(frozen=True)
class TrialStarted:
    """A trial began (or began again on another worker)."""

    kind: ClassVar[str] = "trial_started"
    trial: str
    phase: str
    arm: str
    strategy: Strategy  # canonical; empty for the unchanged base
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

    def __post_init__(self) -> None:
        object.__setattr__(self, "strategy", Strategy(self.strategy))


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
    """What a run says of itself. On disk `about` names the kind, and `data` holds its own fields.

    One of a kind that this version doesn't know is read as a plain note.
    """

    kind: ClassVar[str] = "note"
    about: ClassVar[str] = "note"
    shown: ClassVar[bool] = False  # also printed while the run goes on
    kinds: ClassVar[dict[str, type[Note]]] = {}
    text: str = field(default="", kw_only=True)
    time: float = field(default_factory=time.time, kw_only=True)

    def __init_subclass__(cls, about: str = "", shown: bool = False) -> None:
        cls.about, cls.shown = about, shown
        cls.kinds[about] = cls

    @property
    def data(self) -> dict[str, Any]:
        own = {f.name: getattr(self, f.name) for f in fields(self) if not f.kw_only}
        return {name: value for name, value in own.items() if value is not None}


@dataclass(frozen=True)
class Proposed(Note, about="proposed"):
    """An arm's strategy of a number, from 1, and what its study suggested it by."""

    arm: str
    number: int
    strategy: Strategy
    params: Mapping[str, Any]

    def __post_init__(self) -> None:
        object.__setattr__(self, "strategy", Strategy(self.strategy))


@dataclass(frozen=True)
class Exhausted(Note, about="exhausted"):
    """An arm has no further strategy to propose."""

    arm: str


@dataclass(frozen=True)
class FinalistsNamed(Note, about="finalists", shown=True):
    """An arm's part of the race is over. `finalists`, best first: number in the arm, strategy,
    explored_dice, folds."""

    arm: str
    finalists: Sequence[Mapping[str, Any]]


class StageBegan(Note, about="stage"):
    """Exploration, confirmation or test."""


@dataclass(frozen=True)
class RetriedAlone(Note, about="retry_alone", shown=True):
    """A trial that ran out of memory is run again, alone."""

    trial: str


class ConfirmationVoided(Note, about="confirmation_voided", shown=True):
    """Strategies were added after a look at the confirmation."""


class Warned(Note, about="warning", shown=True):
    """Something that whoever started the run should know."""


@dataclass(frozen=True)
class Configured(Note, about="configuration"):
    """What the run is made of; the last one holds."""

    config: Mapping[str, Any]
    space: Mapping[str, Any] | None = None
    documented_default: Mapping[str, Any] | None = None  # canonical, for this base's own blocks


@dataclass(frozen=True)
class Versions(Note, about="versions"):
    """What the run is computed with; the last one holds."""

    versions: Mapping[str, str]

    @property
    def data(self) -> dict[str, Any]:
        return dict(self.versions)


class SearchFinished(Note, about="finished"):
    """All that was planned has ended."""


class TimeBudgetUsed(Note, about="time_budget"):
    """A search ended early for want of time."""


class SearchInterrupted(Note, about="interrupted"):
    """A search ended early by a signal."""


Event = TrialStarted | EpochEnded | TrialEnded | Note
_KINDS: dict[str, type] = {e.kind: e for e in (TrialStarted, EpochEnded, TrialEnded, Note)}
_NUMBER = (int, float)
_HOLDS: dict[str, Any] = {
    **dict.fromkeys(("trial", "phase", "arm", "status", "about", "text"), str),
    **dict.fromkeys(("strategy", "metrics", "data", "opening_epochs"), Mapping),
    **dict.fromkeys(("params", "config", "versions", "documented_default"), Mapping),
    **dict.fromkeys(("train", "validate", "scores", "figures", "finalists"), list),
    **dict.fromkeys(("fold", "seed", "epoch", "max_epochs", "epochs", "number", "steps"), int),
    **dict.fromkeys(("time", "seconds", "parameters_trained"), _NUMBER),
    **dict.fromkeys(("dice", "best_dice"), (*_NUMBER, type(None))),
    **dict.fromkeys(("last_checkpoint", "best_checkpoint"), (str, type(None))),
}  # key -> what the program reads it as; it may come from someone else's file


def event_to_dict(event: Event) -> dict[str, Any]:
    """Plain JSON values; nan and infinities become None."""
    names = ("about", "text", "data", "time") if isinstance(event, Note) else _names(type(event))
    return {"event": event.kind, **jsonable({name: getattr(event, name) for name in names})}


def event_from_dict(plain: Mapping[str, Any]) -> Event:
    """The inverse of `event_to_dict`; unknown fields of a newer version are dropped.

    Raises:
        ValueError: it is no event: of no known kind, without a field it needs, or with one that
            holds something else.
    """
    name = plain.get("event") if isinstance(plain, Mapping) else None
    if name not in _KINDS:
        raise ValueError(f"the event {name!r} is none of {', '.join(_KINDS)}")
    kind, given = _KINDS[name], plain
    if kind is Note:
        _require_held(plain)
        kind, own = Note.kinds.get(plain.get("about", ""), Note), plain.get("data", {})
        own = {"versions": own} if kind is Versions else own
        given = {**own, **{key: plain[key] for key in ("text", "time") if key in plain}}
    names = _names(kind)
    values = {key: value for key, value in given.items() if key in names}
    _require_held(values)
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


def _names(kind: type) -> list[str]:
    return [f.name for f in fields(kind)]


def _require_held(values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        if not isinstance(value, _HOLDS.get(key, object)):
            raise ValueError(f"{key} holds {value!r}")


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
