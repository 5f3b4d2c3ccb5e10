"""`python -m benchmarks.replay TABLE`: compare searches by replaying them from a recorded grid."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.replay.compare import (
    compare,
    default_races,
    markdown,
    settings_of,
    summary,
)
from benchmarks.replay.simulate import TOLERANCE
from benchmarks.replay.table import GridTable, load_table
from hsf_tune.cli.parser import Add, Command
from hsf_tune.cli.shell import Screen
from hsf_tune.errors import ConfigError
from hsf_tune.machine import cpu_count
from hsf_tune.search.samplers import SAMPLERS


def replay(args: argparse.Namespace, _: Sequence[str], console: Screen) -> int:
    """Replay what was asked for and print the tables; the exit code."""
    table = load_table(args.table)
    _require_complete(table, args.table)
    races = args.races or default_races(table)
    settings = settings_of(table, races, args.samplers, args.pruners, args.startup)
    for setting in settings:
        if len(setting.keep) >= len(table.folds):
            raise ConfigError(
                f"a race over {len(setting.keep) + 1} folds was asked for; {args.table} holds"
                f" {len(table.folds)}. Keep strategies on at most {len(table.folds) - 1} later"
                " folds."
            )
    print(summary(table, args.tolerance), end="\n\n", flush=True)
    started = time.perf_counter()
    rows = compare(
        table,
        settings,
        searches=args.searches,
        seed=args.seed,
        workers=args.workers,
        processes=args.processes,
        tolerance=args.tolerance,
    )
    print(markdown(table, rows, args.tolerance))
    seconds, n = time.perf_counter() - started, len(settings) * args.searches
    print(
        f"\n{args.searches} searches a row with {args.workers} workers each; {n} searches in"
        f" {seconds:.0f} s by {args.processes} processes, {1000 * seconds / n:.0f} ms each."
    )
    return 0


def _require_complete(table: GridTable, path: Path) -> None:
    missing, planned = len(table.missing()), len(table.strategies) * len(table.folds)
    if missing:
        raise ConfigError(
            f"{path} lacks {missing} of {planned} trainings; a search may ask for any of them. Go"
            " on recording with the same command of benchmarks.record_grid."
        )


def _arguments(add: Add) -> None:
    add("table", type=Path, help="file written by benchmarks.record_grid")
    add("--races", nargs="+", metavar="N/K,K,K", help="default: several of equal cost")
    add("--samplers", nargs="+", default=list(SAMPLERS), choices=SAMPLERS)
    add(
        "--pruners", nargs="+", default=["none", "median"], choices=["none", "median"],
        help="those after the first are tried with the first race only",
    )  # fmt: skip
    add("--startup", type=int, default=4, metavar="N", help="n_startup_trials of TPE; default: 4")
    add("--searches", type=int, default=100, metavar="N", help="replays a row; default: 100")
    add("--workers", type=int, default=2, metavar="N", help="of each search; default: 2")
    add("--tolerance", type=float, default=TOLERANCE, metavar="DICE", help="default: 0.005")
    add("--seed", type=int, default=0, metavar="N", help="of the first search; default: 0")
    cpus = cpu_count()
    add("--processes", type=int, default=cpus, metavar="N", help=f"default: all CPUs, {cpus} here")


REPLAY = Command(
    "Compare samplers, pruners and races by replaying searches from a recorded grid: the real"
    " race, studies and pruner, only the trainings are looked up.",
    "benchmarks.replay.__main__:replay",
    _arguments,
    """examples:
  %(prog)s grid.json
  %(prog)s grid.json --races 12/6,3,3 16/8 --samplers tpe random --searches 500

A race of 12/6,3,3 tries 12 strategies an arm on fold 1, keeps 6 on fold 2 and 3 on folds 3 and 4;
6/6,6,6 is no race. The true Dice of a strategy is its mean over all recorded folds. A search asks
for rates between the recorded ones; the nearest, in the logarithm, answers. "Needed" is the median
over searches of the trainings after which what the search would pick is within the tolerance of
the grid's best and stays so; "never" where that is not so for half of them.
""",
)


def main(words: Sequence[str] | None = None) -> None:
    """The command; exits with 0, 1 (no such table) or 130 (Ctrl-C)."""
    REPLAY.run("python -m benchmarks.replay", words)


if __name__ == "__main__":
    main()
