"""Fit a search to the machine: what a step costs, and how many trials go side by side."""

from __future__ import annotations

import gc

import torch

from hsf_tune.cli.prepare import Prepared
from hsf_tune.cli.shell import Screen
from hsf_tune.config import Config
from hsf_tune.finetuning.placement import Placement, place
from hsf_tune.finetuning.probe import (
    CONTEXT_BYTES,
    StepCost,
    measure_step,
    trials_per_gpu,
    with_measured_resources,
)
from hsf_tune.machine import cpu_count


def measured(prepared: Prepared, config: Config) -> tuple[Placement, StepCost]:
    """Where trials run, and the cost of a step of the heaviest strategy on the largest case."""
    placement = place(config, max(1, int(config.search.cpus_per_trial or 1)))
    cost = measure_step(
        config,
        prepared.base,
        prepared.store,
        prepared.cases,
        placement.device,
        placement.precision,
        placement.threads,
    )
    if placement.device.type == "cuda":  # or what the step took would be missing from the trials
        gc.collect()
        torch.cuda.empty_cache()
    return placement, cost


def fitted_to_gpu(prepared: Prepared, config: Config, console: Screen) -> Config:
    """What the GPU's memory allows, where there is a GPU; the configuration as it is elsewhere.

    Of a cluster, this machine's GPU stands for all of them.
    """
    if place(config, 1).accelerator != "gpu":
        if config.search.address and config.search.gpus_per_trial is None:
            console.print(
                "No GPU on this machine to measure on: if the cluster has some, each trial gets a"
                " whole one. Let several share one with --gpus-per-trial.",
            )
        return config
    placement, cost = measured(prepared, config)
    fitted = with_measured_resources(config, cost, _memory_bytes(placement))
    share = fitted.search.gpus_per_trial or 1.0
    twice = ", with activation checkpointing" if cost.checkpointing else ""
    console.print(
        f"GPU: a step on the largest case takes {cost.peak_bytes / 2**30:.1f} GiB{twice};"
        f" {1 / share:.0f} trials share a GPU",
    )
    return fitted


def workers_here(config: Config, placement: Placement, cost: StepCost) -> int:
    """Trials side by side on this machine, from a measured step."""
    if placement.accelerator == "cpu":
        return max(1, int(cpu_count() // (config.search.cpus_per_trial or 1)))
    share = config.search.gpus_per_trial or 1 / trials_per_gpu(cost, _memory_bytes(placement))
    return max(1, int(torch.cuda.device_count() / share + 1e-9))


def side_by_side(config: Config) -> int:
    """Trials at a time, as far as is known without measuring; of a cluster, a guess."""
    if config.search.max_concurrent is not None:
        return config.search.max_concurrent
    if config.search.address or not config.search.gpus_per_trial:
        return max(1, int(cpu_count() // (config.search.cpus_per_trial or 1)))
    return max(1, int(torch.cuda.device_count() / config.search.gpus_per_trial + 1e-9))


def _memory_bytes(placement: Placement) -> int:
    """Of the GPU, without what this process holds on it itself."""
    return torch.cuda.get_device_properties(placement.device).total_memory - CONTEXT_BYTES
