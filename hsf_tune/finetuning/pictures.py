"""A trial's figures, drawn beside its checkpoints: learning curve and overlay."""

from __future__ import annotations

import math

import numpy as np

from hsf_tune import figures
from hsf_tune.data.cases import Case
from hsf_tune.finetuning.setup import TrialSetup
from hsf_tune.records import EpochEnded


def draw_curve(setup: TrialSetup, history: list[EpochEnded], best_epoch: int | None) -> str:
    spec = setup.spec
    names = [name for name, _ in setup.groups()]
    openings = {n: setup.schedule.opening_epoch(i) for i, n in enumerate(names) if i}
    datasets = setup.config.datasets.datasets.values()
    named = [name for d in datasets for _, name in sorted(d.labels_names.items())]
    labels = [f"val_dice/{name}" for name in dict.fromkeys(named)]
    labels = [k for k in labels if any(k in e.metrics for e in history)]
    figure = figures.learning_curve(
        [e.epoch for e in history],
        train_loss=_series(history, "train_loss"),
        val_loss=_series(history, "val_loss"),
        val_dice=_series(history, "val_dice"),
        openings=openings,
        title=f"{spec.trial}: {spec.strategy.describe()}",
        dice_by_label={k.removeprefix("val_dice/"): _series(history, k) for k in labels},
        best_epoch=best_epoch,
    )
    return setup.folder.in_run(figures.save(figure, setup.folder.curve))


def _series(history: list[EpochEnded], key: str) -> list[float]:
    return [e.metrics.get(key, math.nan) for e in history]


def draw_overlay(setup: TrialSetup, case: Case, prediction: np.ndarray) -> str:
    stored = setup.store.load(case.id)
    figure = figures.overlay(
        image=np.asarray(stored.image)[0][stored.crop],
        prediction=prediction,
        reference=np.asarray(stored.labels)[stored.crop],
        spacing_mm=stored.spacing_mm,
        labels_names=dict(setup.config.datasets.datasets[case.dataset].labels_names),
        title=f"{setup.spec.trial}: {case.id}",
    )
    return setup.folder.in_run(figures.save(figure, setup.folder.overlay))
