"""The flow of one finetuning: prepare, split, train, save. `finetune.py` reads its command line."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

from hsf_tune.cli.compose import compose_config, parse_overrides
from hsf_tune.cli.prepare import (
    Prepared,
    new_run_folder,
    note_versions,
    prepare,
    start_tracking,
    write_run_files,
    write_through,
)
from hsf_tune.cli.resume import (
    Earlier,
    accepted_changes,
    configuration_note,
    open_earlier,
    require_same_data,
)
from hsf_tune.cli.shell import Screen
from hsf_tune.cli.winner import save_trial
from hsf_tune.config import Config, get_value
from hsf_tune.data.splits import Split, finetune_split, named_test_set
from hsf_tune.errors import ConfigError
from hsf_tune.finetuning.fit import fit
from hsf_tune.finetuning.length import ENOUGH_STEPS, epoch_length
from hsf_tune.finetuning.schedule import make_schedule
from hsf_tune.finetuning.strategy import SavedStrategy, canonical
from hsf_tune.installed import typed
from hsf_tune.interrupt import Stopped
from hsf_tune.machine import cpu_count
from hsf_tune.progress import Expected, Progress
from hsf_tune.records import Records, TrialEnded, TrialSpec, sole_writer
from hsf_tune.records.tables import write_tables
from hsf_tune.run_folder import RunFolder
from hsf_tune.strategy import Strategy

TRIAL = "finetune-1"  # the one trial of a run


def finetune(args: argparse.Namespace, words: Sequence[str], console: Screen) -> int:
    """Prepare, split, train and save; the exit code.

    Args:
        args: the parsed command line.
        words: the command line as it was typed, to be written down.
    """
    flags = {"name": args.name, "output": args.output, "seed": args.seed}
    config, saved = compose_config(
        parse_overrides(args.overrides), flags=flags, config_dir=args.config_dir
    )
    prepared = prepare(config, console, "finetune")
    config = _as_saved(config, saved, args.overrides)
    strategy = _strategy(prepared, config, saved)
    threads = args.threads or (saved.threads if saved else cpu_count())
    _warn(prepared, config, strategy, console)
    name, folder = new_run_folder(config, "finetune")
    console.print(f"Strategy: {strategy.describe()}\nFolder: {folder}")
    with sole_writer(folder):
        records = Records(folder)
        split = _begin(prepared, config, saved, words, records, console)
        key = prepared.store.key
        spec = TrialSpec(TRIAL, "single", strategy, split, config.seed, key, phase="finetune")
        _say_length(spec, prepared, config, console)
        try:
            ended = _train(prepared, config, spec, records, console, threads)
        except Stopped as stopped:
            given = [] if args.name else ["--name", name]
            again = typed("finetune", *words, *given)
            console.say(f"Stopped {_after(records)}. Go on with: {again}")
            return stopped.exit_code
    _print_result(ended, folder, console)
    return 0


def _begin(
    prepared: Prepared,
    config: Config,
    saved: SavedStrategy | None,
    words: Sequence[str],
    records: Records,
    console: Screen,
) -> Split:
    """Write down what the run is made of, or check that it is what it was begun with.

    Raises:
        ConfigError: it is not, or there is nothing to go on with.
    """
    earlier = _earlier(records)
    if earlier is None:
        records.files.claim()
        split, command = _split(prepared, saved, console), shlex.join(["finetune.py", *words])
    else:
        changes = accepted_changes(earlier, config)
        require_same_data(earlier, prepared)
        console.print(f"Going on {_after(records)}")
        split, command = Split.from_dict(earlier.dataset["splits"]["finetune"]), earlier.command
        if not changes:
            return split
    test = named_test_set(prepared.cases, config.datasets)
    splits, draw = {"finetune": split.to_dict(), "test": list(test)}, earlier is None
    write_run_files(records.folder, config, prepared, splits, command, draw=draw)
    records.append(configuration_note(config, None))
    return split


def _earlier(records: Records) -> Earlier | None:
    """The run if it was begun and has not finished; None where there is none.

    Raises:
        ConfigError: it has finished, or is a search.
    """
    folder, trials = records.folder, records.trials
    if not trials:
        return None
    if set(trials) == {TRIAL} and not records.files.strategy.exists():
        return open_earlier(folder)
    what = "a finished run" if set(trials) == {TRIAL} else "a search"
    raise ConfigError(f"{folder} holds {what} already; nothing was changed. Choose another --name.")


def _after(records: Records) -> str:
    """Where the trial is: what is saved after each epoch is never lost."""
    record = records.trials.get(TRIAL)
    if record is None or not record.epochs:
        return "before the end of its first epoch"
    return f"after epoch {len(record.epochs)} of {record.started.max_epochs}"


def _train(
    prepared: Prepared,
    config: Config,
    spec: TrialSpec,
    records: Records,
    console: Screen,
    threads: int,
) -> TrialEnded:
    folder, name = records.folder, records.folder.name
    note_versions(records)
    tracker = start_tracking(config, folder, name, records, console, nested=False)
    expected = {spec.arm: Expected(1, spec.strategy.max_epochs)}
    status = "failed"
    try:
        with Progress(expected, title=name, console=console) as progress:
            progress.resume(records)
            on_event = write_through(records, [*([tracker] if tracker else []), progress])
            own = records.files.trial(spec.trial).path
            ended = fit(config, spec, own, on_event, threads=threads)
        reason = "the one strategy of this run"
        record = records.trials[spec.trial]
        with records.files.writing():
            write_tables(records)
            save_trial(folder, prepared, config, record, spec.split, threads, reason)
        status = "finished"
        return ended
    except Stopped:
        status = "interrupted"
        raise
    finally:
        if tracker:
            tracker.log_artifacts(records.files.to_show)
            tracker.close(status=status)


def _split(prepared: Prepared, saved: SavedStrategy | None, console: Screen) -> Split:
    if saved is None:
        split = finetune_split(prepared.cases, prepared.config.datasets, prepared.config.seed)
        for note in split.notes:
            console.say(note, "Note")
        return split
    for what, now, then in (
        ("base model", prepared.base.sha256, saved.base_sha256),
        ("dataset", prepared.store.key, saved.dataset_key),
    ):
        if now != then:
            console.say(
                f"the {what} is not the one this strategy was found with (fingerprint {now[:12]},"
                f" then {then[:12]}); scores will differ.",
                "Warning",
            )
    return saved.split


def _strategy(prepared: Prepared, config: Config, saved: SavedStrategy | None) -> Strategy:
    """What is trained: the configuration's values, of all keys that a saved strategy names."""
    plain = config.to_dict()
    named = {key: get_value(plain, key) for key in (saved.strategy if saved else {})}
    return canonical(named, config, prepared.blocks)


