"""The flow of a search: prepare, plan, run, report. `tune.py` reads its command line."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.text import Text

from hsf_tune.cli.compose import compose_config, parse_overrides
from hsf_tune.cli.disk import estimate, require_room, used_bytes
from hsf_tune.cli.placement import fitted_to_gpu, measured, side_by_side, workers_here
from hsf_tune.cli.prepare import (
    Prepared,
    new_run_folder,
    note_versions,
    prepare,
    require_new,
    start_tracking,
    write_run_files,
)
from hsf_tune.cli.resume import (
    Earlier,
    accepted_changes,
    asked_for,
    configuration_note,
    describe_changes,
    open_earlier,
    places_of,
    require_same_data,
    require_same_space,
    tracking_word,
)
from hsf_tune.cli.shell import Screen
from hsf_tune.cli.summary import print_plan, print_result
from hsf_tune.cli.winner import test_jobs, write_recommended
from hsf_tune.config import Config
from hsf_tune.data.splits import Splits, make_splits
from hsf_tune.errors import ConfigError
from hsf_tune.finetuning.base import base_comparable
from hsf_tune.installed import typed
from hsf_tune.interrupt import deferring
from hsf_tune.progress import Expected, Progress
from hsf_tune.records import Records, SearchInterrupted, sole_writer
from hsf_tune.records.tables import write_tables
from hsf_tune.report import write_report
from hsf_tune.run_folder import RunFolder
from hsf_tune.search.race import plan_race
from hsf_tune.search.retention import drop_checkpoints
from hsf_tune.search.run import (
    SearchOutcome,
    forget_studies,
    plan_search,
    retry_failed,
    run_search,
    study_file,
)
from hsf_tune.search.space import Space, build_space, load_space
from hsf_tune.search.space_file import constants_of, find_space, read_space


def tune(args: argparse.Namespace, words: Sequence[str], console: Screen) -> int:
    """Prepare, plan, search and report; the exit code.

    Args:
        args: the parsed command line, the time budget in seconds.
        words: the command line as it was typed, to be written down.
    """
    overrides = parse_overrides(args.overrides)
    if args.retry_failed and args.resume is None:
        raise ConfigError("--retry-failed tries trials of an earlier run again: --resume NAME.")
    earlier = _earlier(args) if args.resume is not None else None
    if earlier is None:
        file = find_space(args.space or "default")
        content = read_space(file)
        config, _ = compose_config(
            overrides,
            space_constants=constants_of(content),
            flags=_flags(args),
            config_dir=args.config_dir,
        )
        fixed = {**overrides.values, **_given(_flags(args))}
    else:
        config = asked_for(earlier, overrides, _flags(args), args.config_dir)
        if places := places_of(earlier, config):
            console.say(f"as the run's folder says, {places}", "Note")
        fixed = accepted_changes(earlier, config)
    prepared = prepare(config, console, "search")
    if earlier is None:
        space = build_space(file.stem, content, config, prepared.blocks, fixed, str(file))
        splits = make_splits(prepared.cases, space.config.search, config.datasets, config.seed)
    else:
        require_same_data(earlier, prepared)
        space = load_space(str(earlier.files.space), config, blocks=prepared.blocks, fixed=fixed)
        require_same_space(earlier, space)
        if args.space:
            own = {**overrides.values, **fixed}
            other = load_space(args.space, config, blocks=prepared.blocks, fixed=own)
            require_same_space(earlier, other)
        splits = earlier.splits
    if args.dry_run:
        return _dry_run(prepared, space, splits, console)
    if args.retry_failed and earlier is not None:
        _retry_failed(earlier, space.config, console)
    return _search(prepared, space, splits, words, earlier, console)


def _search(
    prepared: Prepared,
    space: Space,
    splits: Splits,
    words: Sequence[str],
    earlier: Earlier | None,
    console: Screen,
) -> int:
    config = space.config
    fitted = fitted_to_gpu(prepared, config, console)  # to this machine; not what the run is of
    name, folder = new_run_folder(config, f"tune-{space.name}")
    _require_room(prepared, fitted, space, splits, folder, console)
    with sole_writer(folder):
        if earlier is None:
            require_new(folder, name)
            _start_clean(folder, config)
        records = Records(folder)
        _write_down(prepared, config, space, splits, words, earlier, records, console)
        for note in splits.notes:
            console.print(f"Note: {note}")
        return _run(prepared, config, fitted, space, splits, records, console)


def _run(
    prepared: Prepared,
    config: Config,
    fitted: Config,
    space: Space,
    splits: Splits,
    records: Records,
    console: Screen,
) -> int:
    """Search and report.

    Args:
        config: what the run is made of.
        fitted: the same with what this machine's GPU allows; what trials run with here,
            and `finetune.py` after them, which measures nothing.
    """
    folder, name = records.folder, records.folder.name
    note_versions(records)
    tracker = start_tracking(config, folder, name, records, console, nested=True)
    comparable = base_comparable(prepared.base, config)
    planned = plan_search(config, space, splits, base_comparable=comparable)
    done = sum(record.ended is not None for record in records.trials.values())
    going_on = f", {done} of them done" if done else ""
    console.print(
        f"Search {name} in the space {space.name}: {planned.trials} trials{going_on} -> {folder}",
    )
    expected = {arm: Expected(*work) for arm, work in planned.expected.items()}
    status, complete, patience_s = "failed", False, 60.0
    with deferring() as interrupt:  # from here on a signal leaves the time to write the report
        try:
            with Progress(expected, title=name, console=console) as progress:
                progress.resume(records)
                outcome = run_search(
                    fitted,
                    space,
                    splits,
                    folder,
                    records,
                    base_comparable=comparable,
                    observers=[*([tracker] if tracker else []), progress],
                    choose_test=lambda _: test_jobs(folder, config, splits),
                    interrupt=interrupt,
                )
            cut = isinstance(outcome.end, SearchInterrupted)
            status = "interrupted" if cut else "finished"
            complete = outcome.status == "finished"
            code = _finish(prepared, fitted, splits, folder, records, outcome, console)
        except KeyboardInterrupt:  # a second Ctrl-C stops at once
            patience_s = 0.0
            raise
        finally:
            lacking = 0
            if tracker:
                tracker.log_artifacts(records.files.to_show)
                lacking = tracker.close(timeout_s=patience_s, status=status)
            if complete and not lacking:  # else weights are still to be sent, or to go on from
                _drop_checkpoints(records, config.search.keep_checkpoints, console)
    if interrupt.signal and complete:
        console.say("Stopped when all trials had ended; the report is written.")
    return interrupt.exit_code or code


def _start_clean(folder: Path, config: Config) -> None:
    """Remove what a run stopped before its first trial left, perhaps in another space."""
    RunFolder(folder).claim(study_file(config, folder))
    forget_studies(config, folder)


def _drop_checkpoints(records: Records, keep: str, console: Screen) -> None:
    freed = drop_checkpoints(records, keep)
    if freed:
        console.print(
            f"Removed the weights of trials that are not finalists: {freed / 1e6:.0f} MB"
            f" (search.keep_checkpoints={keep})",
        )


def _require_room(
    prepared: Prepared,
    config: Config,
    space: Space,
    splits: Splits,
    folder: Path,
    console: Screen,
    *,
    refuse: bool = True,
) -> None:
    """Say how much disk the search takes, and refuse where it clearly is not there."""
    comparable = base_comparable(prepared.base, config)
    plan = plan_race(space, config.search, splits, config.seed, base=comparable)
    expected = plan_search(config, space, splits, base_comparable=comparable)
    use = estimate(config, prepared.base, plan, expected, side_by_side(config))
    used = used_bytes(folder)
    console.print(use.describe(config, folder, used))
    if refuse:
        require_room(use, config, folder, used)


def _write_down(
    prepared: Prepared,
    config: Config,
    space: Space,
    splits: Splits,
    words: Sequence[str],
    earlier: Earlier | None,
    records: Records,
    console: Screen,
) -> None:
    """What the run is made of, as files and in its records; again where something changed."""
    changes = ""
    if earlier is not None:
        accepted = accepted_changes(earlier, config)
        if earlier.noted and not accepted:
            return
        changes = describe_changes(earlier, accepted)
        if changes:
            console.print(f"Note: {changes}")
    command = earlier.command if earlier else shlex.join(["tune.py", *words])
    draw = earlier is None
    with records.files.writing():
        records.files.write_space(space.to_dict())
    write_run_files(records.folder, config, prepared, splits.to_dict(), command, draw=draw)
    records.append(configuration_note(config, space, changes))


def _finish(
    prepared: Prepared,
    config: Config,
    splits: Splits,
    folder: Path,
    records: Records,
    outcome: SearchOutcome,
    console: Screen,
) -> int:
    """Tables and report for what is done, however the search ended."""
    with records.files.writing():
        write_tables(records)
        report = write_report(folder)
        folds = {split.fold: split for split in splits.explore}
        recommended, threads = report.summary["recommendation"], outcome.resources.threads
        write_recommended(folder, prepared, config, records, folds, recommended, threads)
    print_result(report.summary, folder, console)
    if outcome.status != "finished":
        elsewhere = [] if config.output == "outputs" else ["--output", config.output]
        again = typed("tune", "--resume", folder.name, *elsewhere)
        console.print(f"Stopped. Go on with: {again} {tracking_word(config)}".rstrip())
    if outcome.failed_arms:
        console.print(
            Text.assemble(
                ("Every trial failed", "bold red"),
                f" of: {', '.join(outcome.failed_arms)}. The reasons are in {records.path};"
                f" --resume {folder.name} --retry-failed tries them again.",
            )
        )
        return outcome.exit_code or 1
    return outcome.exit_code


def _dry_run(prepared: Prepared, space: Space, splits: Splits, console: Screen) -> int:
    config = space.config
    placement, cost = measured(prepared, config)
    comparable = base_comparable(prepared.base, config)
    plan = plan_race(space, config.search, splits, config.seed, base=comparable)
    workers = config.search.max_concurrent or workers_here(config, placement, cost)
    expected = plan_search(config, space, splits, base_comparable=comparable)
    print_plan(prepared, space, splits, plan, expected, cost, placement, workers, console)
    _, folder = new_run_folder(config, f"tune-{space.name}")
    _require_room(prepared, config, space, splits, folder, console, refuse=False)
    return 0


def _retry_failed(earlier: Earlier, config: Config, console: Screen) -> None:
    with sole_writer(earlier.folder):
        trials = retry_failed(Records(earlier.folder), config)
    tried = f"tried again: {', '.join(trials)}" if trials else "no trial has failed"
    console.print(f"--retry-failed: {tried}")


def _earlier(args: argparse.Namespace) -> Earlier:
    """The run that `--resume` names.

    Raises:
        ConfigError: there is none, or `--name` names another.
    """
    if args.name not in (None, args.resume):
        raise ConfigError(
            f"--resume {args.resume} goes on under that name; leave --name {args.name} away."
        )
    return open_earlier(Path(args.output or "outputs") / args.resume)


def _flags(args: argparse.Namespace) -> dict[str, Any]:
    """Dotted keys of the flags that were given."""
    return {
        "name": args.name,
        "output": args.output,
        "seed": args.seed,
        "search.strategies_per_arm": args.strategies_per_arm,
        "search.time_budget_s": args.time_budget,
        "search.confirm": False if args.no_confirm else None,
        "search.max_concurrent": args.max_concurrent,
        "search.cpus_per_trial": args.cpus_per_trial,
        "search.gpus_per_trial": args.gpus_per_trial,
        "search.address": args.address,
    }


def _given(flags: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in flags.items() if value is not None}
