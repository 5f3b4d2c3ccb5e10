"""AdamP with adaptive gradient clipping, one parameter group a block.

Blocks that are still frozen sit in the optimiser from the start, without gradients and
therefore without state. What `schedule.Schedule` says of a group is set before each step:
its rate, and its own count of steps, since Adam's bias correction must start when the
group does (a group that kept counting while frozen would take a first step three times
too long).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pytorch_optimizer import AdamP
from pytorch_optimizer.optimizer.agc import agc
from torch import nn
from torch.optim import Optimizer

from hsf_tune.finetuning.schedule import Schedule

CLIP_RATIO = 1e-2  # largest gradient norm relative to its weights' norm, unit by unit
CLIP_EPS = 1e-3


def make_optimizer(groups: Sequence[tuple[str, nn.Module]], lr: float) -> AdamP:
    """AdamP, decoupled and without weight decay.

    Args:
        groups: (name, module) in opening order, the final convolution first.
        lr: base learning rate, which `Schedule.rate` scales.

    Source: Heo et al. 2021, arXiv:2006.08217.
    """
    parameters = [
        {"params": list(module.parameters()), "name": name, "step": 0} for name, module in groups
    ]
    return AdamP(parameters, lr=lr, weight_decay=0.0, weight_decouple=True)


def set_groups(
    optimizer: Optimizer, schedule: Schedule, lr: float, step: int, steps_per_epoch: int
) -> None:
    """Give each group the rate and the step count that the schedule says for an optimiser step."""
    for index, group in enumerate(optimizer.param_groups):
        group["lr"] = lr * schedule.rate(index, step, steps_per_epoch)
        group["step"] = max(0, schedule.steps_since_opening(index, step, steps_per_epoch))


@torch.no_grad()
def clip_gradients(optimizer: Optimizer) -> None:
    """Adaptive gradient clipping, in place. Source: Brock et al. 2021, arXiv:2102.06171, eq. 3."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None:
                parameter.grad.copy_(agc(parameter, parameter.grad, CLIP_EPS, CLIP_RATIO))
