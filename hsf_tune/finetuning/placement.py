"""Where a trial computes: device, precision, threads."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from hsf_tune.config import Config
from hsf_tune.errors import HsfTuneError


@dataclass(frozen=True)
class Placement:
    """Where a trial runs and in which precision."""

    accelerator: str
    device: torch.device
    precision: str
    threads: int


def place(config: Config, threads: int) -> Placement:
    """Resolve `auto`: a GPU where there is one; bf16-mixed where the GPU has it natively."""
    wanted = config.lightning.accelerator
    if wanted == "gpu" and not torch.cuda.is_available():
        raise HsfTuneError(
            "lightning.accelerator is 'gpu', but PyTorch sees no GPU here. Use"
            " lightning.accelerator=auto, or check the driver with nvidia-smi."
        )
    on_gpu = wanted != "cpu" and torch.cuda.is_available()
    precision = config.lightning.precision
    if precision == "auto":
        native = on_gpu and torch.cuda.get_device_capability()[0] >= 8
        precision = "bf16-mixed" if native else "32-true"
    device = torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")
    return Placement("gpu" if on_gpu else "cpu", device, precision, threads)
