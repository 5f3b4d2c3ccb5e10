"""`python -m benchmarks.record_grid`: train a grid of strategies once, to replay searches from.

The recording is a search like any other, over a space that is a grid and with nothing
left out; the same command goes on after any interruption. Checkpoints are deleted as
soon as their training has ended.
"""

from __future__ import annotations

import argparse
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.replay.grid import (
    FOLDS,
    RATES,
    SMALL_RATES,
    every_strategy,
    grid_of,
    recording_settings,
    small_space,
    table_of,
)
from benchmarks.replay.table import GridTable
from hsf_tune.cli.compose import compose_config, parse_overrides
from hsf_tune.cli.parser import Add, Command
from hsf_tune.cli.prepare import Prepared, prepare
from hsf_tune.cli.shell import Screen
from hsf_tune.config import Config
from hsf_tune.data.splits import Split, Splits, make_splits
from hsf_tune.errors import ConfigError
from hsf_tune.files import write_text
from hsf_tune.progress import Expected, Progress
from hsf_tune.records import Event, Records, TrialEnded
from hsf_tune.run_folder import RunFolder
from hsf_tune.search.run import SearchOutcome, run_search
from hsf_tune.search.space import Space, build_space, load_space
from hsf_tune.strategy import LR

DEMO_SECONDS = (25, 35)  # CPU seconds of one demo training of 20 epochs


@dataclass(frozen=True)
class _Recording:
    """What is recorded, and how it is replayed afterwards.

    Attributes:
        content: the space to replay.
        grid: the space to record.
        config: of the recording.
    """

    content: Mapping[str, Any]
    points: Mapping[str, Sequence[float]]
    grid: Space
    config: Config
    splits: Splits
    folder: Path

    @property
    def explore(self) -> tuple[Split, ...]:
        return self.splits.explore

    def strategies(self) -> Counter[str]:
        """Arm -> number of its strategies."""
        return Counter(arm for arm, _ in every_strategy(self.grid))

    def table(self, records: Records) -> GridTable:
        """What has been recorded so far."""
        return table_of(records, self.grid, self.content, self.points, self.config, self.explore)


def record(args: argparse.Namespace, _: Sequence[str], console: Screen) -> int:
    """Train what is missing of the grid and write the table; the exit code."""
    name = args.name or ("grid-small" if args.small else f"grid-{Path(args.space).stem}")
    config, _saved = compose_config(
        parse_overrides(args.overrides),
        flags={"name": name, "output": args.output, "search.folds": args.folds,
               "search.keep": [1] * (args.folds - 1), "search.max_concurrent": args.max_concurrent},
    )  # fmt: skip
    prepared = prepare(config, console, "search")
    recording = _lay_grid(args, config, prepared)
    _show_size(recording, console)
    if args.dry_run:
        return 0
    _claim_folder(recording)
    records = Records(recording.folder)
    outcome = _run(recording, records, console)
    table, path = recording.table(records), args.table or recording.folder / "table.json"
    table.save(path)
    missing = len(table.missing())
    console.print(
        f"{len(table.trainings)} trainings in {path}"
        + (f"; {missing} are missing. The same command goes on." if missing else "."),
    )
    return outcome.exit_code


def _lay_grid(args: argparse.Namespace, config: Config, prepared: Prepared) -> _Recording:
    blocks = prepared.blocks
    if args.small:
        space = build_space("small", small_space(), config, blocks, {}, "--small")
    else:
        space = load_space(args.space, config, blocks=blocks)
    content = space.to_dict()
    points = {LR: args.rates or (SMALL_RATES if args.small else RATES)}
    laid = grid_of(content, points)
    grid = build_space(space.name, laid, space.config, blocks, {}, "the grid")
    most = max(Counter(arm for arm, _ in every_strategy(grid)).values())
    config = grid.config.with_values(recording_settings(args.folds, most))
    splits = make_splits(prepared.cases, config.search, config.datasets, config.seed)
    folder = Path(config.output) / str(config.name)
    return _Recording(content, points, grid, config, splits, folder)


