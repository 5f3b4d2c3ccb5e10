"""`python tune.py --space NAME [flags] [overrides ...]`: search for the best strategy."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.console import Console

from hsf_tune.cli.compose import Overrides, compose_config, parse_overrides
from hsf_tune.cli.prepare import (
    Prepared,
    describe_dataset,
    new_run_folder,
    note_versions,
    prepare,
    require_new,
    run_files,
    start_tracking,
    write_run_files,
)
from hsf_tune.cli.resume import read_resumed, require_same_data
from hsf_tune.cli.shell import run_command
from hsf_tune.cli.summary import print_plan, print_result
from hsf_tune.cli.winner import test_jobs, write_recommended
from hsf_tune.config import Config
from hsf_tune.data.splits import Splits, make_splits
from hsf_tune.errors import ConfigError
from hsf_tune.finetuning.base import base_comparable
from hsf_tune.finetuning.fit import Placement, place
from hsf_tune.finetuning.probe import (
    StepCost,
    measure_step,
    trials_per_gpu,
    with_measured_resources,
)
from hsf_tune.progress import Expected, Progress
from hsf_tune.records import Records, write_text
from hsf_tune.report import write_report
from hsf_tune.search.race import make_plan
from hsf_tune.search.retention import drop_checkpoints
from hsf_tune.search.run import SearchOutcome, locked, plan_search, run_search
from hsf_tune.search.space import Space, load_space
from hsf_tune.search.space_file import list_spaces

EXAMPLES = """examples:
  python tune.py --space quick                                  # the bundled demo, some minutes
  python tune.py --space default datasets=/data/study/dataset.yaml --dry-run
  python tune.py --space default datasets=/data/study/dataset.yaml --time-budget 8h
  python tune.py --space default datasets=custom_dataset datasets.main_path=/data/hsf \\
      finetuning.out_channels=8 models.use_forgiving_loss=False
  python tune.py --resume NAME                                  # go on after any interruption
"""
_TIME = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m(?:in)?)?(?:(\d+(?:\.\d+)?)s)?")


def main(argv: list[str] | None = None) -> None:
    """The command; exits with 0, 1 (an error that the user can mend), 130 or 143 (stopped)."""
    words = sys.argv[1:] if argv is None else argv
    run_command(lambda: _tune(words))


def _tune(words: list[str]) -> int:
    args = _parser().parse_intermixed_args(words)
    console = Console(soft_wrap=True)
    if args.list_spaces:
        for name, about in list_spaces().items():
            console.print(f"[bold]{name:<10}[/] {about}", highlight=False)
        return 0
    if args.resume:
        config, folder = read_resumed(args.resume, args.output, _flags(args), args.overrides)
        space_name, overrides = str(folder / "space.yaml"), Overrides({}, {}, None)
    else:
        overrides = parse_overrides(args.overrides)
        config, _ = compose_config(overrides, flags=_flags(args), config_dir=args.config_dir)
        space_name = args.space
    prepared = prepare(config, console, "search")
    space = load_space(space_name, config, blocks=prepared.blocks, fixed=_fixed(overrides, args))
    config = space.config
    splits = make_splits(prepared.cases, config.search, config.datasets, config.seed)
    if args.resume:
        require_same_data(folder, describe_dataset(prepared, splits.to_dict()))
    if args.dry_run:
        return _dry_run(prepared, space, splits, console)
    return _search(prepared, space, splits, words, args.resume, console)


def _search(
    prepared: Prepared,
    space: Space,
    splits: Splits,
    words: Sequence[str],
    resume: str | None,
    console: Console,
) -> int:
    config = _fitted_to_gpu(prepared, space.config, console)
    name, folder = new_run_folder(config, f"tune-{space.name}")
    with locked(folder):
        if resume is None:
            require_new(folder, name)
            write_run_files(folder, config, prepared, splits.to_dict(), ["tune.py", *words])
            text = yaml.safe_dump(space.to_dict(), sort_keys=False, allow_unicode=True)
            write_text(folder / "space.yaml", text)
        for note in splits.notes:
            console.print(f"Note: {note}", highlight=False)
        return _run(prepared, config, space, splits, name, folder, console)


def _run(
    prepared: Prepared,
    config: Config,
    space: Space,
    splits: Splits,
    name: str,
    folder: Path,
    console: Console,
) -> int:
    """Run or go on with a search in its folder, and say what it found."""
    records = Records(folder)
    note_versions(records)
    tracker = start_tracking(config, folder, name, records, console, nested=True)
    comparable = base_comparable(prepared.base, config)
    planned = plan_search(config, space, splits, base_comparable=comparable)
    console.print(f"Search {name}: {planned.trials} trials -> {folder}", highlight=False)
    expected = {arm: Expected(*work) for arm, work in planned.expected.items()}
    status = "failed"
    try:
        with Progress(expected, title=name, console=console) as progress:
            progress.resume(records)
            outcome = run_search(
                config,
                space,
                splits,
                folder,
                records,
                base_comparable=comparable,
                observers=[*([tracker] if tracker else []), progress],
                choose_test=lambda _: test_jobs(folder, config, splits),
            )
        status = outcome.status if outcome.status != "time_budget" else "finished"
        return _finish(prepared, config, splits, folder, records, outcome, console)
    finally:
        if tracker:
            tracker.log_artifacts(run_files(folder))
            tracker.close(timeout_s=60, status=status)
        if status == "finished":
            drop_checkpoints(records, config.search.keep_checkpoints)


def _finish(
    prepared: Prepared,
    config: Config,
    splits: Splits,
    folder: Path,
    records: Records,
    outcome: SearchOutcome,
    console: Console,
) -> int:
    """Tables and report for what is done, however the search ended."""
    records.write_tables()
    report = write_report(folder)
    folds = {split.fold: split for split in splits.explore}
    recommended, threads = report.summary["recommendation"], outcome.resources.threads
    write_recommended(folder, prepared, config, records, folds, recommended, threads)
    print_result(report.summary, folder, console)
    if outcome.status == "interrupted":
        console.print(
            f"Stopped. Go on with: python tune.py --resume {folder.name}", highlight=False
        )
    if outcome.failed_arms:
        console.print(
            f"[bold red]Every trial failed[/] of: {', '.join(outcome.failed_arms)}. The reasons are"
            f" in {folder}/trials.jsonl.",
            highlight=False,
        )
        return outcome.exit_code or 1
    return outcome.exit_code


def _dry_run(prepared: Prepared, space: Space, splits: Splits, console: Console) -> int:
    config = space.config
    placement, cost = _measured(prepared, config)
    comparable = base_comparable(prepared.base, config)
    plan = make_plan(space, config.search, splits, config.seed, base=comparable)
    workers = config.search.max_concurrent or _workers_here(config, placement, cost)
    expected = plan_search(config, space, splits, base_comparable=comparable)
    print_plan(prepared, space, splits, plan, expected, cost, placement, workers, console)
    return 0


def _measured(prepared: Prepared, config: Config) -> tuple[Placement, StepCost]:
    placement = place(config, int(config.search.cpus_per_trial or 1))
    cost = measure_step(
        config,
        prepared.base,
        prepared.store,
        prepared.cases,
        placement.device,
        placement.precision,
        placement.threads,
    )
    return placement, cost


def _fitted_to_gpu(prepared: Prepared, config: Config, console: Console) -> Config:
    """What the GPU's memory allows, where there is a GPU; the configuration as it is elsewhere."""
    if place(config, 1).accelerator != "gpu" or config.search.address:
        return config
    placement, cost = _measured(prepared, config)
    memory = torch.cuda.get_device_properties(placement.device).total_memory
    fitted = with_measured_resources(config, cost, memory)
    share = fitted.search.gpus_per_trial or 1.0
    twice = ", with activation checkpointing" if cost.checkpointing else ""
    console.print(
        f"GPU: a step on the largest case takes {cost.peak_bytes / 2**30:.1f} GiB{twice};"
        f" {1 / share:.0f} trials share a GPU",
        highlight=False,
    )
    return fitted


