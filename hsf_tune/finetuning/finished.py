"""Read a run's folder once it is over: what it was made of, what it recommends, its weights.

Used by whatever starts from a run: a base model for further finetuning, an export, a
prediction. Which weights they take is decided here, in the same way for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hsf_tune.data.splits import Split
from hsf_tune.errors import ModelError, RunError
from hsf_tune.finetuning.strategy import SavedStrategy, load_strategy
from hsf_tune.installed import typed
from hsf_tune.records import BASE
from hsf_tune.run_folder import TrialFolder
from hsf_tune.stored_run import StoredRun, read_stored
from hsf_tune.strategy import Strategy

EXPORT = "export"  # phase of the model that is trained on every subject
_PHASES = ("confirm", "explore", "finetune")  # whose models come first in a bag


@dataclass(frozen=True)
class TrainedModel:
    """Weights of one trial, on disk.

    Attributes:
        train: qualified subjects that it was trained on.
    """

    path: Path
    trial: str
    phase: str
    fold: int
    seed: int
    train: tuple[str, ...]


@dataclass(frozen=True)
class FinishedRun(StoredRun):
    """A run that has come to a recommendation.

    Attributes:
        saved: the recommended strategy, with all that repeats it.
    """

    saved: SavedStrategy

    @property
    def test_subjects(self) -> tuple[str, ...]:
        """The locked test set; () where there is none."""
        return tuple(self.dataset.get("splits", {}).get("test", ()))

    @property
    def subjects(self) -> tuple[str, ...]:
        """Those that train or validate somewhere in the run, in no case the test set."""
        splits = self.dataset.get("splits", {})
        plain = splits.get("explore") or [s for s in [splits.get("finetune")] if s]
        used = [Split.from_dict(split) for split in plain] or [self.saved.split]
        named = {s for split in used for s in (*split.train, *split.validate)}
        return tuple(sorted(named - set(self.test_subjects)))

    def models_of(self, strategy: Strategy) -> list[TrainedModel]:
        """Last epoch's weights of every finished trial of a strategy that are still there."""
        key, found = strategy.key, []
        for record in self.records.trials.values():
            started, ended = record.started, record.ended
            if not record.finished or ended is None or not ended.last_checkpoint:
                continue
            path = self.files.inside(ended.last_checkpoint)
            if started.strategy.key == key and path.exists():
                found.append(
                    TrainedModel(
                        path,
                        started.trial,
                        started.phase,
                        started.fold,
                        started.seed,
                        tuple(started.train),
                    )
                )
        return found


def open_run(folder: Path) -> FinishedRun:
    """Read the folder of a run that has come to a recommendation.

    Raises:
        RunError: no run is there, or it has not ended.
    """
    stored = read_stored(folder.expanduser().resolve())
    strategy = stored.files.strategy
    if not strategy.exists():
        if stored.files.read_summary().get("recommendation", {}).get("arm") == BASE:
            raise RunError(
                f"{stored.folder} recommends not to finetune, so there is no {strategy.name}: keep"
                f" the base model. Any strategy of {stored.files.report.name} can still be trained"
                f" with {typed('finetune')}."
            )
        raise RunError(
            f"{stored.folder} has not come to a recommendation yet (there is no {strategy.name})."
            f" Let the search end: {typed('tune', '--resume', stored.name)}."
        )
    return FinishedRun(**vars(stored.as_given()), saved=load_strategy(strategy))


def choose_bag(models: Sequence[TrainedModel]) -> list[TrainedModel]:
    """An odd number of fold models, whatever their scores.

    One a fold, of the lowest seed; of the confirmation where there is one, as its folds leave
    fewer subjects out. An even number would tie when the models vote, so the last fold is
    dropped then; choosing by score would prefer the fold with the easy subjects.
    """
    for phase in _PHASES:
        of_fold: dict[int, TrainedModel] = {}
        for model in sorted((m for m in models if m.phase == phase), key=lambda m: m.seed):
            of_fold.setdefault(model.fold, model)
        bag = [of_fold[fold] for fold in sorted(of_fold)]
        if bag:
            return bag if len(bag) % 2 else bag[:-1]
    return []


def best_weights(run: FinishedRun) -> Path:
    """The one file of weights that stands for a run.

    The recommended strategy's exported model, trained on every subject, where there is one; else
    the recommended trial's own; else a fold model of the recommended strategy.

    Raises:
        ModelError: none is left.
    """
    exported = [
        trial.final
        for trial in run.files.exports
        if strategy_of_export(trial) == run.saved.strategy.key
    ]
    models = run.models_of(run.saved.strategy)
    own = [m.path for m in models if m.trial == run.saved.trial]
    candidates = [
        *sorted((p for p in exported if p.exists()), key=lambda p: -p.stat().st_mtime),
        *own,
        *(m.path for m in choose_bag(models)),
    ]
    if not candidates:
        raise no_weights(run)
    return candidates[0]


def strategy_of_export(trial: TrialFolder) -> str | None:
    """`strategy_key` of what an export trained in a folder; None where it was not written down."""
    return trial.strategy.read_text(encoding="utf-8") if trial.strategy.exists() else None


def no_weights(run: FinishedRun) -> ModelError:
    """The error where a run's recommended strategy has left no weights."""
    if not run.saved.strategy:
        return ModelError(
            f"{run.folder} recommends the unchanged base model, {run.saved.base_name}; it has no"
            " finetuned weights. Use that base model as it is."
        )
    return ModelError(
        f"{run.folder} has no weights of its recommended strategy left (expected"
        f" {run.files.trial('TRIAL').final.relative_to(run.folder)}). Train it once more:"
        f" {typed('export', str(run.folder), '--as', 'single')}."
    )