def _as_saved(config: Config, saved: SavedStrategy | None, overrides: list[str]) -> Config:
    """The precision of the saved run, unless the command line asks for another."""
    named = any(word.startswith("lightning.precision") for word in overrides)
    if saved is None or named:
        return config
    return config.with_values({"lightning.precision": saved.precision})


def _warn(prepared: Prepared, config: Config, strategy: Strategy, console: Screen) -> None:
    schedule = make_schedule(config.finetuning, config.lightning, prepared.blocks)
    if strategy and schedule.never_opened:
        console.say(
            f"with lightning.max_epochs={schedule.max_epochs} and finetuning.unfreeze_frequency="
            f"{schedule.frequency}, {schedule.never_opened} of {schedule.depth} blocks never open. Use"
            f" lightning.max_epochs=auto, or {(schedule.depth + 1) * schedule.frequency}.",
            "Warning",
        )


def _say_length(spec: TrialSpec, prepared: Prepared, config: Config, console: Screen) -> None:
    """How many optimiser steps the training has, and how many epochs would be enough of them."""
    crops = len(spec.split.train_set(prepared.cases))
    length = epoch_length(crops, config.datasets.batch_size, config.lightning)
    epochs = spec.strategy.max_epochs
    console.print(
        f"Length: {epochs} epochs of {length.steps} optimiser steps, {epochs * length.steps} in"
        f" all; an epoch goes {length.crops / crops:.1f} times through {crops} training crops",
    )
    if epochs * length.steps < ENOUGH_STEPS:
        console.print(
            f"[yellow]Warning:[/] a network that takes fewer than {ENOUGH_STEPS} steps has seldom"
            f" learned what it can. lightning.max_epochs={-(-ENOUGH_STEPS // length.steps)} would"
            f" be enough, or a higher lightning.steps_per_epoch"
            f" (now {config.lightning.steps_per_epoch}).",
        )


def _print_result(ended: TrialEnded, folder: Path, console: Screen) -> None:
    if ended.dice is None:
        console.print(f"Trained on all subjects; nothing validated. Weights: {folder}")
        return
    console.print(
        f"Dice of the last epoch: {ended.dice:.4f} (best {ended.best_dice:.4f} in epoch"
        f" {ended.best_epoch}), {ended.epochs} epochs, {ended.seconds:.0f} s",
    )
    weights, scores = f"{folder}/{ended.last_checkpoint}", RunFolder(folder).scores_table
    console.print(f"Weights: {weights}\nScores: {scores}")
