"""All that one trial needs, resolved once, and the folder that is its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from hsf_tune.config import Config
from hsf_tune.data.cases import Case, find_cases
from hsf_tune.data.store import Store, open_store
from hsf_tune.errors import DataError, HsfTuneError
from hsf_tune.files import set_aside, write_text
from hsf_tune.finetuning.base import blocks_of, get_base, network_architecture
from hsf_tune.finetuning.length import EpochLength, epoch_length
from hsf_tune.finetuning.module import trainable_groups
from hsf_tune.finetuning.placement import Placement, place
from hsf_tune.finetuning.schedule import Schedule, make_schedule
from hsf_tune.model.network import Network
from hsf_tune.model.networks import new_network
from hsf_tune.model.weights import BaseModel, build_network, save
from hsf_tune.records import TrialEnded, TrialSpec, TrialStarted, event_from_dict
from hsf_tune.run_folder import TrialFolder

_MARK_KEYS = {"trial", "fingerprint", "precision"}


@dataclass
class TrialSetup:
    """All that a trial needs, resolved once."""

    config: Config
    spec: TrialSpec
    folder: TrialFolder
    placement: Placement
    base: BaseModel
    schedule: Schedule
    store: Store
    cases: list[Case]

    @classmethod
    def of(cls, config: Config, spec: TrialSpec, folder: TrialFolder, threads: int) -> TrialSetup:
        config = config.with_values(spec.strategy)
        base = get_base(config)
        schedule = make_schedule(config.finetuning, config.lightning, blocks_of(base))
        cases = find_cases(config.datasets)
        store = open_store(cases, config.datasets, config.store, make_room=True)
        _require_same_data(spec, store)
        placement = place(config, threads)
        mark = _read_mark(folder.mark) if folder.mark.exists() else None
        if mark and config.lightning.precision == "auto":  # as begun, if on another kind of GPU
            placement = replace(placement, precision=mark["precision"])
        return cls(config, spec, folder, placement, base, schedule, store, cases)

    def network(self) -> Network:
        return build_network(self.base, self.config.models.out_channels, seed=self.spec.seed)

    def validation_cases(self) -> list[Case]:
        return self.spec.split.validation_set(self.cases)

    def length(self) -> EpochLength:
        crops = len(self.spec.split.train_set(self.cases))
        return epoch_length(crops, self.config.datasets.batch_size, self.config.lightning)

    def groups(self) -> list[tuple[str, torch.nn.Module]]:
        """What trains, in the order of opening: names and sizes, without the weights."""
        with torch.device("meta"):
            network = new_network(network_architecture(self.base, self.config.models))
        return trainable_groups(network, self.config, self.schedule)

    def started(self) -> TrialStarted:
        spec, groups = self.spec, self.groups() if self.spec.strategy else []
        epochs = self.schedule.max_epochs if spec.strategy else 0
        return spec.started(
            max_epochs=epochs,
            steps=epochs * self.length().steps if epochs else 0,
            opening_epochs={n: self.schedule.opening_epoch(i) for i, (n, _) in enumerate(groups)},
            parameters_trained=count_parameters(groups),
            device=str(self.placement.device),
            precision=self.placement.precision,
        )

    def fingerprint(self) -> str:
        """Equal for two calls that must give the same numbers."""
        parts = [
            self.spec.strategy.key,
            json.dumps(self.spec.split.to_dict(), sort_keys=True),
            json.dumps(
                [asdict(self.config.models), asdict(self.config.augmentation)], sort_keys=True
            ),
            f"{self.spec.seed} {self.placement.precision} {self.base.sha256} {self.store.key}"
            f" {self.config.datasets.batch_size} {self.config.lightning.accumulate_grad_batches}",
        ]
        if self.config.lightning.steps_per_epoch != 1:  # which 0.1.0, that had no such key, did
            parts.append(f"{self.length()}")
        return sha256("\n".join(parts).encode()).hexdigest()

    def claim_folder(self) -> TrialEnded | None:
        """Mark the folder as this trial's; the result, if the trial already ended here.

        Raises:
            HsfTuneError: another trial, or this one with other settings, lives there.
        """
        wanted = {
            "trial": self.spec.trial,
            "fingerprint": self.fingerprint(),
            "precision": self.placement.precision,
        }
        if self.folder.mark.exists():
            found = _read_mark(self.folder.mark)
            if found != wanted:
                raise HsfTuneError(
                    f"{self.folder.path} holds trial {found.get('trial')} with other settings or other"
                    f" data than trial {self.spec.trial} has now. Give this run another name, or"
                    " move that folder away."
                )
        else:
            write_text(self.folder.mark, json.dumps(wanted))
        return _read_ended(self.folder.ended) if self.folder.ended.exists() else None

    def merges_labels(self) -> bool:
        """Whether the network tells more labels apart than the datasets do."""
        channels = self.config.models.out_channels
        return any(
            len(d.labels_names) + 1 != channels for d in self.config.datasets.datasets.values()
        )

    def save_weights(self, path: Path, network: Network, epoch: int, dice: float) -> str:
        """Save weights with what is needed to use them; the path within the run."""
        named = [dict(d.labels_names) for d in self.config.datasets.datasets.values()]
        about: dict[str, Any] = {
            "name": self.spec.trial,
            "training": {
                "strategy": self.spec.strategy.describe(),
                "epoch": epoch,
                "validation_dice": round(dice, 6),
                "base_sha256": self.base.sha256,
            },
        }
        if all(names == named[0] for names in named) and not self.merges_labels():
            about["labels_names"] = named[0]
        save(path, network, about)
        return self.folder.in_run(path)


def set_aside_damage(folder: TrialFolder) -> list[Path]:
    """Give what can't be read of a trial's state other names, so that the trial starts anew.

    Where it can't be read whose the folder is, nothing in it can be gone on with.

    Returns:
        The new names.
    """
    readers = {folder.mark: _read_mark, folder.ended: _read_ended, folder.last: _read_state}
    there = {path: read for path, read in readers.items() if path.exists()}
    damaged = [path for path, read in there.items() if _is_damaged(path, read)]
    return [set_aside(path) for path in (there if folder.mark in damaged else damaged)]


def _is_damaged(path: Path, read: Callable[[Path], Any]) -> bool:
    try:
        read(path)
    except (OSError, MemoryError):
        raise  # of the disk or the machine, not of the file
    except Exception:  # PyTorch's reader alone raises a dozen kinds
        return True
    return False


def _read_mark(path: Path) -> dict[str, Any]:
    """Whose folder it is."""
    mark: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if set(mark) != _MARK_KEYS:
        raise ValueError(f"expected {sorted(_MARK_KEYS)}")
    return mark


def _read_ended(path: Path) -> TrialEnded:
    event = event_from_dict(json.loads(path.read_text(encoding="utf-8")))
    if not isinstance(event, TrialEnded):
        raise ValueError(f"expected a {TrialEnded.kind}")
    return event


def _read_state(path: Path) -> None:
    """Lightning reads it again, and knows more about it."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    if not {"epoch", "state_dict", "optimizer_states", "callbacks"} <= set(state):
        raise ValueError("expected a training's state")


def _require_same_data(spec: TrialSpec, store: Store) -> None:
    """Scores of one run are compared with each other.

    Raises:
        DataError: an image or a label map is not what it was when the run began.
    """
    if spec.dataset_key is not None and store.key != spec.dataset_key:
        raise DataError(
            "images or labels have changed since the run began (fingerprint"
            f" {store.key[:12]}, then {spec.dataset_key[:12]}); nothing was trained on them. Bring"
            " back what they were, or start a new run under another --name; going on names each"
            " file"
        )


def count_parameters(groups: list[tuple[str, torch.nn.Module]]) -> int:
    """Weights that train once all groups are open."""
    return sum(p.numel() for _, module in groups for p in module.parameters())
