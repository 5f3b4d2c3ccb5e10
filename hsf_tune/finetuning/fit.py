"""Train one strategy on one split: what a search's workers and `finetune.py` share.

A trial lives in a folder of its own. After each epoch its whole state is saved there,
and only then the epoch is reported; a call that finds such a state goes on from it, so
that resuming is calling again. Random choices depend on (seed, epoch, case) alone,
hence the resumed curve equals the uninterrupted one.
"""

from __future__ import annotations

import json
import logging
import math
import os
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.environments import LightningEnvironment

from hsf_tune import figures
from hsf_tune.config import Config
from hsf_tune.data.cases import Case, find_cases
from hsf_tune.data.module import CropsDataModule
from hsf_tune.data.splits import Split
from hsf_tune.data.store import Store, open_store
from hsf_tune.errors import HsfTuneError
from hsf_tune.finetuning.base import blocks_of, get_base
from hsf_tune.finetuning.callbacks import TrialReporter
from hsf_tune.finetuning.evaluate import evaluate
from hsf_tune.finetuning.module import FinetuningModule, trainable_groups
from hsf_tune.finetuning.schedule import Plan, make_plan
from hsf_tune.finetuning.strategy import describe, strategy_key
from hsf_tune.model.arunet import ARUNet
from hsf_tune.model.weights import BaseModel, build_network, save
from hsf_tune.records import (
    EpochEnded,
    Event,
    Score,
    TrialEnded,
    TrialStarted,
    event_from_dict,
    event_to_dict,
    mean_dice,
    write_text,
)

LAST, BEST, FINAL, ENDED = "last.ckpt", "best.safetensors", "final.safetensors", "ended.json"


@dataclass(frozen=True)
class TrialSpec:
    """What one trial trains on.

    Attributes:
        trial: unique id within the run, also its folder's name.
        strategy: canonical dotted keys; empty for the unchanged base model (0 epochs).
        surface: also measure surface distances, and keep the predictions.
    """

    trial: str
    phase: str
    arm: str
    strategy: Mapping[str, Any]
    split: Split
    seed: int
    surface: bool = False


@dataclass(frozen=True)
class Placement:
    """Where a trial runs and in which precision."""

    accelerator: str
    device: torch.device
    precision: str
    threads: int


def place(config: Config, threads: int) -> Placement:
    """Resolve `auto`: a GPU where there is one; bf16-mixed where the GPU has it natively."""
    wanted = config.lightning.accelerator
    if wanted == "gpu" and not torch.cuda.is_available():
        raise HsfTuneError(
            "lightning.accelerator is 'gpu', but PyTorch sees no GPU here. Use"
            " lightning.accelerator=auto, or check the driver with nvidia-smi."
        )
    on_gpu = wanted != "cpu" and torch.cuda.is_available()
    precision = config.lightning.precision
    if precision == "auto":
        native = on_gpu and torch.cuda.get_device_capability()[0] >= 8
        precision = "bf16-mixed" if native else "32-true"
    device = torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")
    return Placement("gpu" if on_gpu else "cpu", device, precision, threads)


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
    setting = _Setting.of(config, spec, folder, threads)
    folder.mkdir(parents=True, exist_ok=True)
    ended = setting.claim_folder()
    on_event(setting.started())
    if ended is None:
        ended = _train(setting, on_event, should_stop) if spec.strategy else _score_base(setting)
        write_text(folder / ENDED, json.dumps(event_to_dict(ended)))
    on_event(ended)
    return ended