def _show_size(recording: _Recording, console: Screen) -> None:
    strategies, folds = recording.strategies(), len(recording.explore)
    trainings = sum(strategies.values()) * folds
    arms = ", ".join(f"{arm} {n}" for arm, n in strategies.items())
    text = (
        f"Grid: {sum(strategies.values())} strategies ({arms}) on {folds} folds, {trainings}"
        f" trainings of {recording.config.lightning.max_epochs} epochs -> {recording.folder}"
    )
    if recording.config.datasets.base == "demo" and recording.config.lightning.max_epochs == 20:
        low, high = (seconds * trainings / 60 for seconds in DEMO_SECONDS)
        text += f"; {low:.0f} to {high:.0f} CPU minutes"
    console.print(text)


def _run(recording: _Recording, records: Records, console: Screen) -> SearchOutcome:
    folds, epochs = len(recording.explore), recording.config.lightning.max_epochs
    assert isinstance(epochs, int)
    expected = {
        arm: Expected(n * folds, n * folds * epochs) for arm, n in recording.strategies().items()
    }
    with Progress(expected, title=str(recording.config.name), console=console) as progress:
        progress.resume(records)
        return run_search(
            recording.config,
            recording.grid,
            recording.splits,
            recording.folder,
            records,
            observers=[_Discard(recording.folder), progress],
        )


@dataclass(frozen=True)
class _Discard:
    """Deletes the files of each training that ended: only its numbers are kept."""

    folder: Path

    def __call__(self, event: Event) -> None:
        if isinstance(event, TrialEnded):
            shutil.rmtree(RunFolder(self.folder).trial(event.trial).path, ignore_errors=True)


def _claim_folder(recording: _Recording) -> None:
    """Write down what is recorded; go on only with what was begun there.

    Raises:
        ConfigError: the folder holds another recording.
    """
    config = recording.config.to_dict()
    resources = ("max_concurrent", "cpus_per_trial", "gpus_per_trial", "address", "max_retries")
    config["search"] = {k: v for k, v in config["search"].items() if k not in resources}
    files = RunFolder(recording.folder)
    for path, plain in ((files.config, config), (files.space, recording.grid.to_dict())):
        text = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)
        if path.exists() and path.read_text(encoding="utf-8") != text:
            raise ConfigError(
                f"{path} differs from what is to be recorded now. Give this recording another"
                " --name, or repeat the command that began the one there."
            )
        write_text(path, text)


def _rates(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(","))


def _listed(rates: Sequence[float]) -> str:
    return ",".join(f"{rate:g}" for rate in rates)


def _arguments(add: Add) -> None:
    add("overrides", nargs="*", metavar="key=value", help="configuration overrides")
    add("--space", default="default", metavar="NAME_OR_PATH", help="space to lay the grid over")
    add("--small", action="store_true", help="instead of a space: 40 trainings, in minutes")
    add("--rates", type=_rates, metavar="LR,LR", help=f"default: {_listed(RATES)}, or 5 if small")
    add("--folds", type=int, default=FOLDS, metavar="N", help=f"default: {FOLDS}")
    add("--dry-run", action="store_true", help="say how many trainings it takes; run nothing")
    add("--table", type=Path, metavar="FILE", help="default: <output>/<name>/table.json")
    add("--name", help="of the recording; default: grid-SPACE")
    add("--output", metavar="DIR", help="folder of all runs; default: outputs")
    add("--max-concurrent", type=int, metavar="N", help="trainings at a time; default: what fits")


RECORD_GRID = Command(
    "Train every strategy of a grid on every fold and keep the curves, so that benchmarks.replay"
    " can replay searches without training.",
    "benchmarks.record_grid:record",
    _arguments,
    """examples:
  %(prog)s --dry-run            # what the default space's grid would take
  %(prog)s                      # the demo; hours. Stop and repeat at will
  %(prog)s --small              # 40 trainings: either half, five rates
  python -m benchmarks.replay outputs/grid-small/table.json
""",
)


def main() -> None:
    """The command; exits with 0, 1 (an error that the user can mend), 130 or 143 (stopped)."""
    RECORD_GRID.run("python -m benchmarks.record_grid")


if __name__ == "__main__":
    main()
