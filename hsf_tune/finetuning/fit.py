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
from hsf_tune.finetuning.setting import Setting, TrialSpec, count_parameters, set_aside_damage
from hsf_tune.model.network import Network
from hsf_tune.records import Event, Note, Score, TrialEnded, event_to_dict, mean_dice
from hsf_tune.run_folder import TrialFolder

__all__ = ["TrialSpec", "fit", "place"]


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
    setting = Setting.of(config, spec, files, threads)
    folder.mkdir(parents=True, exist_ok=True)
    ended = setting.claim_folder()
    on_event(setting.started())
    for path in damaged:
        on_event(Note("warning", f"{path} could not be read as a state of {spec.trial}"))
    if ended is None:
        ended = _train(setting, on_event, should_stop) if spec.strategy else _score_base(setting)
        write_text(files.ended, json.dumps(event_to_dict(ended)))
    files.last.unlink(missing_ok=True)  # not before: a kill in between would train anew
    on_event(ended)
    return ended


def _train(
    setting: Setting,
    on_event: Callable[[Event], None],
    should_stop: Callable[[], str | None] | None,
) -> TrialEnded:
    config, spec = setting.config, setting.spec
    length = setting.length()
    data = CropsDataModule(
        setting.store,
        setting.cases,
        spec.split,
        config,
        spec.seed,
        crops_per_epoch=length.crops,
    )
    network = setting.network()
    network.checkpointing = config.lightning.activation_checkpointing is True
    subjects = {c.id: c.subject for c in setting.cases}
    module = FinetuningModule(network, config, setting.plan, length.steps, setting.store, subjects)
    reporter = TrialReporter(
        spec.trial, setting.folder, on_event, should_stop, setting.save_weights
    )
    resume = setting.folder.last
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="pytorch_lightning")
        warnings.filterwarnings("ignore", message=".*`isinstance\\(treespec, LeafSpec\\)`.*")
        trainer = _trainer(setting, length.accumulate, reporter)
        trainer.fit(
            module,
            datamodule=data,
            ckpt_path=str(resume) if resume.exists() else None,
            weights_only=True,
        )
    reporter.tell_again()  # where no epoch was left, Lightning started no training
    return _finished(setting, module, reporter)


def _trainer(setting: Setting, accumulate: int, reporter: TrialReporter) -> pl.Trainer:
    for name in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch", "lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    lightning, placement = setting.config.lightning, setting.placement
    return pl.Trainer(
        accelerator=placement.accelerator,
        devices=1,
        precision=placement.precision,
        max_epochs=setting.plan.max_epochs,
        accumulate_grad_batches=accumulate,
        log_every_n_steps=lightning.log_every_n_steps,
        benchmark=lightning.benchmark,
        deterministic=lightning.deterministic,
        limit_val_batches=None if setting.validation_cases() else 0,
        num_sanity_val_steps=0,
        callbacks=[reporter],
        plugins=[LightningEnvironment()],  # in a SLURM job, one device all the same
        logger=False,
        enable_checkpointing=True,
        enable_progress_bar=False,
        enable_model_summary=False,
        reload_dataloaders_every_n_epochs=0,
    )


def _finished(setting: Setting, module: FinetuningModule, reporter: TrialReporter) -> TrialEnded:
    """Score the last epoch's weights in full, save them, and draw the trial's figures."""
    started = time.perf_counter()
    spec = setting.spec
    pruned = reporter.pruned
    scores, figure_paths = _score(setting, module._model)
    dice = mean_dice(scores)
    final = setting.save_weights(setting.folder.final, module._model, reporter.epochs - 1, dice)
    figure_paths = [draw_curve(setting, reporter.history, reporter.best_epoch), *figure_paths]
    best = setting.folder.best
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
        best_checkpoint=setting.folder.in_run(best) if best.exists() else None,
        figures=figure_paths,
        reason=pruned,
    )


def _score_base(setting: Setting) -> TrialEnded:
    started = time.perf_counter()
    scores, figure_paths = _score(setting, setting.network())
    return TrialEnded(
        trial=setting.spec.trial,
        status="finished",
        dice=mean_dice(scores),
        best_dice=mean_dice(scores),
        seconds=time.perf_counter() - started,
        scores=scores,
        figures=figure_paths,
    )


def _score(setting: Setting, network: Network) -> tuple[list[Score], list[str]]:
    """Scores of the validation cases, and the overlay of the middling one among them."""
    spec, predictions = setting.spec, {}

    def keep(case: Case, prediction: np.ndarray) -> None:
        predictions[case.id] = prediction

    cases = setting.validation_cases()
    scores = evaluate(
        network,
        setting.store,
        cases,
        setting.config,
        device=setting.placement.device,
        precision=setting.placement.precision,
        surface=spec.surface,
        keep=keep,
    )
    if spec.surface:
        _save_predictions(setting.folder.predictions, predictions)
    return scores, [draw_overlay(setting, cases[0], predictions[cases[0].id])] if cases else []


def _save_predictions(path: Path, predictions: Mapping[str, np.ndarray]) -> None:
    with replacing(path) as temporary:
        np.savez_compressed(temporary, **predictions)  # type: ignore[arg-type]