@dataclass
class _Setting:
    """All that a trial needs, resolved once."""

    config: Config
    spec: TrialSpec
    folder: Path
    placement: Placement
    base: BaseModel
    plan: Plan
    store: Store
    cases: list[Case]

    @classmethod
    def of(cls, config: Config, spec: TrialSpec, folder: Path, threads: int) -> _Setting:
        config = config.with_values(spec.strategy)
        base = get_base(config)
        plan = make_plan(config.finetuning, config.lightning, blocks_of(base))
        cases = find_cases(config.datasets)
        store = open_store(cases, config.datasets, config.store)
        return cls(config, spec, folder, place(config, threads), base, plan, store, cases)

    def network(self) -> ARUNet:
        return build_network(self.base, self.config.models.out_channels, seed=self.spec.seed)

    def validation_cases(self) -> list[Case]:
        return self.spec.split.validation_set(self.cases)

    def groups(self) -> list[tuple[str, torch.nn.Module]]:
        return trainable_groups(self.network(), self.config, self.plan)

    def started(self) -> TrialStarted:
        spec, groups = self.spec, self.groups() if self.spec.strategy else []
        return TrialStarted(
            trial=spec.trial,
            phase=spec.phase,
            arm=spec.arm,
            strategy=dict(spec.strategy),
            fold=spec.split.fold,
            seed=spec.seed,
            max_epochs=self.plan.max_epochs if spec.strategy else 0,
            train=list(spec.split.train),
            validate=list(spec.split.validate),
            opening_epochs={name: self.plan.opening_epoch(i) for i, (name, _) in enumerate(groups)},
            parameters_trained=count_parameters(groups),
            device=str(self.placement.device),
        )

    def fingerprint(self) -> str:
        """Equal for two calls that must give the same numbers."""
        parts = [
            strategy_key(self.spec.strategy),
            json.dumps(self.spec.split.to_dict(), sort_keys=True),
            json.dumps(
                [asdict(self.config.models), asdict(self.config.augmentation)], sort_keys=True
            ),
            f"{self.spec.seed} {self.placement.precision} {self.base.sha256} {self.store.key}"
            f" {self.config.datasets.batch_size} {self.config.lightning.accumulate_grad_batches}",
        ]
        return sha256("\n".join(parts).encode()).hexdigest()

    def claim_folder(self) -> TrialEnded | None:
        """Mark the folder as this trial's; the result, if the trial already ended here.

        Raises:
            HsfTuneError: another trial, or this one with other settings, lives there.
        """
        mark = self.folder / "trial.json"
        wanted = {"trial": self.spec.trial, "fingerprint": self.fingerprint()}
        if mark.exists():
            found = json.loads(mark.read_text(encoding="utf-8"))
            if found != wanted:
                raise HsfTuneError(
                    f"{self.folder} holds trial {found.get('trial')} with other settings or other"
                    f" data than trial {self.spec.trial} has now. Give this run another name, or"
                    " move that folder away."
                )
        else:
            write_text(mark, json.dumps(wanted))
        ended = self.folder / ENDED
        if not ended.exists():
            return None
        event = event_from_dict(json.loads(ended.read_text(encoding="utf-8")))
        assert isinstance(event, TrialEnded)
        return event

    def merges_labels(self) -> bool:
        """Whether the network tells more labels apart than the datasets do."""
        channels = self.config.models.out_channels
        return any(
            len(d.labels_names) + 1 != channels for d in self.config.datasets.datasets.values()
        )

    def relative(self, name: str) -> str:
        return f"checkpoints/{self.folder.name}/{name}"

    def save_weights(self, name: str, network: ARUNet, epoch: int, dice: float) -> str:
        """Save weights with what is needed to use them; the path within the run."""
        named = [dict(d.labels_names) for d in self.config.datasets.datasets.values()]
        about: dict[str, Any] = {
            "name": self.spec.trial,
            "training": {
                "strategy": describe(self.spec.strategy),
                "epoch": epoch,
                "validation_dice": round(dice, 6),
                "base_sha256": self.base.sha256,
            },
        }
        if all(names == named[0] for names in named) and not self.merges_labels():
            about["labels_names"] = named[0]
        save(self.folder / name, network, about)
        return self.relative(name)


def count_parameters(groups: list[tuple[str, torch.nn.Module]]) -> int:
    """Weights that train once all groups are open."""
    return sum(p.numel() for _, module in groups for p in module.parameters())


def _train(
    setting: _Setting,
    on_event: Callable[[Event], None],
    should_stop: Callable[[], str | None] | None,
) -> TrialEnded:
    config, spec, placement = setting.config, setting.spec, setting.placement
    data = CropsDataModule(setting.store, setting.cases, spec.split, config, spec.seed)
    steps = -(-data.batches_per_epoch // config.lightning.accumulate_grad_batches)
    network = setting.network()
    network.checkpointing = config.lightning.activation_checkpointing is True
    subjects = {c.id: c.subject for c in setting.cases}
    module = FinetuningModule(network, config, setting.plan, steps, setting.store, subjects)
    reporter = TrialReporter(
        spec.trial, setting.folder, on_event, should_stop, setting.save_weights
    )
    resume = setting.folder / LAST
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="pytorch_lightning")
        warnings.filterwarnings("ignore", message=".*`isinstance\\(treespec, LeafSpec\\)`.*")
        _trainer(config, placement, setting.plan, [reporter], bool(setting.validation_cases())).fit(
            module, datamodule=data, ckpt_path=str(resume) if resume.exists() else None
        )
    return _finished(setting, module, reporter)


