"""Save a trial's state after each epoch, and only then report the epoch."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from hsf_tune.errors import Diverged
from hsf_tune.files import replacing
from hsf_tune.finetuning.module import FinetuningModule
from hsf_tune.model.network import Network
from hsf_tune.records import EpochEnded, Event, event_from_dict, event_to_dict
from hsf_tune.run_folder import TrialFolder

SaveWeights = Callable[[Path, Network, int, float], str]


class TrialReporter(pl.callbacks.Checkpoint):
    """Lightning calls callbacks of this base class last, when the epoch is complete.

    Attributes:
        history: every epoch reported so far, those before a resume included.
        best_dice, best_epoch: of the best epoch so far; None without validation.
        pruned: why the trial was stopped, or None.
        told: whether the last epoch of `history` was reported by this process.
    """

    def __init__(
        self,
        trial: str,
        folder: TrialFolder,
        on_event: Callable[[Event], None],
        should_stop: Callable[[], str | None] | None,
        save_weights: SaveWeights,
    ) -> None:
        self.trial = trial
        self.folder = folder
        self.on_event = on_event
        self.should_stop = should_stop
        self.save_weights = save_weights
        self.history: list[EpochEnded] = []
        self.best_dice: float | None = None
        self.best_epoch: int | None = None
        self.pruned: str | None = None
        self.told = False
        self.seconds = 0.0
        self._epoch_started = time.perf_counter()

    @property
    def epochs(self) -> int:
        return len(self.history)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.tell_again()

    def tell_again(self) -> None:
        """After a resume, tell the last epoch again: it was saved, but perhaps not reported."""
        if self.history and not self.told:
            self.told = True
            self.on_event(self.history[-1])

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._epoch_started = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, FinetuningModule)
        epoch, metrics = trainer.current_epoch, pl_module.epoch_metrics
        if metrics.get("val_loss") is not None and metrics["val_loss"] != metrics["val_loss"]:
            raise Diverged(f"the validation loss became nan in epoch {epoch}")
        dice = metrics.get("val_dice")
        if dice is not None and (self.best_dice is None or dice > self.best_dice):
            self.best_dice, self.best_epoch = dice, epoch
            self.save_weights(self.folder.best, pl_module._model, epoch, dice)
        elapsed = time.perf_counter() - self._epoch_started
        self.seconds += elapsed
        event = EpochEnded(self.trial, epoch, {**metrics, "epoch_seconds": elapsed})
        self.history.append(event)
        self._save_state(trainer)
        self.told = True
        self.on_event(event)
        self._ask_to_stop(trainer, epoch)

    def _ask_to_stop(self, trainer: pl.Trainer, epoch: int) -> None:
        last = trainer.max_epochs is not None and epoch + 1 >= trainer.max_epochs
        if self.should_stop is not None and not last:
            self.pruned = self.should_stop()
            trainer.should_stop = self.pruned is not None

    def _save_state(self, trainer: pl.Trainer) -> None:
        """Replace the state at once, so that a kill leaves the old or the new one."""
        with replacing(self.folder.last) as temporary:
            trainer.save_checkpoint(temporary)

    def state_dict(self) -> dict[str, Any]:
        return {
            "history": [json.dumps(event_to_dict(e)) for e in self.history],
            "best_dice": self.best_dice,
            "best_epoch": self.best_epoch,
            "seconds": self.seconds,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        events = [event_from_dict(json.loads(line)) for line in state_dict["history"]]
        self.history = [e for e in events if isinstance(e, EpochEnded)]
        self.best_dice = state_dict["best_dice"]
        self.best_epoch = state_dict["best_epoch"]
        self.seconds = state_dict["seconds"]
