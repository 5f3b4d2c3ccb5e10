"""How much disk a search takes, said before it starts.

While it runs, each trial leaves the weights of its best and its last epoch, and a running
one its whole state. What is kept of them afterwards is decided in `search/retention.py`.
Scores, curves and figures are small beside the weights and are not counted.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch

from hsf_tune.config import Config
from hsf_tune.errors import SearchError
from hsf_tune.finetuning.base import network_architecture
from hsf_tune.model.networks import new_network
from hsf_tune.model.weights import BaseModel
from hsf_tune.records import BASE
from hsf_tune.search.race import RacePlan, Workload

STATE = 3  # a running trial's state in sizes of the weights: these, and two moments of each
CLEARLY = 0.8  # of the estimate; below, a search is refused


@dataclass(frozen=True)
class DiskUse:
    """An upper estimate, in bytes.

    Attributes:
        running: of the run's folder at most, while the search runs.
        afterwards: of the run's folder, when it has finished.
        copies: of the best checkpoints that MLflow keeps on this machine.
    """

    running: int
    afterwards: int
    copies: int

    def describe(self, config: Config, folder: Path, used: int = 0) -> str:
        """One line for the user.

        Args:
            used: bytes that the run's folder holds already.
        """
        copies = f", and {_size(self.copies)} of copies in MLflow" if self.copies else ""
        there = f", of which {_size(used)} are there" if used else ""
        return (
            f"Disk: at most {_size(self.running)} in {folder} while it runs{there},"
            f" {_size(self.afterwards)} afterwards"
            f" (search.keep_checkpoints={config.search.keep_checkpoints}){copies};"
            f" {_size(_free(folder))} are free"
        )


def estimate(
    config: Config, base: BaseModel, plan: RacePlan, expected: Workload, workers: int
) -> DiskUse:
    """What a search takes, from the network's size and the number of trials.

    Args:
        workers: trials side by side.
    """
    weights = weights_bytes(config, base)
    trials = sum(n for name, (n, _) in expected.expected.items() if name != BASE)
    ended = 2 * weights  # of the best and of the last epoch
    saving = (2 * STATE + 1) * weights  # the state, the next one being written, the best epoch
    keeps_all = config.search.keep_checkpoints == "all"
    kept = trials if keeps_all else min(trials, _kept_trials(plan))
    tracking = config.tracking
    local = tracking.enabled and not tracking.uri.startswith(("http:", "https:", "databricks"))
    return DiskUse(trials * ended + workers * saving, kept * ended, trials * weights * local)


def weights_bytes(config: Config, base: BaseModel) -> int:
    """Of the finetuned network in single precision."""
    with torch.device("meta"):
        network = new_network(network_architecture(base, config.models))
    return sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())


def require_room(use: DiskUse, config: Config, folder: Path, used: int = 0) -> None:
    """Refuse a search that can't end on this disk. With a time budget it may still end.

    Raises:
        SearchError: what is free is clearly less than what is needed.
    """
    needed = max(0, use.running - used)
    if _same_disk(folder, Path.cwd()):
        needed += use.copies
    free = _free(folder)
    if free >= CLEARLY * needed or config.search.time_budget_s is not None:
        return
    raise SearchError(
        f"{folder} has {_size(free)} of free space, but this search needs about {_size(needed)}."
        " Make room, choose another disk with --output, or ask for less: --strategies-per-arm,"
        " --no-confirm, or tracking.enabled=false if MLflow's copies are on the same disk."
    )


def used_bytes(folder: Path) -> int:
    """Of all files below a folder; 0 where there is none."""
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # another process may remove it at this moment
            total += path.stat().st_size if path.is_file() else 0
    return total


def _kept_trials(plan: RacePlan) -> int:
    """Finalists on all their folds, and the documented default."""
    blocks = len(plan.confirm) * len(plan.confirm_seeds)
    finalists = sum(arm.finalists * (1 + len(arm.keep) + blocks) for arm in plan.arms)
    return finalists + blocks + len(plan.explore) + len(plan.test)


def _free(folder: Path) -> int:
    return shutil.disk_usage(_existing(folder)).free


def _same_disk(one: Path, other: Path) -> bool:
    return os.stat(_existing(one)).st_dev == os.stat(_existing(other)).st_dev


def _existing(folder: Path) -> Path:
    """The folder, or the nearest above it that is there."""
    folder = folder.resolve()
    return next(path for path in (folder, *folder.parents) if path.exists())


def _size(n_bytes: float) -> str:
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.0f} MB"
