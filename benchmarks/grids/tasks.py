"""Which strategies a recorded grid holds, and how long each is trained.

A strategy's schedule is a share of the run: the same strategy at half the length opens its
blocks at half the steps. So a grid says which strategies win when trainings are short and
which win when they are long.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hsf_tune.finetuning.strategy import DEPTH, FREQUENCY, LR, MAX_EPOCHS, MODE

EPOCHS = 20  # of every training, however long; an epoch has a twentieth of its steps
STEPS = (80, 160, 320, 640)  # optimiser steps: S/4, S/2, S, 2S
LONGEST = 1280  # of the best three of an arm
RATES = (3e-3, 1e-2, 3e-2)
SHARES = (0.0, 0.1)  # of the run between two openings; 0: everything open from the start
HALF = {"encoder": 2, "decoder": 1, "full": 4}  # blocks, beside all of them
ARMS = tuple(HALF)


@dataclass(frozen=True)
class Recipe:
    """A strategy without a length: how it trains at any.

    Attributes:
        arm: encoder, decoder, full, scratch.
        depth: blocks that open; -1 for all.
        share: of the run between two openings.
    """

    arm: str
    depth: int
    share: float
    lr: float

    def strategy(self) -> dict[str, Any]:
        """Dotted keys, the depth still as it is written."""
        return {
            MODE: "full" if self.arm == "scratch" else self.arm,
            DEPTH: self.depth,
            FREQUENCY: round(self.share * EPOCHS),
            LR: self.lr,
            MAX_EPOCHS: EPOCHS,
        }


def recipes() -> Iterator[Recipe]:
    """All of a grid, each once: halves and the whole network, and from random weights."""
    for arm, half in HALF.items():
        yield from (Recipe(arm, -1, share, lr) for share in SHARES for lr in RATES)
        yield from (Recipe(arm, half, 0.1, lr) for lr in RATES)
    yield Recipe("decoder", -1, 0.2, 1e-3)  # as documented: a block every 4 of 20 epochs
    yield Recipe("encoder", -1, 0.2, 1e-3)
    yield from (Recipe("scratch", -1, 0.0, lr) for lr in RATES)


@dataclass(frozen=True)
class Training:
    """One row of a grid's table before it is run."""

    recipe: Recipe
    steps: int
    fold: int
    seed: int

    @property
    def key(self) -> tuple[Any, ...]:
        r = self.recipe
        return (r.arm, r.depth, r.share, r.lr, self.steps, self.fold, self.seed)

    @property
    def name(self) -> str:
        r = self.recipe
        return f"{r.arm}-d{r.depth}-s{r.share:g}-lr{r.lr:g}-{self.steps}-f{self.fold}-{self.seed}".replace(
            ".", "_"
        )


def planned(
    seed: int, dice: Mapping[tuple[Any, ...], float], folds: tuple[int, ...] = (1, 2)
) -> list[Training]:
    """What is to be recorded, in order: short before long, on every fold.

    Args:
        dice: key -> Dice of what has been recorded; it decides which strategies are trained
            longest and with a second seed, once all others are there.
    """
    everything = list(recipes())
    rows = [Training(r, n, fold, seed) for n in STEPS for fold in folds for r in everything]
    if all(row.key in dice for row in rows):
        best = [r for arm in ARMS for r in _best(arm, everything, seed, dice, folds)]
        rows += [Training(r, LONGEST, fold, seed) for fold in folds for r in best]
        rows += [Training(r, n, fold, seed + 1) for n in STEPS for fold in folds for r in best]
    return rows


def _best(
    arm: str,
    listed: list[Recipe],
    seed: int,
    dice: Mapping[tuple[Any, ...], float],
    folds: tuple[int, ...],
) -> list[Recipe]:
    """The three best of an arm at the longest length that all were trained."""

    def mean(recipe: Recipe) -> float:
        keys = [Training(recipe, STEPS[-1], fold, seed).key for fold in folds]
        return sum(dice[key] for key in keys) / len(keys)

    return sorted((r for r in listed if r.arm == arm), key=mean, reverse=True)[:3]
