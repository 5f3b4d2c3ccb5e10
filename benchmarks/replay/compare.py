"""Compare settings of a search by many replays each, and say what the table itself shows.

All settings see the same seeds. Random search and the grid without a race are settings
like any other: those that train each strategy on every fold. The full grid needs no
replay: it costs all trainings, and its pick is the best by definition.

The error that is given is that of the search's own chance, on this one grid. It does
not say how other data would behave, and the recorded grid has one seed: what is "true"
here holds the luck of its trainings.
"""

from __future__ import annotations

import math
import multiprocessing
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean, median, stdev

import numpy as np

from benchmarks.replay.simulate import TOLERANCE, Bench, Memory, Replay, SearchSetting
from benchmarks.replay.table import GridTable
from hsf_tune.errors import ConfigError
from hsf_tune.search.pruner import SMALLEST_VALIDATION
from hsf_tune.search.samplers import SAMPLERS

SHIPPED = "12/6,3,3"
RACES = (SHIPPED, "6/6,6,6", "10/6,4,4", "16/4,2,2", "18/3,2,1", "14/6,4", "16/8")  # 24 each
SMALL_RACES = ("4/2,1,1", "2/2,2,2", "3/3,1,1", "5/2,1", "6/2")  # 8 trainings an arm each
LARGE_ARM = 24  # recorded strategies an arm, on average, from which on `RACES` are the default


def parse_race(text: str) -> tuple[int, tuple[int, ...]]:
    """'12/6,3,3': 12 strategies an arm on fold 1, 6 on fold 2, 3 on folds 3 and 4.

    Raises:
        ConfigError: not of that form, or a fold with more strategies than the one before.
    """
    first, _, rest = text.partition("/")
    try:
        counts = [int(first), *(int(part) for part in rest.split(","))]
    except ValueError:
        counts = []
    if not counts or counts[-1] < 1 or sorted(counts, reverse=True) != counts:
        raise ConfigError(
            f"race '{text}': expected strategies an arm on fold 1, a slash, and those kept on"
            " each later fold, never more than before: 12/6,3,3."
        )
    return counts[0], tuple(counts[1:])


def race_name(setting: SearchSetting) -> str:
    """The inverse of `parse_race`."""
    return f"{setting.strategies}/{','.join(str(kept) for kept in setting.keep)}"


def default_races(table: GridTable) -> list[str]:
    """Races of equal cost that suit the size of a table."""
    large = len(table.strategies) >= LARGE_ARM * len(set(table.arms.values()))
    races = RACES if large else SMALL_RACES
    return [race for race in races if len(parse_race(race)[1]) < len(table.folds)]


def settings_of(
    table: GridTable,
    races: Sequence[str],
    samplers: Sequence[str] = tuple(SAMPLERS),
    pruners: Sequence[str] = ("none", "median"),
    startup: int = 4,
) -> list[SearchSetting]:
    """Every race with every sampler; pruners beyond the first with the first race only."""
    small = smallest_fold(table) < SMALLEST_VALIDATION
    found = []
    for i, race in enumerate(races):
        strategies, keep = parse_race(race)
        for sampler in samplers:
            for pruner in pruners if i == 0 else pruners[:1]:
                judge = pruner != "none" and small
                found.append(SearchSetting(sampler, pruner, strategies, keep, startup, judge))
    return found


def smallest_fold(table: GridTable) -> int:
    """Subjects that validate in the smallest fold."""
    return min(len(set(split.validate)) for split in table.splits)


@dataclass(frozen=True)
class Row:
    """What many replays of one setting came to; means unless said otherwise.

    Attributes:
        reached: share of searches whose pick is within the tolerance of the grid's best.
        needed, needed_epochs: median over all searches, those that never got there counted as
            infinite; None where that is most of them.
        below: by how much the pick's true Dice is below the best; `error` its standard error.
        finalists_below: the same for the best of the finalists.
    """

    setting: SearchSetting
    searches: int
    trainings: float
    epochs: float
    reached: float
    needed: float | None
    needed_epochs: float | None
    dice: float
    below: float
    error: float
    finalists_below: float


def compare(
    table: GridTable,
    settings: Sequence[SearchSetting],
    *,
    searches: int = 100,
    seed: int = 0,
    workers: int = 2,
    processes: int = 1,
    tolerance: float = TOLERANCE,
) -> list[Row]:
    """Replay each setting with the seeds `seed`, `seed + 1`, ...; a row for each.

    Raises:
        SearchError: the table lacks a training that a search asked for.
    """
    task = _Task(table, tuple(settings), workers, tolerance)
    seeds = range(seed, seed + searches)
    if processes == 1:
        found = [task.run(number) for number in seeds]
    else:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(
            processes, mp_context=context, initializer=_start, initargs=(task,)
        ) as pool:
            found = list(pool.map(_run, seeds))
    by_setting = zip(*found, strict=True)
    return [_row(table, s, replays) for s, replays in zip(settings, by_setting, strict=True)]


@dataclass(frozen=True)
class _Task:
    """All settings with one seed, which share what the studies proposed."""

    table: GridTable
    settings: tuple[SearchSetting, ...]
    workers: int
    tolerance: float

    @cached_property
    def benches(self) -> list[Bench]:
        return [Bench(self.table, setting) for setting in self.settings]

    def run(self, seed: int) -> list[Replay]:
        memory: Memory = {}
        return [
            bench.run(seed, workers=self.workers, tolerance=self.tolerance, memory=memory)
            for bench in self.benches
        ]


_here: list[_Task] = []  # of this process


