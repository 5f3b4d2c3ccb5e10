"""`python -m benchmarks.grids.record TABLE.csv [overrides ...]`: record a grid of trainings.

Every strategy of `tasks.py` is trained at every length on two folds, with the product's own
`fit`; one row a training is appended as it ends, so that the same command goes on after any
interruption. Only numbers are kept.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import sys
import tempfile
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks.grids.coarse import coarser
from benchmarks.grids.tasks import EPOCHS, Training, planned
from hsf_tune.cli.compose import compose_config, parse_overrides
from hsf_tune.config import Config, config_from_dict
from hsf_tune.data.cases import find_cases
from hsf_tune.data.splits import Split, make_splits
from hsf_tune.finetuning.base import blocks_of, get_base
from hsf_tune.finetuning.fit import TrialSpec, fit
from hsf_tune.finetuning.strategy import canonical
from hsf_tune.records import EpochEnded, Event, subject_means

COLUMNS = ("arm", "depth", "share", "lr", "steps", "fold", "seed", "dice", "seconds", "subjects", "curve")  # fmt: skip


@dataclass(frozen=True)
class Task:
    """What every training of a grid shares; plain data that travels to the workers."""

    config: dict[str, Any]
    scratch: dict[str, Any]  # the values that make the same network start from random weights
    splits: dict[int, dict[str, Any]]


def main(words: list[str]) -> None:
    args = _parser().parse_args(words)
    config, _ = compose_config(parse_overrides(args.overrides), flags={})
    if args.coarser != 1:
        config = coarser(config, args.coarser, args.work / f"coarser-{args.coarser:g}")
    task = _task(config)
    done = read_table(args.table)
    with ProcessPoolExecutor(args.workers, get_context("spawn")) as pool:
        running: dict[Future[dict[str, Any]], Training] = {}
        while True:
            known = {**done, **{t.key: 0.0 for t in running.values()}}
            todo = [t for t in planned(config.seed, done) if t.key not in known]
            for training in todo[: args.workers - len(running)]:
                running[pool.submit(_train, task, training, args.work)] = training
            if not running:
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                training, row = running.pop(future), future.result()
                append_row(args.table, row)
                done[training.key] = row["dice"]
                print(f"{len(done)} of {len(done) + len(todo)}  {training.name}  {row['dice']:.4f}"
                      f"  {row['seconds']:.0f} s", flush=True)  # fmt: skip


def _task(config: Config) -> Task:
    config = config.with_values({"search.folds": 2, "search.keep": [1], "search.confirm": False,
                                 "lightning.accumulate_grad_batches": 1})  # fmt: skip
    network = get_base(config).architecture
    scratch = {"models.checkpoint": "none", "models.f_maps": network.f_maps,
               "models.num_levels": network.num_levels, "models.use_attention": network.use_attention}  # fmt: skip
    splits = make_splits(find_cases(config.datasets), config.search, config.datasets, config.seed)
    return Task(config.to_dict(), scratch, {s.fold: s.to_dict() for s in splits.explore})


def _train(task: Task, training: Training, work: Path) -> dict[str, Any]:
    """One training, in a process of its own; its row."""
    config = config_from_dict(task.config)
    config = config.with_values({"lightning.steps_per_epoch": training.steps // EPOCHS})
    recipe = training.recipe
    if recipe.arm == "scratch":
        config = config.with_values(task.scratch)
    strategy = canonical(recipe.strategy(), config, blocks_of(get_base(config)))
    split = Split.from_dict(task.splits[training.fold])
    curve: list[float] = []

    def on_event(event: Event) -> None:
        if isinstance(event, EpochEnded):
            curve.append(round(event.metrics["val_dice"], 4))

    spec = TrialSpec(training.name, recipe.arm, strategy, split, training.seed)
    folder = work / training.name
    shutil.rmtree(folder, ignore_errors=True)
    ended = fit(config, spec, folder, on_event)
    shutil.rmtree(folder, ignore_errors=True)
    subjects = {name: round(value, 4) for name, value in subject_means(ended.scores).items()}
    assert ended.dice is not None
    values = (*training.key, round(ended.dice, 5), round(ended.seconds, 1))
    return dict(zip(COLUMNS, (*values, json.dumps(subjects), json.dumps(curve)), strict=True))


def read_table(path: Path) -> dict[tuple[Any, ...], float]:
    """Key of each recorded training -> its Dice."""
    if not path.exists():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        return {_key(row): float(row["dice"]) for row in csv.DictReader(file)}


def append_row(path: Path, row: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists()
    with path.open("a", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(row)


def _key(row: dict[str, str]) -> tuple[Any, ...]:
    return (row["arm"], int(row["depth"]), float(row["share"]), float(row["lr"]),
            int(row["steps"]), int(row["fold"]), int(row["seed"]))  # fmt: skip


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.grids.record", description=__doc__)
    add = parser.add_argument
    add("table", type=Path, help="CSV that rows are appended to")
    add("overrides", nargs="*", metavar="key=value", help="configuration overrides")
    add("--coarser", type=float, default=1.0, metavar="X", help="enlarge voxels X times")
    add("--workers", type=int, default=1, metavar="N", help="trainings side by side, a thread each")
    add("--work", type=Path, default=Path(tempfile.gettempdir()) / "hsf-tune-grid", metavar="DIR",
        help="scratch folder")  # fmt: skip
    return parser


if __name__ == "__main__":
    main(sys.argv[1:])
