"""How long an epoch is, in optimiser steps and in the crops that make them up.

What a network learns depends on its optimiser steps, and a pass over the crops of a small
laboratory has a handful. So an epoch is at least a given number of steps: where a pass has
fewer, batches are accumulated less, and then the crops come round again, augmented anew.
"""

from __future__ import annotations

from dataclasses import dataclass

from hsf_tune.config import LightningConfig

STEPS_PER_EPOCH = 20  # what `auto` means: the documented 16 epochs are then 320 steps
ENOUGH_STEPS = 300  # below, scores were far from where training ends (NOTES.md, "Length")


@dataclass(frozen=True)
class EpochLength:
    """What one epoch consists of.

    Attributes:
        crops: handed out in an epoch; at least every training crop once.
        accumulate: batches that make one optimiser step.
        steps: optimiser steps, a smaller last one included.
    """

    crops: int
    accumulate: int
    steps: int


def epoch_length(crops: int, batch_size: int, lightning: LightningConfig) -> EpochLength:
    """The length of an epoch over that many training crops.

    Args:
        crops: training crops of the split; one that a bootstrap repeats counts each time.
        batch_size: crops in a batch.
        lightning: `steps_per_epoch` is the least number of steps, `accumulate_grad_batches` the
            most batches a step.
    """
    wanted = lightning.steps_per_epoch
    least = STEPS_PER_EPOCH if wanted == "auto" else wanted
    batches, accumulate = -(-crops // batch_size), lightning.accumulate_grad_batches
    if -(-batches // accumulate) < least:
        accumulate = min(accumulate, max(1, batches // least))
        crops = max(crops, least * accumulate * batch_size)
        batches = -(-crops // batch_size)
    return EpochLength(crops, accumulate, -(-batches // accumulate))