def _start(task: _Task) -> None:
    _here.append(task)


def _run(seed: int) -> list[Replay]:
    return _here[0].run(seed)


def _row(table: GridTable, setting: SearchSetting, replays: Sequence[Replay]) -> Row:
    best = table.true_dice[table.best]
    below = [best - replay.dice for replay in replays]
    return Row(
        setting=setting,
        searches=len(replays),
        trainings=fmean(r.trainings for r in replays),
        epochs=fmean(r.epochs for r in replays),
        reached=fmean(r.needed is not None for r in replays),
        needed=_median(r.needed for r in replays),
        needed_epochs=_median(r.needed_epochs for r in replays),
        dice=fmean(r.dice for r in replays),
        below=fmean(below),
        error=stdev(below) / math.sqrt(len(below)) if len(below) > 1 else math.nan,
        finalists_below=fmean(best - r.finalists_dice for r in replays),
    )


def _median(values: Iterable[int | None]) -> float | None:
    found = median(math.inf if value is None else value for value in values)
    return found if math.isfinite(found) else None


@dataclass(frozen=True)
class Whole:
    """The grid itself, trained in random order, each strategy on all folds.

    Attributes:
        near: strategies within the tolerance of the best.
        needed: trainings after which half of all orders have trained one of them.
    """

    trainings: int
    epochs: int
    near: int
    needed: int


def whole_grid(table: GridTable, tolerance: float = TOLERANCE) -> Whole:
    """What the exhaustive grid costs, and how soon it has seen a good strategy."""
    n, folds = len(table.strategies), len(table.folds)
    near = sum(table.regret(key) <= tolerance for key in table.strategies)
    first = next(k for k in range(1, n + 1) if math.comb(n - near, k) * 2 <= math.comb(n, k))
    epochs = sum(len(training.curve) for training in table.trainings.values())
    return Whole(len(table.trainings), epochs, near, first * folds)


def agreement(table: GridTable) -> float:
    """Spearman's rank correlation between fold 1 and the mean of the other folds."""
    from scipy.stats import spearmanr  # takes longer to import than a search to replay

    first = [table.dice(key, table.folds[0]) for key in table.strategies]
    others = [fmean(table.dice(key, f) for f in table.folds[1:]) for key in table.strategies]
    return float(spearmanr(np.array(first), np.array(others)).statistic)


def summary(table: GridTable, tolerance: float = TOLERANCE) -> str:
    """What the table shows by itself, in Markdown."""
    whole = whole_grid(table, tolerance)
    best = table.best
    lines = [
        f"{table.name}: {len(table.strategies)} strategies on {len(table.folds)} folds of at least"
        f" {smallest_fold(table)} subjects, {whole.trainings} trainings, {whole.epochs} epochs.",
        f"Best: {table.strategies[best].describe()} (arm {table.arms[best]}): Dice"
        f" {table.true_dice[best]:.4f}. Within {tolerance:g} of it: {whole.near} strategies. Rank"
        f" correlation of fold 1 with the other folds: {agreement(table):.2f}.",
        *_default(table),
        "",
        "| arm | strategies | best Dice | median | within |",
        "|---|--:|--:|--:|--:|",
    ]
    for arm in dict.fromkeys(table.arms.values()):
        dice = [table.true_dice[key] for key in table.strategies if table.arms[key] == arm]
        near = sum(value >= table.true_dice[best] - tolerance for value in dice)
        lines.append(f"| {arm} | {len(dice)} | {max(dice):.4f} | {median(dice):.4f} | {near} |")
    return "\n".join(lines)


def _default(table: GridTable) -> list[str]:
    key = table.space_under({}).default.key
    if key not in table.strategies:
        return []
    return [f"Documented default: Dice {table.true_dice[key]:.4f}."]


def markdown(table: GridTable, rows: Sequence[Row], tolerance: float = TOLERANCE) -> str:
    """The rows as a Markdown table, the full grid last."""
    lines = [
        f"| race | sampler | pruner | trainings | epochs | within {tolerance:g} | trainings needed"
        " | epochs needed | true Dice | below the best | best finalist below |",
        "|---|---|---|" + "--:|" * 8,
    ]
    lines += [_line(row) for row in rows]
    whole = whole_grid(table, tolerance)
    lines.append(
        f"| full grid | | none | {whole.trainings} | {whole.epochs} | 100% | {whole.needed} |"
        f" {round(whole.needed * whole.epochs / whole.trainings)}"
        f" | {table.true_dice[table.best]:.4f} | 0 | |"
    )
    if any(row.setting.judge_small_folds for row in rows):
        lines += [
            "",
            f"\\* The folds hold {smallest_fold(table)} subjects; the pruner asks for"
            f" {SMALLEST_VALIDATION} and would leave these searches alone. Here it acts all the"
            " same.",
        ]
    return "\n".join(lines)


def _line(row: Row) -> str:
    setting = row.setting
    race = race_name(setting) + ("" if set(setting.keep) - {setting.strategies} else " (no race)")
    pruner = f"{setting.pruner}*" if setting.judge_small_folds else setting.pruner
    return (
        f"| {race} | {setting.sampler} | {pruner} | {row.trainings:.0f} | {row.epochs:.0f}"
        f" | {row.reached:.0%} | {_count(row.needed)} | {_count(row.needed_epochs)}"
        f" | {row.dice:.4f} | {row.below:.4f} ± {row.error:.4f} | {row.finalists_below:.4f} |"
    )


def _count(value: float | None) -> str:
    return "never" if value is None else f"{value:.0f}"
