"""Arms and their strategies: what a checked search space holds.

What a strategy is, and when two are the same, is decided in `finetuning.strategy`;
how a space is read and checked, in `space.py`; how strategies are proposed, in
`study.py`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hsf_tune.config import Config, get_value
from hsf_tune.finetuning.strategy import canonical
from hsf_tune.search.domain import Domain
from hsf_tune.strategy import (
    DEPTH,
    DOCUMENTED_DEFAULT,
    FREQUENCY,
    MAX_EPOCHS,
    MODE,
    Strategy,
)

ENUMERABLE = 10_000  # combinations up to which an arm's strategies are counted


@dataclass(frozen=True)
class Arm:
    """A group of strategies that is compared with the others.

    Attributes:
        domains: searched keys.
        constants: keys that all strategies of the arm share.
        start: suggestions to make first; keys that are left out are proposed as usual.
        strategies: how many to try at most; None for the search's own number.
        finalists: how many to confirm at most; None for the search's own number.
        size: number of different strategies; None where there is no end of them.
    """

    name: str
    domains: Mapping[str, Domain]
    constants: Mapping[str, Any]
    start: tuple[Mapping[str, Any], ...] = ()
    strategies: int | None = None
    finalists: int | None = None
    size: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """As a space file would write the arm."""
        options = {
            "strategies": self.strategies,
            "finalists": self.finalists,
            "start": [plain(point) for point in self.start] or None,
        }
        return {
            **plain(self.constants),
            **{key: domain.to_dict() for key, domain in self.domains.items()},
            **{key: value for key, value in options.items() if value is not None},
        }


@dataclass(frozen=True)
class Terms:
    """What suggestions become strategies by.

    Attributes:
        config: the configuration with the space's own settings applied.
        blocks: mode -> number of blocks of the network.
        varied: every key that any arm sets; each strategy holds all of them.
    """

    config: Config
    blocks: Mapping[str, int]
    varied: tuple[str, ...]

    def strategy(self, arm: Arm, suggested: Mapping[str, Any]) -> Strategy | None:
        """The canonical strategy of a suggestion.

        None where the network lacks the blocks, or the run the epochs to open them all.
        """
        values = {**self.defaults(), **arm.constants, **suggested}
        mode = values.get(MODE, self.config.finetuning.mode)
        if values.get(DEPTH, self.config.finetuning.depth) > self.blocks[mode]:
            return None
        strategy = canonical(values, self.config, self.blocks)
        return strategy if strategy.opens_all else None

    def defaults(self) -> dict[str, Any]:
        """What the configuration says about the varied keys."""
        settings = self.config.to_dict()
        return {key: get_value(settings, key) for key in self.varied}

    def documented_default(self) -> Strategy:
        """As long as the space's trials where all its blocks open, else as documented."""
        values = {**self.defaults(), **DOCUMENTED_DEFAULT}
        epochs = self.config.lightning.max_epochs
        strategy = canonical({**values, MAX_EPOCHS: epochs}, self.config, self.blocks)
        if strategy.opens_all:
            return strategy
        return canonical({**values, MAX_EPOCHS: "auto"}, self.config, self.blocks)

    def fitted(self, arm: Arm, point: Mapping[str, Any]) -> dict[str, Any] | None:
        """A start point as this arm would suggest it; None where it doesn't fit the arm.

        It fits when each of its keys is in the arm's range or equals the arm's constant;
        keys that the arm lacks are dropped.
        """
        if MODE in arm.domains and MODE not in point:
            return None  # without a mode, "all blocks" has no number
        mode = point.get(MODE, arm.constants.get(MODE, self.config.finetuning.mode))
        known = dict(point)
        if known.get(DEPTH) == -1:
            known[DEPTH] = self.blocks[mode]
        for key, value in known.items():
            if key in arm.domains and not arm.domains[key].contains(value):
                return None
            if key in arm.constants and arm.constants[key] != value:
                return None
        chosen = {key: value for key, value in known.items() if key in arm.domains}
        if not chosen:
            return None
        complete = chosen.keys() == arm.domains.keys()
        return chosen if not complete or self.strategy(arm, chosen) is not None else None

    def signature(self, arm: Arm) -> str:
        """Equal for arms that hold the same strategies, written in whatever way."""
        constants = {**self.defaults(), **arm.constants}
        constants.setdefault(MODE, self.config.finetuning.mode)
        constants.setdefault(DEPTH, self.config.finetuning.depth)
        if constants[DEPTH] == -1:
            constants[DEPTH] = self.blocks[constants[MODE]]
        frozen = {k: v for k, v in constants.items() if k not in arm.domains}
        ranges = {k: str(d.to_dict()) for k, d in arm.domains.items()}
        if frozen.get(DEPTH) == 0:
            for key in (MODE, FREQUENCY):
                frozen.pop(key, None)
                ranges.pop(key, None)
        return Strategy({**frozen, **ranges}).key

    def size(self, arm: Arm) -> int | None:
        """Number of different strategies of an arm.

        None where there is no end of them; 0 also where no corner of the ranges is one.
        """
        finite = all(domain.values() is not None for domain in arm.domains.values())
        listed = [domain.points(2) for domain in arm.domains.values()]
        if math.prod(len(values) for values in listed) > ENUMERABLE:
            return None
        keys = set()
        for chosen in itertools.product(*listed):
            strategy = self.strategy(arm, dict(zip(arm.domains, chosen, strict=True)))
            if strategy is not None:
                keys.add(strategy.key)
        return len(keys) if finite or not keys else None


@dataclass(frozen=True)
class Space:
    """A checked search space.

    Attributes:
        constants: what the space sets for all its arms, the user's overrides applied.
        default: the documented default's canonical strategy.
    """

    name: str
    arms: tuple[Arm, ...]
    constants: Mapping[str, Any]
    terms: Terms
    default: Strategy

    @property
    def config(self) -> Config:
        """The configuration with the space's own settings applied; what the run uses."""
        return self.terms.config

    def arm(self, name: str) -> Arm:
        """The arm of that name."""
        return next(arm for arm in self.arms if arm.name == name)

    def arms_that_start_with_default(self) -> tuple[str, ...]:
        """Names of the arms that propose the documented default among their first."""
        return tuple(
            arm.name
            for arm in self.arms
            for point in arm.start
            if point.keys() == arm.domains.keys()
            and self.terms.strategy(arm, point) == self.default
        )

    def to_dict(self) -> dict[str, Any]:
        """As a space file that reads back to this space, overrides included."""
        arms = {arm.name: arm.to_dict() for arm in self.arms}
        return {"name": self.name, **plain(self.constants), "arms": arms}


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """A copy with lists for tuples, as YAML writes them."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}