def _trainer(
    config: Config,
    placement: Placement,
    plan: Plan,
    callbacks: list[pl.Callback],
    validates: bool,
) -> pl.Trainer:
    for name in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch", "lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    lightning = config.lightning
    return pl.Trainer(
        accelerator=placement.accelerator,
        devices=1,
        precision=placement.precision,
        max_epochs=plan.max_epochs,
        accumulate_grad_batches=lightning.accumulate_grad_batches,
        log_every_n_steps=lightning.log_every_n_steps,
        benchmark=lightning.benchmark,
        deterministic=lightning.deterministic,
        limit_val_batches=None if validates else 0,
        num_sanity_val_steps=0,
        callbacks=callbacks,
        plugins=[LightningEnvironment()],  # in a SLURM job, one device all the same
        logger=False,
        enable_checkpointing=True,
        enable_progress_bar=False,
        enable_model_summary=False,
        reload_dataloaders_every_n_epochs=0,
    )


def _finished(setting: _Setting, module: FinetuningModule, reporter: TrialReporter) -> TrialEnded:
    """Score the last epoch's weights in full, save them, and draw the trial's figures."""
    started = time.perf_counter()
    spec = setting.spec
    pruned = reporter.pruned
    scores, figure_paths = _score(setting, module._model)
    dice = mean_dice(scores)
    final = setting.save_weights(FINAL, module._model, reporter.epochs - 1, dice)
    figure_paths = [_draw_curve(setting, reporter.history, reporter.best_epoch), *figure_paths]
    (setting.folder / LAST).unlink(missing_ok=True)
    has_best = (setting.folder / BEST).exists()
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
        best_checkpoint=setting.relative(BEST) if has_best else None,
        figures=figure_paths,
        reason=pruned,
    )


def _score_base(setting: _Setting) -> TrialEnded:
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


def _score(setting: _Setting, network: ARUNet) -> tuple[list[Score], list[str]]:
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
        _save_predictions(setting.folder / "predictions.npz", predictions)
    return scores, [_draw_overlay(setting, cases[0], predictions[cases[0].id])] if cases else []


def _save_predictions(path: Path, predictions: Mapping[str, np.ndarray]) -> None:
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    np.savez_compressed(temporary, **predictions)  # type: ignore[arg-type]
    os.replace(temporary, path)


def _draw_curve(setting: _Setting, history: list[EpochEnded], best_epoch: int | None) -> str:
    spec = setting.spec
    names = [name for name, _ in setting.groups()]
    openings = {n: setting.plan.opening_epoch(i) for i, n in enumerate(names) if i}
    datasets = setting.config.datasets.datasets.values()
    named = [name for d in datasets for _, name in sorted(d.labels_names.items())]
    labels = [f"val_dice/{name}" for name in dict.fromkeys(named)]
    labels = [k for k in labels if any(k in e.metrics for e in history)]
    figure = figures.learning_curve(
        [e.epoch for e in history],
        train_loss=_series(history, "train_loss"),
        val_loss=_series(history, "val_loss"),
        val_dice=_series(history, "val_dice"),
        openings=openings,
        title=f"{spec.trial}: {describe(spec.strategy)}",
        dice_by_label={k.removeprefix("val_dice/"): _series(history, k) for k in labels},
        best_epoch=best_epoch,
    )
    figures.save(figure, setting.folder / "learning_curve.png")
    return setting.relative("learning_curve.png")


def _series(history: list[EpochEnded], key: str) -> list[float]:
    return [e.metrics.get(key, math.nan) for e in history]


def _draw_overlay(setting: _Setting, case: Case, prediction: np.ndarray) -> str:
    stored = setting.store.load(case.id)
    figure = figures.overlay(
        image=np.asarray(stored.image)[0][stored.crop],
        prediction=prediction,
        reference=np.asarray(stored.labels)[stored.crop],
        spacing_mm=stored.spacing_mm,
        labels_names=dict(setting.config.datasets.datasets[case.dataset].labels_names),
        title=f"{setting.spec.trial}: {case.id}",
    )
    figures.save(figure, setting.folder / "overlay.png")
    return setting.relative("overlay.png")
