"""Train one strategy on one split: what a search's workers and `finetune.py` share.

A trial lives in a folder of its own. After each epoch its whole state is saved there,
and only then the epoch is reported; a call that finds such a state goes on from it, so
that resuming is calling again. Random choices depend on (seed, epoch, case) alone,
hence the resumed curve equals the uninterrupted one.
"""

from __future__ import annotations

import json
import logging
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.environments import LightningEnvironment

from hsf_tune.config import Config
from hsf_tune.data.cases import Case
from hsf_tune.data.module import CropsDataModule
from hsf_tune.files import replacing, write_text
from hsf_tune.finetuning.callbacks import TrialReporter
from hsf_tune.finetuning.evaluate import evaluate
from hsf_tune.finetuning.module import FinetuningModule
from hsf_tune.finetuning.pictures import draw_curve, draw_overlay
from hsf_tune.finetuning.placement import place
from hsf_tune.finetuning.setup import TrialSetup, count_parameters, set_aside_damage
from hsf_tune.model.network import Network
from hsf_tune.records import Event, Score, TrialEnded, TrialSpec, Warned, event_to_dict, mean_dice
from hsf_tune.run_folder import TrialFolder

__all__ = ["fit", "place"]


def fit(
    config: Config,
    spec: TrialSpec,
    folder: Path,
    on_event: Callable[[Event], None],
    *,
    threads: int = 1,
    should_stop: Callable[[], str | None] | None = None,
) -> TrialEnded:
    """Run a trial to its end, from its last saved epoch if there is one.

    Args:
        config: the run's configuration; the strategy is applied to it here.
        folder: the trial's own folder, on storage that outlives the process.
        on_event: told of the start, each epoch and the end; what it raises ends the trial.
        threads: CPU threads; equal threads give equal numbers.
        should_stop: asked after each epoch; a text ends the trial as pruned for that reason.

    Returns:
        The event that ended the trial, which `on_event` has been told too.

    Raises:
        Diverged: a loss became NaN or infinite.
        HsfTuneError: the folder holds another trial, or the input can't be used.
    """
    torch.set_num_threads(threads)
    pl.seed_everything(spec.seed, workers=False, verbose=False)
    files = TrialFolder(folder)
    damaged = set_aside_damage(files)
    setup = TrialSetup.of(config, spec, files, threads)
    folder.mkdir(parents=True, exist_ok=True)
    ended = setup.claim_folder()
    on_event(setup.started())
    for path in damaged:
        on_event(Warned(text=f"{path} could not be read as a state of {spec.trial}"))
    if ended is None:
        ended = _train(setup, on_event, should_stop) if spec.strategy else _score_base(setup)
        write_text(files.ended, json.dumps(event_to_dict(ended)))
    files.last.unlink(missing_ok=True)  # not before: a kill in between would train anew
    on_event(ended)
    return ended


def _train(
    setup: TrialSetup,
    on_event: Callable[[Event], None],
    should_stop: Callable[[], str | None] | None,
) -> TrialEnded:
    config, spec = setup.config, setup.spec
    length = setup.length()
    data = CropsDataModule(
        setup.store,
        setup.cases,
        spec.split,
        config,
        spec.seed,
        crops_per_epoch=length.crops,
    )
    network = setup.network()
    network.checkpointing = config.lightning.activation_checkpointing is True
    subjects = {c.id: c.subject for c in setup.cases}
    module = FinetuningModule(network, config, setup.schedule, length.steps, setup.store, subjects)
    reporter = TrialReporter(spec.trial, setup.folder, on_event, should_stop, setup.save_weights)
    resume = setup.folder.last
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="pytorch_lightning")
        warnings.filterwarnings("ignore", message=".*`isinstance\\(treespec, LeafSpec\\)`.*")
        trainer = _trainer(setup, length.accumulate, reporter)
        trainer.fit(
            module,
            datamodule=data,
            ckpt_path=str(resume) if resume.exists() else None,
            weights_only=True,
        )
    reporter.tell_again()  # where no epoch was left, Lightning started no training
    return _finished(setup, module, reporter)


def _trainer(setup: TrialSetup, accumulate: int, reporter: TrialReporter) -> pl.Trainer:
    for name in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch", "lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    lightning, placement = setup.config.lightning, setup.placement
    return pl.Trainer(
        accelerator=placement.accelerator,
        devices=1,
        precision=placement.precision,
        max_epochs=setup.schedule.max_epochs,
        accumulate_grad_batches=accumulate,
        log_every_n_steps=lightning.log_every_n_steps,
        benchmark=lightning.benchmark,
        deterministic=lightning.deterministic,
        limit_val_batches=None if setup.validation_cases() else 0,
        num_sanity_val_steps=0,
        callbacks=[reporter],
        plugins=[LightningEnvironment()],  # in a SLURM job, one device all the same
        logger=False,
        enable_checkpointing=True,
        enable_progress_bar=False,
        enable_model_summary=False,
        reload_dataloaders_every_n_epochs=0,
    )


def _finished(setup: TrialSetup, module: FinetuningModule, reporter: TrialReporter) -> TrialEnded:
    """Score the last epoch's weights in full, save them, and draw the trial's figures."""
    started = time.perf_counter()
    spec = setup.spec
    pruned = reporter.pruned
    scores, figure_paths = _score(setup, module._model)
    dice = mean_dice(scores)
    final = setup.save_weights(setup.folder.final, module._model, reporter.epochs - 1, dice)
    figure_paths = [draw_curve(setup, reporter.history, reporter.best_epoch), *figure_paths]
    best = setup.folder.best
    return TrialEnded(
        trial=spec.trial,
        status="pruned" if pruned else "finished",
        dice=None if not scores else dice,
        best_dice=reporter.best_dice,
        best_epoch=reporter.best_epoch,
        epochs=reporter.epochs,
        seconds=reporter.seconds + time.perf_counter() - started,
        parameters_trained=count_parameters(module.groups),
        scores=scores,
        last_checkpoint=final,
        best_checkpoint=setup.folder.in_run(best) if best.exists() else None,
        figures=figure_paths,
        reason=pruned,
    )


def _score_base(setup: TrialSetup) -> TrialEnded:
    started = time.perf_counter()
    scores, figure_paths = _score(setup, setup.network())
    return TrialEnded(
        trial=setup.spec.trial,
        status="finished",
        dice=mean_dice(scores),
        best_dice=mean_dice(scores),
        seconds=time.perf_counter() - started,
        scores=scores,
        figures=figure_paths,
    )


def _score(setup: TrialSetup, network: Network) -> tuple[list[Score], list[str]]:
    """Scores of the validation cases, and the overlay of the middling one among them."""
    spec, predictions = setup.spec, {}

    def keep(case: Case, prediction: np.ndarray) -> None:
        predictions[case.id] = prediction

    cases = setup.validation_cases()
    scores = evaluate(
        network,
        setup.store,
        cases,
        setup.config,
        device=setup.placement.device,
        precision=setup.placement.precision,
        surface=spec.surface,
        keep=keep,
    )
    if spec.surface:
        _save_predictions(setup.folder.predictions, predictions)
    return scores, [draw_overlay(setup, cases[0], predictions[cases[0].id])] if cases else []


def _save_predictions(path: Path, predictions: Mapping[str, np.ndarray]) -> None:
    with replacing(path) as temporary:
        np.savez_compressed(temporary, **predictions)  # type: ignore[arg-type]
