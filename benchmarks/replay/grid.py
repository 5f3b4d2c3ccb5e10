"""Lay a grid over a search space, and read what a search over it recorded into a table.

The grid is itself a search space: ranges of learning rates become choices. So an
ordinary search records it, with the sampler `grid` and no strategy left out on any
fold, and an interrupted recording goes on like any search.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks.replay.table import GridTable, Training
from hsf_tune.config import Config, set_values
from hsf_tune.data.splits import Split
from hsf_tune.errors import ConfigError
from hsf_tune.records import Records, TrialRecord
from hsf_tune.search.arms import Arm, Space
from hsf_tune.strategy import LR, Strategy

RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
SMALL_RATES = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
FOLDS = 4
_OPEN = ("log", "float")  # kinds of domain without an end of values
_OPTIONS = ("strategies", "finalists", "start")


def small_space() -> dict[str, Any]:
    """A space small enough to record in minutes: either half as documented, at any rate.

    With `SMALL_RATES` and four folds it takes 40 trainings.
    """
    rate = {"log": [SMALL_RATES[0], SMALL_RATES[-1]]}
    return {
        "lightning.max_epochs": 20,
        "arms": {
            mode: {
                "finetuning.mode": mode,
                "finetuning.depth": -1,
                "finetuning.unfreeze_frequency": 4,
                LR: rate,
            }
            for mode in ("encoder", "decoder")
        },
        "start": [{LR: 1e-3}],
    }


def grid_of(content: Mapping[str, Any], points: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """The space file of a grid: every endless range of `content` with its points only.

    Args:
        content: a space as `Space.to_dict` writes it.
        points: key -> values to record.

    Raises:
        ConfigError: no points are given for a searched key, or none lies in its range.
    """
    shared = {k: v for k, v in content.items() if k not in ("arms", "start")}
    arms = {
        name: {
            key: _cut(name, key, value, points)
            for key, value in keys.items()
            if key not in _OPTIONS
        }
        for name, keys in content["arms"].items()
    }
    return {**shared, "arms": arms}


def _cut(arm: str, key: str, value: Any, points: Mapping[str, Sequence[float]]) -> Any:
    if not isinstance(value, Mapping) or not set(value) & set(_OPEN):
        return value
    low, high = next(iter(value.values()))
    inside = [float(point) for point in points.get(key, ()) if low <= point <= high]
    if not inside:
        given = ", ".join(f"{point:g}" for point in points.get(key, ())) or "none"
        raise ConfigError(
            f"arm '{arm}', {key} ranges from {low:g} to {high:g}; points to record: {given}."
            " Expected at least one in that range."
        )
    return {"choice": sorted(inside)}


def every_strategy(grid: Space) -> Iterator[tuple[str, Strategy]]:
    """(arm, strategy) of all strategies of a finite space, each once."""
    seen = set()
    for arm in grid.arms:
        for strategy in _strategies(grid, arm):
            key = strategy.key
            if key not in seen:
                seen.add(key)
                yield arm.name, strategy


def _strategies(grid: Space, arm: Arm) -> Iterator[Strategy]:
    listed = [domain.values() for domain in arm.domains.values()]
    assert all(values is not None for values in listed)
    for chosen in itertools.product(*(values or [] for values in listed)):
        strategy = grid.terms.strategy(arm, dict(zip(arm.domains, chosen, strict=True)))
        if strategy is not None:
            yield strategy


def recording_settings(folds: int, strategies: int) -> dict[str, Any]:
    """Settings of a search that trains every strategy of a grid on every fold.

    Args:
        strategies: of the arm that has most.
    """
    return {
        "search.sampler": "grid",
        "search.pruner": "none",
        "search.confirm": False,
        "search.folds": folds,
        "search.strategies_per_arm": strategies,
        "search.keep": [strategies] * (folds - 1),
    }


def table_of(
    records: Records,
    grid: Space,
    content: Mapping[str, Any],
    points: Mapping[str, Sequence[float]],
    config: Config,
    splits: Sequence[Split],
) -> GridTable:
    """The table of what has been recorded so far.

    Args:
        grid: the space that was recorded.
        content: the space that is to be replayed.
        config: what the replayed searches are configured by.
    """
    listed = [(strategy.key, arm, strategy) for arm, strategy in every_strategy(grid)]
    folds = {split.fold for split in splits}
    trainings = {}
    for record in records.trials.values():
        started = record.started
        key = started.strategy.key
        if started.phase == "explore" and started.fold in folds and record.ended is not None:
            trainings[key, started.fold] = _training(record)
    known = {key for key, _, _ in listed}
    return GridTable(
        name=grid.name,
        content=content,
        points={key: tuple(sorted(float(v) for v in values)) for key, values in points.items()},
        config=_anywhere(config),
        blocks=grid.terms.blocks,
        splits=tuple(splits),
        strategies={key: strategy for key, _, strategy in listed},
        arms={key: arm for key, arm, _ in listed},
        trainings={slot: t for slot, t in trainings.items() if slot[0] in known},
    )


def _anywhere(config: Config) -> dict[str, Any]:
    """A configuration without the paths of the machine that recorded; a replay reads no image."""
    values = {"datasets.main_path": ".", "output": "outputs", "store.path": None}
    return set_values(config.to_dict(), values)


def _training(record: TrialRecord) -> Training:
    ended = record.ended
    assert ended is not None
    finished = ended.status == "finished" and ended.dice is not None
    dice = ended.dice if finished and math.isfinite(ended.dice or math.nan) else None
    last = max(record.epochs, default=-1)
    values = [record.epochs[e].metrics.get("val_dice") if e in record.epochs else None
              for e in range(last + 1)]  # fmt: skip
    curve = tuple(math.nan if value is None else float(value) for value in values)
    return Training(dice, curve, ended.seconds)
