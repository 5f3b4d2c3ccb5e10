"""What every strategy of a grid did on every fold, once and for all.

A table holds the curve and the last Dice of each training of an exhaustive grid, with
what is needed to search it again: the search space, the configuration and the folds.
How it is recorded is for `grid.py`; how searches are replayed from it, for
`simulate.py`.

A search proposes learning rates between those of the grid. Such a strategy is answered
by the grid's nearest rate, measured on the scale of its domain (in the logarithm for
`log`); all other keys of a replayed space are finite and match exactly.
"""

from __future__ import annotations

import json
import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from hsf_tune.config import config_from_dict
from hsf_tune.data.splits import Split, Splits
from hsf_tune.errors import ConfigError, SearchError
from hsf_tune.files import write_text
from hsf_tune.search.arms import Space
from hsf_tune.search.space import build_space
from hsf_tune.strategy import Strategy

FORMAT = 1
DIGITS = 6  # of a Dice in the file


@dataclass(frozen=True)
class Training:
    """What one strategy did on one fold.

    Attributes:
        dice: of the last epoch, which ranks; None where the training failed.
        curve: validation Dice after each epoch; nan where there was none.
        seconds: of training and validation.
    """

    dice: float | None
    curve: tuple[float, ...]
    seconds: float


@dataclass(frozen=True)
class GridTable:
    """A recorded grid.

    Attributes:
        content: the space to replay, as its file would hold it.
        points: searched key -> the values that were recorded; keys that are not named
            were recorded with every value they can have.
        config: the configuration of the recording, as a plain dict.
        blocks: mode -> number of blocks of the network.
        splits: the exploration's folds, in order.
        strategies: key -> strategy, all of the grid.
        arms: key -> the arm that recorded it.
        trainings: (key, fold) -> what was recorded.
    """

    name: str
    content: Mapping[str, Any]
    points: Mapping[str, tuple[float, ...]]
    config: Mapping[str, Any]
    blocks: Mapping[str, int]
    splits: tuple[Split, ...]
    strategies: Mapping[str, Strategy]
    arms: Mapping[str, str]
    trainings: Mapping[tuple[str, int], Training]
    _near: dict[str, str] = field(default_factory=dict, compare=False, repr=False)

    @property
    def folds(self) -> tuple[int, ...]:
        """Numbers of the recorded folds."""
        return tuple(split.fold for split in self.splits)

    def space_under(self, search: Mapping[str, Any]) -> Space:
        """The space to replay, and in it the configuration, with settings of `search`.

        Raises:
            ConfigError: settings that can't be.
        """
        known = self.config["search"]
        config = config_from_dict({**self.config, "search": {**known, **search}})
        return build_space(self.name, self.content, config, self.blocks, {}, self.name)

    def splits_of(self, folds: int) -> Splits:
        """The first so many folds; nothing to confirm, nothing to test."""
        return Splits(test=(), explore=self.splits[:folds], confirm=())

    def nearest(self, strategy: Strategy) -> str:
        """The key of the recorded strategy that answers for this one.

        Raises:
            SearchError: no recorded strategy is like it in all but the rate.
        """
        asked = strategy.key
        if asked not in self._near:
            snapped = Strategy({k: self._snapped(k, value) for k, value in strategy.items()})
            found = snapped.key
            if found not in self.strategies:
                raise SearchError(
                    f"{self.name} holds no training of {snapped.describe()}, which a search asked"
                    " for. Record the missing part of the grid with benchmarks.record_grid."
                )
            self._near[asked] = found
        return self._near[asked]

    @cached_property
    def true_dice(self) -> dict[str, float]:
        """Key -> mean over all folds of the last Dice; a fold where it failed counts as 0."""
        return {
            key: math.fsum(self.dice(key, fold) for fold in self.folds) / len(self.folds)
            for key in self.strategies
        }

    @cached_property
    def best(self) -> str:
        """Key of the strategy with the highest true Dice; the first of equal ones."""
        return max(self.true_dice, key=lambda key: self.true_dice[key])

    def regret(self, key: str) -> float:
        """How far a recorded strategy's true Dice lies below the best."""
        return self.true_dice[self.best] - self.true_dice[key]

    def missing(self) -> list[tuple[str, int]]:
        """(key, fold) that a search may ask for and that were not recorded.

        A strategy that failed on a fold is not trained on later ones; they are not missing.
        """
        found = []
        for key in self.strategies:
            for fold in self.folds:
                training = self.trainings.get((key, fold))
                if training is None:
                    found.append((key, fold))
                elif training.dice is None:
                    break
        return found

    def dice(self, key: str, fold: int) -> float:
        """The last Dice on a fold; 0 where the training failed or there was none."""
        training = self.trainings.get((key, fold))
        return 0.0 if training is None or training.dice is None else training.dice

    def save(self, path: Path) -> None:
        """Write the table as JSON, one line a training."""
        head = {
            "format": FORMAT,
            "name": self.name,
            "space": self.content,
            "points": {key: list(values) for key, values in self.points.items()},
            "blocks": dict(self.blocks),
            "config": self.config,
            "splits": [split.to_dict() for split in self.splits],
            "strategies": [dict(strategy) for strategy in self.strategies.values()],
            "arms": list(self.arms.values()),
            "columns": ["strategy", "fold", "dice", "seconds", "val_dice"],
        }
        rows = [
            json.dumps([i, fold, _rounded(t.dice), round(t.seconds, 2), _curve(t.curve)])
            for i, key in enumerate(self.strategies)
            for fold in self.folds
            if (t := self.trainings.get((key, fold))) is not None
        ]
        text = json.dumps(head)[:-1]
        write_text(path, text + ',\n"trainings": [\n' + ",\n".join(rows) + "\n]}\n")

    def _snapped(self, key: str, value: Any) -> Any:
        points = self.points.get(key)
        if points is None or value in points:
            return value
        place = bisect_left(points, value)
        around = points[max(0, place - 1) : place + 1]
        scale = math.log if min(points) > 0 and key in self._logarithmic else float
        return min(around, key=lambda point: (abs(scale(point) - scale(value)), point))

    @cached_property
    def _logarithmic(self) -> set[str]:
        """Keys that some arm searches in the logarithm."""
        arms = self.content["arms"].values()
        kinds = [(key, value) for arm in arms for key, value in arm.items()]
        return {key for key, value in kinds if isinstance(value, Mapping) and "log" in value}


