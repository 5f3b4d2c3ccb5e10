"""What one training step of the heaviest strategy costs on the largest case.

A search is planned with it: how long it will take, how many trials fit on a GPU, and
whether a case needs activation checkpointing to fit at all.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from hsf_tune.config import Config
from hsf_tune.data.cases import Case
from hsf_tune.data.store import Store
from hsf_tune.errors import HsfTuneError
from hsf_tune.finetuning.evaluate import autocast, case_losses
from hsf_tune.finetuning.optimizer import clip_gradients, make_optimizer
from hsf_tune.model.weights import BaseModel, build_network

CONTEXT_BYTES = 700 * 2**20  # what a process holds on a GPU besides its tensors
MARGIN = 1.15  # over the measured peak: fragmentation, and validation on other shapes
MOST_PER_GPU = 16


@dataclass(frozen=True)
class StepCost:
    """Measured, not guessed.

    Attributes:
        train_s: seconds of forward, backward and update on the largest case, all blocks open.
        validate_s: seconds of a forward pass on it.
        peak_bytes: GPU memory at the peak; 0 on a CPU.
        checkpointing: whether activations had to be computed twice to fit.
        voxels: of the largest case, padded.
    """

    train_s: float
    validate_s: float
    peak_bytes: int
    checkpointing: bool
    voxels: int


def measure_step(
    config: Config,
    base: BaseModel,
    store: Store,
    cases: Sequence[Case],
    device: torch.device,
    precision: str,
    threads: int = 1,
) -> StepCost:
    """Time one step, the second of two, so that first-call costs don't count.

    Raises:
        HsfTuneError: the largest case does not fit on the GPU even with checkpointing.
    """
    torch.set_num_threads(threads)
    largest = next(c for c in cases if c.id == store.largest(c.id for c in cases))
    wanted = config.lightning.activation_checkpointing
    for checkpointing in [False, True] if wanted == "auto" else [bool(wanted)]:
        try:
            return _measure(config, base, store, largest, device, precision, checkpointing)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
    shape = store.grid(largest.id).padded_size
    raise HsfTuneError(
        f"{largest.mri} ({shape} voxels) does not fit into the memory of {device} for one training"
        " step, not even with activation checkpointing. Crop it closer to the hippocampus, or use"
        " a GPU with more memory or lightning.accelerator=cpu."
    )


def _measure(
    config: Config,
    base: BaseModel,
    store: Store,
    case: Case,
    device: torch.device,
    precision: str,
    checkpointing: bool,
) -> StepCost:
    stored = store.load(case.id)
    batch = config.datasets.batch_size
    image = torch.from_numpy(np.array(stored.image))[None].repeat(batch, 1, 1, 1, 1).to(device)
    labels = torch.from_numpy(np.array(stored.labels))[None].repeat(batch, 1, 1, 1).to(device)
    network = build_network(base, config.models.out_channels, seed=config.seed).to(device)
    network.checkpointing = checkpointing
    optimizer = make_optimizer([("all", network)], config.models.lr)
    loss_of = case_losses(config)[case.dataset]
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)

    def step() -> None:
        with autocast(device, precision):
            loss = loss_of(network(image), labels, None)
        loss.backward()
        clip_gradients(optimizer)
        optimizer.step()
        optimizer.zero_grad()

    @torch.inference_mode()
    def forward() -> None:
        with autocast(device, precision):
            network(image[:1])

    step()
    train_s = _timed(step, device)
    forward()
    validate_s = _timed(forward, device)
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
    return StepCost(train_s / batch, validate_s, peak, checkpointing, int(labels[0].numel()))


def _timed(action: object, device: torch.device) -> float:
    assert callable(action)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    action()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def trials_per_gpu(cost: StepCost, memory_bytes: int) -> int:
    """How many trials share a GPU without running out of its memory; at least one."""
    needed = cost.peak_bytes * MARGIN + CONTEXT_BYTES
    return int(min(MOST_PER_GPU, max(1, memory_bytes // needed)))


def with_measured_resources(config: Config, cost: StepCost, memory_bytes: int) -> Config:
    """The configuration with what was left to measurement filled in: the share of a GPU that a
    trial takes, and activation checkpointing where the largest case does not fit without."""
    values: dict[str, object] = {"lightning.activation_checkpointing": cost.checkpointing}
    if config.search.gpus_per_trial is None:
        values["search.gpus_per_trial"] = 1 / trials_per_gpu(cost, memory_bytes)
    return config.with_values(values)
