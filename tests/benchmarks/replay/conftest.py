"""Tables of made-up grids whose best strategy is known."""

import math
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "search" / "workers"))

import small_search

from benchmarks.replay.grid import every_strategy, grid_of, table_of
from hsf_tune.records import EpochEnded, Records, TrialEnded, TrialStarted

RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
EPOCHS = 8


def made_up_dice(strategy, fold, best_rate=3e-3):
    """Highest for the decoder with all blocks, opened fast, at `best_rate`."""
    dice = 0.80 - 0.03 * abs(math.log10(strategy["models.lr"] / best_rate))
    dice -= 0.02 * (strategy["finetuning.mode"] == "encoder")
    dice -= 0.01 * (3 - min(3, strategy["finetuning.depth"]))
    dice -= 0.004 * (strategy["finetuning.unfreeze_frequency"] - 1)
    return dice - 0.01 * fold


@pytest.fixture
def make_config():
    """Builds a configuration from settings of its `search` group."""
    return small_search.make_config


@pytest.fixture
def make_space():
    """Builds a space, by default one with two arms, from plain content."""
    return small_search.make_space


@pytest.fixture
def make_splits():
    """Builds the splits of ten subjects."""
    return small_search.make_splits


@pytest.fixture
def make_table():
    """Builds the table of a grid over the two arms, from dice(strategy, fold) or None."""

    def build(dice=made_up_dice, *, rates=RATES, subjects=16, folds=4, only=lambda s, f: True):
        space = small_search.make_space()
        content, points = space.to_dict(), {"models.lr": rates}
        grid = small_search.make_space(grid_of(content, points))
        splits = small_search.make_splits(folds, 2, subjects).explore
        records = Records("unused")
        for number, (arm, strategy) in enumerate(every_strategy(grid)):
            for split in splits:
                if only(strategy, split.fold):
                    records_of(records, f"{number}-{split.fold}", arm, strategy, split, dice)
        config = small_search.make_config()
        return table_of(records, grid, content, points, config, splits)

    return build


def records_of(records, trial, arm, strategy, split, dice):
    value = dice(strategy, split.fold)
    records._apply(
        TrialStarted(
            trial, "explore", arm, strategy, split.fold, 42, EPOCHS, split.train, split.validate
        )
    )
    for epoch in range(EPOCHS):
        part = (epoch + 1) / EPOCHS
        metrics = {"val_dice": math.nan if value is None else value * part}
        records._apply(EpochEnded(trial, epoch, metrics))
    status = "failed" if value is None else "finished"
    records._apply(TrialEnded(trial, status, value, epochs=EPOCHS, seconds=8.0))