def load_table(path: Path) -> GridTable:
    """Read what `GridTable.save` wrote.

    Raises:
        ConfigError: the file can't be read as a table.
    """
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        if plain["format"] != FORMAT:
            raise ConfigError(
                f"{path} has format {plain['format']}, expected {FORMAT}. Record it again with"
                " benchmarks.record_grid."
            )
        return _from_plain(plain)
    except OSError as error:
        raise ConfigError(f"{path} can't be read ({error.strerror}).") from error
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise ConfigError(
            f"{path} is no table of benchmarks.record_grid ({type(error).__name__}: {error})."
        ) from error


def _from_plain(plain: Mapping[str, Any]) -> GridTable:
    strategies = [Strategy(values) for values in plain["strategies"]]
    keys = [strategy.key for strategy in strategies]
    trainings = {
        (keys[i], fold): Training(
            dice, tuple(math.nan if value is None else value for value in curve), seconds
        )
        for i, fold, dice, seconds, curve in plain["trainings"]
    }
    return GridTable(
        name=plain["name"],
        content=plain["space"],
        points={key: tuple(values) for key, values in plain["points"].items()},
        config=plain["config"],
        blocks=plain["blocks"],
        splits=tuple(Split.from_dict(split) for split in plain["splits"]),
        strategies=dict(zip(keys, strategies, strict=True)),
        arms=dict(zip(keys, plain["arms"], strict=True)),
        trainings=trainings,
    )


def _rounded(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, DIGITS)


def _curve(values: Sequence[float]) -> list[float | None]:
    return [_rounded(value) for value in values]
