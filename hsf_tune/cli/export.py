"""`export outputs/NAME`: the winner as a folder that `hsf` uses."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from hsf_tune.cli.prepare import prepare
from hsf_tune.cli.shell import Screen
from hsf_tune.data.checks.study import Purpose
from hsf_tune.errors import HsfTuneError
from hsf_tune.export.folder import Exported, Kind, write_folder
from hsf_tune.export.hsf_config import check_name, shell_text
from hsf_tune.export.weights import fold_models, require_same_base, train_single, training_config
from hsf_tune.finetuning.finished import FinishedRun, TrainedModel, open_run
from hsf_tune.finetuning.strategy import SavedStrategy, load_strategy
from hsf_tune.progress import Expected, Progress
from hsf_tune.tracking import address_for
from hsf_tune.tracking.registry import register


def export(args: argparse.Namespace, _: Sequence[str], console: Screen) -> int:
    """Train once more or gather the fold models, write the folder, register it; the exit code."""
    began_s = time.perf_counter()
    run = open_run(args.run)
    saved = load_strategy(args.strategy) if args.strategy else run.saved
    require_same_base(run, saved)
    name = check_name(args.name or run.name)
    to = args.to or _models_folder(run, console) / name
    console.print(f"Strategy: {saved.strategy.describe()}")
    kind: Kind = args.kind
    threads = args.threads or saved.threads
    torch.set_num_threads(threads)
    models = _models(run, saved, kind, threads, console)
    exported = write_folder(run, saved, models, kind, to, name)
    _print_result(exported, time.perf_counter() - began_s, console)
    if run.config.tracking.enabled and not args.no_tracking:
        _register(run, args.tracking_uri, exported, console)
    return 0


def _models_folder(run: FinishedRun, console: Screen) -> Path:
    """Where the run's dataset wants exported models, if that is below the working directory."""
    wanted = Path(run.config.datasets.output_path)
    if wanted.resolve().is_relative_to(Path.cwd()):
        return wanted
    console.say(f"the run's datasets.output_path is {wanted}; choose it with --to.", "Note")
    return Path("models")


def _models(
    run: FinishedRun, saved: SavedStrategy, kind: Kind, threads: int, console: Screen
) -> list[TrainedModel]:
    if kind == "bag":
        models = fold_models(run, saved)
        console.print(f"Models: {', '.join(m.trial for m in models)}")
        return models
    purpose: Purpose = "search" if "explore" in run.dataset.get("splits", {}) else "finetune"
    prepare(training_config(run.config, saved), console, purpose)
    left_out = len(run.test_subjects)
    console.print(
        f"Training once more on {len(run.subjects)} subjects"
        + (f"; {left_out} of the test set stay out." if left_out else "."),
    )
    expected = {saved.arm: Expected(1, saved.strategy.max_epochs)}
    with Progress(expected, title=f"export {run.name}", console=console) as progress:
        return [train_single(run, saved, progress, threads=threads)]


def _register(run: FinishedRun, uri: str | None, exported: Exported, console: Screen) -> None:
    """MLflow is a view: what it refuses is said, and the folder stays as it is."""
    try:
        models = [f.path for f in exported.files]
        tracking = address_for(run.config.tracking, uri)
        registered = register(tracking, run.folder, models, exported.folder)
    except HsfTuneError as error:
        console.say(str(error), "Note")
        return
    console.print(f"MLflow: {registered.uri} (version {registered.version})")


def _print_result(exported: Exported, seconds: float, console: Screen) -> None:
    for file in exported.files:
        worst = max(p.largest_difference for p in file.parity)
        same = min(p.same_label for p in file.parity)
        console.print(
            f"{file.path}  {file.size_bytes / 1e6:.1f} MB; checked against PyTorch on"
            f" {len(file.parity)} shapes: largest difference {worst:.1e}, same label in"
            f" {same:.3%} of the voxels",
        )
    console.print(
        f"Written in {seconds:.0f} s: {exported.folder} (README.md, model_card.md, conf/)\n\n"
        f"{shell_text(exported.command)}",
    )