def _workers_here(config: Config, placement: Placement, cost: StepCost) -> int:
    """Trials side by side on this machine."""
    if placement.accelerator == "cpu":
        return max(1, int((os.cpu_count() or 1) // (config.search.cpus_per_trial or 1)))
    memory = torch.cuda.get_device_properties(placement.device).total_memory
    share = config.search.gpus_per_trial or 1 / trials_per_gpu(cost, memory)
    return max(1, int(torch.cuda.device_count() / share + 1e-9))


def _flags(args: argparse.Namespace) -> dict[str, Any]:
    """Dotted keys of the flags that were given."""
    return {
        "name": args.name,
        "output": args.output,
        "seed": args.seed,
        "search.strategies_per_arm": args.strategies_per_arm,
        "search.time_budget_s": _seconds(args.time_budget),
        "search.confirm": False if args.no_confirm else None,
        "search.max_concurrent": args.max_concurrent,
        "search.cpus_per_trial": args.cpus_per_trial,
        "search.gpus_per_trial": args.gpus_per_trial,
        "search.address": args.address,
    }


def _fixed(overrides: Overrides, args: argparse.Namespace) -> dict[str, Any]:
    """Keys that the command line or a strategy file sets, and the space no more."""
    flags = {key: value for key, value in _flags(args).items() if value is not None}
    return {**overrides.values, **flags}


def _seconds(text: str | None) -> float | None:
    """'2h', '90m', '1h30m' or '45s' in seconds."""
    if text is None:
        return None
    match = _TIME.fullmatch(text.strip().lower())
    if match is None or not any(match.groups()):
        raise ConfigError(f"--time-budget {text}: expected a time such as 2h, 90m or 1h30m.")
    hours, minutes, seconds = (float(part or 0) for part in match.groups())
    return hours * 3600 + minutes * 60 + seconds


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tune.py",
        description="Search for the best way to finetune HSF's segmentation network on your data.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("overrides", nargs="*", metavar="key=value", help="configuration overrides")
    add("--space", default="default", metavar="NAME_OR_PATH", help="search space; default: default")
    add("--list-spaces", action="store_true", help="show the spaces that come with the tool")
    add("--dry-run", action="store_true", help="show what would run, and for how long; run nothing")
    add("--name", help="of the run; default: tune-SPACE-DATASET-TIME")
    add("--output", metavar="DIR", help="folder of all runs; default: outputs")
    add("--resume", metavar="NAME", help="go on with an interrupted run")
    add("--strategies-per-arm", type=int, metavar="N", help="strategies that each arm tries")
    add("--time-budget", metavar="2h", help="start no new trial after this time")
    add("--no-confirm", action="store_true", help="skip the comparison of the finalists")
    add("--max-concurrent", type=int, metavar="N", help="trials at a time; default: what fits")
    add("--cpus-per-trial", type=float, metavar="X", help="CPU threads of a trial; default: 1")
    add("--gpus-per-trial", type=float, metavar="X", help="share of a GPU; default: measured")
    add("--address", metavar="ADDR", help="of an existing Ray cluster, or 'auto'")
    add("--seed", type=int, metavar="N", help="default: 42")
    add("--config-dir", type=Path, metavar="DIR", help="folder with datasets/NAME.yaml of yours")
    return parser
