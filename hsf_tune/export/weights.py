"""Decide which weights are exported: one network trained on every subject, or the fold models.

`single` trains the strategy once more, as the fold models saw fewer subjects, and the best
of them is the one with the easy subjects. `bag` takes the fold models as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256

import torch

from hsf_tune.config import Config
from hsf_tune.data.splits import Split
from hsf_tune.errors import ConfigError, ModelError
from hsf_tune.files import write_text
from hsf_tune.finetuning.finished import (
    EXPORT,
    FinishedRun,
    TrainedModel,
    choose_bag,
    no_weights,
)
from hsf_tune.finetuning.fit import fit
from hsf_tune.finetuning.strategy import SavedStrategy
from hsf_tune.records import Event, TrialSpec


def train_single(
    run: FinishedRun,
    saved: SavedStrategy,
    on_event: Callable[[Event], None],
    *,
    threads: int = 1,
) -> TrainedModel:
    """Train a strategy on every subject that the run used, outside the test set.

    The state is kept in the run's `export/`, so that an interrupted training goes on, and
    a finished one is not repeated.

    Raises:
        ModelError: the strategy is the unchanged base model, or no subject is left.
        HsfTuneError: the data or the base model can't be used.
    """
    if not saved.strategy:
        raise no_weights(run)
    config = training_config(run.config, saved)
    spec = single_spec(run, saved, config)
    files = run.files.export(spec.trial)
    write_text(files.strategy, saved.strategy.key)
    fit(config, spec, files.path, on_event, threads=threads)
    train = tuple(spec.split.train)
    return TrainedModel(files.final, spec.trial, EXPORT, 1, spec.seed, train)


def fold_models(run: FinishedRun, saved: SavedStrategy) -> list[TrainedModel]:
    """An odd number of fold models of a strategy.

    Raises:
        ModelError: none is left on disk.
    """
    bag = choose_bag(run.models_of(saved.strategy))
    if not bag:
        if saved.strategy and saved.strategy.key != run.saved.strategy.key:
            raise ModelError(
                f"{run.folder} has no weights of the strategy asked for; expected one that the"
                " search has run and kept. Train it: --as single."
            )
        raise no_weights(run)
    return bag


def require_same_base(run: FinishedRun, saved: SavedStrategy) -> None:
    """Whether a strategy was found with the base model of the run that exports it.

    Raises:
        ConfigError: it was not; the network trained here would be another than its scores' one.
    """
    if saved.base_sha256 != run.saved.base_sha256:
        raise ConfigError(
            f"The strategy was found with the base model {saved.base_name}"
            f" ({saved.base_sha256[:12]}), but {run.folder.name} trains"
            f" {run.saved.base_name} ({run.saved.base_sha256[:12]}); expected the same. Name a"
            " strategy of this run's base model: --strategy FILE, or export the run it comes from."
        )


def training_config(config: Config, saved: SavedStrategy) -> Config:
    """The run's configuration with the precision of the strategy's own trials.

    On a machine without a GPU, where half precision is slower, full precision takes its place.
    """
    on_gpu = config.lightning.accelerator != "cpu" and torch.cuda.is_available()
    return config.with_values({"lightning.precision": saved.precision if on_gpu else "32-true"})


def single_spec(run: FinishedRun, saved: SavedStrategy, config: Config) -> TrialSpec:
    """The trial that trains on every subject that the run used, outside the test set.

    Subjects that came to the dataset later, or were in no part of it, stay out.

    Raises:
        ModelError: each of them has a case in the test set.
    """
    if not run.subjects:
        raise ModelError(
            f"{run.folder} trained on no subject outside its test set, so that no network can be"
            " trained for export. Take the one there is: --as bag."
        )
    split = Split(EXPORT, 1, run.subjects, ())
    about = [saved.strategy.key, str(saved.seed)]
    number = sha256(
        "\n".join([*about, *run.subjects, config.lightning.precision]).encode()
    ).hexdigest()[:8]
    return TrialSpec(f"export-{number}", saved.arm, saved.strategy, split, saved.seed)
