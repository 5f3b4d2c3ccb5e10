"""One finetuning trial as a LightningModule: the schedule applied to a network.

What opens when is `schedule.py`, what the numbers of a case are is `evaluate.py`;
this file only carries them into Lightning's loop.
"""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from hsf_tune.config import Config
from hsf_tune.data.store import Store
from hsf_tune.errors import Diverged
from hsf_tune.finetuning.evaluate import case_losses, score_case
from hsf_tune.finetuning.optimizer import clip_gradients, make_optimizer, set_groups
from hsf_tune.finetuning.schedule import Schedule
from hsf_tune.model.network import Network
from hsf_tune.records import Score, label_means, mean_dice


class FinetuningModule(pl.LightningModule):
    """Trains the final convolution at once and each block from its opening epoch on.

    Args:
        network: the base model with its final convolution fitted to the labels.
        config: the run's configuration, the strategy applied.
        schedule: when blocks open.
        steps_per_epoch: optimiser steps of an epoch, the remainder included.
        store: the preprocessed cases, for scores on the unpadded grid.
        case_subjects: case id -> subject.

    Attributes:
        epoch_metrics: what the last ended epoch measured, by the names DESIGN gives them.
        scores: Dice of each validation case and label at the last validation.
    """

    def __init__(
        self,
        network: Network,
        config: Config,
        schedule: Schedule,
        steps_per_epoch: int,
        store: Store,
        case_subjects: dict[str, str],
    ) -> None:
        super().__init__()
        self._model = network
        self.config = config
        self.schedule = schedule
        self.steps_per_epoch = steps_per_epoch
        self.store = store
        self.case_subjects = case_subjects
        self.groups = trainable_groups(network, config, schedule)
        self.losses = case_losses(config)
        self.epoch_metrics: dict[str, float] = {}
        self.scores: list[Score] = []
        self._train_losses: list[float] = []
        self._val_losses: list[float] = []
        self.requires_grad_(False)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return make_optimizer(self.groups, self.config.models.lr)

    def on_train_epoch_start(self) -> None:
        self.open_blocks(self.current_epoch)
        self.epoch_metrics, self._train_losses = {}, []

    def open_blocks(self, epoch: int) -> None:
        """Let the final convolution and the blocks that are open at `epoch` train, no others."""
        is_open: int = 1 + self.schedule.open_blocks(epoch)
        for index, (_, module) in enumerate(self.groups):
            module.requires_grad_(index < is_open)

    def training_step(self, batch: dict[str, Any], _: int) -> Tensor:
        loss = self._loss(self._model(batch["image"]), batch)
        value = loss.detach().item()
        if not torch.isfinite(loss):
            raise Diverged(f"the training loss became {value} in epoch {self.current_epoch}")
        self._train_losses.append(value)
        return loss

    def configure_gradient_clipping(
        self, optimizer: torch.optim.Optimizer, *_: Any, **__: Any
    ) -> None:
        step = self.trainer.global_step
        set_groups(optimizer, self.schedule, self.config.models.lr, step, self.steps_per_epoch)
        clip_gradients(optimizer)

    def on_validation_epoch_start(self) -> None:
        self.scores, self._val_losses = [], []

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        logits = self._model(batch["image"])
        self._val_losses.append(float(self._loss(logits, batch)))
        case_id, dataset = batch["case"][0], batch["dataset"][0]
        scores, _ = score_case(
            logits,
            self.store.load(case_id),
            self.config,
            dataset,
            case_id,
            self.case_subjects[case_id],
        )
        self.scores.extend(scores)

    def on_train_epoch_end(self) -> None:
        """Collect the epoch's metrics; validation, where there is any, has run by now."""
        metrics = {"train_loss": _mean(self._train_losses)}
        if self._val_losses:
            metrics["val_loss"] = _mean(self._val_losses)
            metrics["val_dice"] = mean_dice(self.scores)
            metrics |= {f"val_dice/{k}": v for k, v in label_means(self.scores).items()}
        optimizer = self.optimizers(use_pl_optimizer=False)
        assert isinstance(optimizer, torch.optim.Optimizer)
        for group in optimizer.param_groups:
            metrics[f"lr/{group['name']}"] = float(group["lr"])
        metrics["open_blocks"] = float(self.schedule.open_blocks(self.current_epoch))
        self.epoch_metrics = metrics

    def _loss(self, logits: Tensor, batch: dict[str, Any]) -> Tensor:
        """Mean over the datasets in the batch of each one's loss, weighted by its cases."""
        names = batch["dataset"]
        if len(set(names)) == 1:
            return self.losses[names[0]](logits, batch["labels"], batch["counts"])
        parts = [
            self.losses[name](
                logits[i : i + 1], batch["labels"][i : i + 1], batch["counts"][i : i + 1]
            )
            for i, name in enumerate(names)
        ]
        return torch.stack(parts).mean()


def trainable_groups(
    network: Network, config: Config, schedule: Schedule
) -> list[tuple[str, torch.nn.Module]]:
    """(name, module) of the final convolution and of the blocks that open, in opening order."""
    blocks = list(network.blocks(config.finetuning.mode))[: schedule.depth]
    return [("final_conv", network.final_conv), *blocks]


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else float("nan")
