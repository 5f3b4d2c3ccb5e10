"""Hand stored cases to Lightning in batches.

Order and augmentation are pure functions of (seed, epoch, case): the sampler hands out
the epoch with every index, so that neither worker processes, nor what was drawn before,
nor a resumed run change what an epoch sees. Which cases train is the split's decision.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytorch_lightning as pl
import SimpleITK as sitk
import torch
import torch.nn.functional as F
import torchio as tio
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from hsf_tune.config import Config
from hsf_tune.data.augmentation import augment, make_augmentation
from hsf_tune.data.cases import Case
from hsf_tune.data.splits import Split
from hsf_tune.data.store import Store, StoredCase

Item = dict[str, Any]


class CropsDataModule(pl.LightningDataModule):
    """The training and validation batches of one split.

    A batch holds `image` (B, 1, X, Y, Z) float32, `labels` (B, X, Y, Z) uint8 indices,
    `counts` (B, X, Y, Z) bool, False where a case was padded to the batch's largest, and
    the lists `case` (ids) and `dataset` (names). Validation goes case by case, unchanged.

    Args:
        cases: all cases in discovery order; the split selects from them.
        crops_per_epoch: crops handed out in an epoch, round and round; None for each once.
        workers: processes that load and augment; None takes `datasets.num_workers` on a
            GPU, at most one for each CPU thread of this process, and none on a CPU, where
            they would only compete with the training. The batches are the same.
    """

    def __init__(
        self,
        store: Store,
        cases: Sequence[Case],
        split: Split,
        config: Config,
        seed: int,
        *,
        crops_per_epoch: int | None = None,
        workers: int | None = None,
    ) -> None:
        super().__init__()
        self.store = store
        self.config = config
        self.seed = seed
        self.train_cases = split.train_set(cases)
        self.validation_cases = split.validation_set(cases)
        self.crops_per_epoch = crops_per_epoch or len(self.train_cases)
        self.workers = _workers(config) if workers is None else workers
        self._epoch = 0
        _limit_itk_threads()

    def set_epoch(self, epoch: int) -> None:
        """The epoch that comes next, where no trainer counts them."""
        self._epoch = epoch

    def epoch(self) -> int:
        """The epoch (from 0) that batches are drawn for now.

        Of the trainer's counters only `processed` is already right when a resumed run
        fills its workers' queues; `current_epoch` is still one behind then.
        """
        if self.trainer is not None and self.trainer.training:
            return int(self.trainer.fit_loop.epoch_progress.current.processed)
        return self._epoch

    def train_dataloader(self) -> DataLoader[Item]:
        transform = make_augmentation(self.config.augmentation)
        sampler = EpochSampler(len(self.train_cases), self.crops_per_epoch, self.seed, self.epoch)
        data = TrainingCases(self.store, self.train_cases, transform, self.seed)
        return self._loader(data, self.config.datasets.batch_size, sampler)

    def val_dataloader(self) -> DataLoader[Item] | list[Any]:
        if not self.validation_cases:
            return []
        return self._loader(ValidationCases(self.store, self.validation_cases), 1, None)

    def _loader(
        self, data: Dataset[Item], batch_size: int, sampler: Sampler[Any] | None
    ) -> DataLoader[Item]:
        return DataLoader(
            data,
            batch_size=batch_size,
            sampler=sampler,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            collate_fn=collate,
            worker_init_fn=_limit_itk_threads,
            pin_memory=self.config.datasets.pin_memory and torch.cuda.is_available(),
            generator=torch.Generator(),  # else it would draw from the global one
        )


class EpochSampler(Sampler[tuple[int, int, int]]):
    """(epoch, round, index): all n indices once a round, as many rounds as `length` takes.

    (seed, epoch, round) alone decide a round's order; the last one may be cut short.
    """

    def __init__(self, n: int, length: int, seed: int, epoch: Callable[[], int]) -> None:
        self.n, self.length, self.seed, self.epoch = n, length, seed, epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[tuple[int, int, int]]:
        epoch = self.epoch()
        for start in range(0, self.length, self.n):
            round_ = start // self.n
            parts = (self.seed, epoch, "order", *_beyond_first(round_))
            generator = torch.Generator().manual_seed(derived_seed(*parts))
            order = torch.randperm(self.n, generator=generator)[: self.length - start]
            yield from ((epoch, round_, index) for index in order.tolist())


class TrainingCases(Dataset[Item]):
    """Augmented cases, asked for by (epoch, round, index)."""

    def __init__(
        self, store: Store, cases: Sequence[Case], transform: tio.Transform, seed: int
    ) -> None:
        self.store, self.cases, self.transform, self.seed = store, cases, transform, seed
        ids = [case.id for case in cases]
        self.repeats = [ids[:i].count(id) for i, id in enumerate(ids)]  # of a bootstrap

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, key: tuple[int, int, int]) -> Item:
        epoch, round_, index = key
        case, repeat = self.cases[index], self.repeats[index]
        stored = self.store.load(case.id)
        image, labels = _copied(stored)
        # The crop without its padding is augmented, then padded: as at inference, where
        # the padding is exactly zero.
        where = stored.crop
        image[:, *where], labels[where] = augment(
            self.transform,
            image[:, *where],
            labels[where],
            stored.spacing_mm,
            derived_seed(
                self.seed, epoch, case.id, *([repeat] if repeat else []), *_beyond_first(round_)
            ),
        )
        return {"image": image, "labels": labels, "case": case.id, "dataset": case.dataset}


class ValidationCases(Dataset[Item]):
    """Cases as they are stored."""

    def __init__(self, store: Store, cases: Sequence[Case]) -> None:
        self.store, self.cases = store, cases

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, index: int) -> Item:
        case = self.cases[index]
        image, labels = _copied(self.store.load(case.id))
        return {"image": image, "labels": labels, "case": case.id, "dataset": case.dataset}


def collate(items: Sequence[Item]) -> Item:
    """One batch; smaller cases are padded with zeros at the end of each axis."""
    sizes = [item["labels"].shape for item in items]
    largest = [max(axis) for axis in zip(*sizes, strict=True)]
    counts = [torch.ones(size, dtype=torch.bool) for size in sizes]
    return {
        "image": torch.stack([_grown(item["image"], largest) for item in items]),
        "labels": torch.stack([_grown(item["labels"], largest) for item in items]),
        "counts": torch.stack([_grown(inside, largest) for inside in counts]),
        "case": [item["case"] for item in items],
        "dataset": [item["dataset"] for item in items],
    }


def derived_seed(*parts: object) -> int:
    """A seed of 63 bits that only the parts decide, on any machine and version."""
    digest = hashlib.sha256("/".join(str(part) for part in parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _beyond_first(round_: int) -> list[str]:
    """What a seed is derived from besides the epoch, from an epoch's second round on."""
    return [f"round {round_}"] if round_ else []


def _copied(stored: StoredCase) -> tuple[Tensor, Tensor]:
    """Tensors of their own: torch would write into shared read-only memory without a word."""
    return torch.from_numpy(np.array(stored.image)), torch.from_numpy(np.array(stored.labels))


def _grown(volume: Tensor, size: Sequence[int]) -> Tensor:
    missing = [n - m for n, m in zip(size, volume.shape[-3:], strict=True)]
    if not any(missing):
        return volume
    return F.pad(volume, [0, missing[2], 0, missing[1], 0, missing[0]])


def _limit_itk_threads(_: int = 0) -> None:
    """TorchIO resamples with ITK, which takes every core of the machine unless told: as many
    threads as torch has (one in a loading process), so that trials side by side don't collide."""
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(torch.get_num_threads())


def _workers(config: Config) -> int:
    if config.lightning.accelerator == "cpu" or not torch.cuda.is_available():
        return 0
    return min(config.datasets.num_workers, torch.get_num_threads())
