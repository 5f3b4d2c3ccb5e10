"""Decide which blocks of the network train at each epoch, and how fast each one learns.

A schedule is plain data. Nothing here knows the optimiser or Lightning; `optimizer.py`
and `module.py` apply what this file decides. Everything is a pure function of the
epoch or of the optimiser step, so that a run resumed in the middle does exactly
what the uninterrupted one would have done.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from hsf_tune.config import FinetuningConfig, LightningConfig
from hsf_tune.errors import ConfigError

WARMUP_SHARE = 0.1  # of the optimiser steps that a block has left when it opens


def resolve_depth(mode: str, depth: int, blocks: Mapping[str, int]) -> int:
    """Blocks opened beyond the final convolution, with -1 ("all") turned into their number.

    Raises:
        ConfigError: the network has fewer blocks on that side.
    """
    if depth == -1:
        return blocks[mode]
    if not 0 <= depth <= blocks[mode]:
        raise ConfigError(
            f"finetuning.depth is {depth}, but the base model has {blocks[mode]} blocks for"
            f" finetuning.mode={mode}. Use 0 to {blocks[mode]}, or -1 for all."
        )
    return depth


def resolve_max_epochs(max_epochs: int | str, depth: int, frequency: int) -> int:
    """`auto` is the documented rule of thumb: (depth + 1) x unfreeze_frequency epochs.

    Where all blocks are open from the start (0), as many as at the documented frequency.
    """
    if max_epochs != "auto":
        return int(max_epochs)
    return (depth + 1) * (frequency or FinetuningConfig.unfreeze_frequency)


@dataclass(frozen=True)
class Schedule:
    """When blocks open and how their learning rates move.

    Attributes:
        depth: blocks opened beyond the final convolution, all counted (never -1).
        frequency: epochs between two openings; 0 where all blocks are open from the start.
        max_epochs: length of the run.
    """

    depth: int
    frequency: int
    max_epochs: int

    def open_blocks(self, epoch: int) -> int:
        """Number of open blocks at an epoch counted from 0: min(depth, epoch // frequency)."""
        return min(self.depth, epoch // self.frequency) if self.frequency else self.depth

    def opening_epoch(self, group: int) -> int:
        """Epoch at which group 0 (the final convolution) or block 1..depth starts to train."""
        return group * self.frequency

    @property
    def never_opened(self) -> int:
        """Blocks that the run is too short to open."""
        return self.depth - self.open_blocks(max(0, self.max_epochs - 1))

    def steps_since_opening(self, group: int, step: int, steps_per_epoch: int) -> int:
        """Optimiser steps that a group has taken before `step`; negative while it is frozen."""
        return step - self.opening_epoch(group) * steps_per_epoch

    def rate(self, group: int, step: int, steps_per_epoch: int) -> float:
        """Share of the base learning rate that a group uses at an optimiser step.

        Args:
            group: 0 for the final convolution, k for the k-th block to open.
            step: optimiser steps taken before this one, over the whole run.
            steps_per_epoch: optimiser steps an epoch takes, the remainder included.

        Returns:
            In [0, 1]: 0 while frozen, then a linear warm-up over a tenth of the steps left,
            then half a cosine that reaches 0 when the run ends. Above 0 from the first
            step after opening on, however short the run.

        Source: warm-up as in Goyal et al. 2017, arXiv:1706.02677; cosine as in Loshchilov
            and Hutter 2017, arXiv:1608.03983, both counted from the block's own opening.
        """
        done = self.steps_since_opening(group, step, steps_per_epoch)
        if done < 0:
            return 0.0
        total = (self.max_epochs - self.opening_epoch(group)) * steps_per_epoch
        warmup = int(WARMUP_SHARE * total)
        if done < warmup:
            return (done + 1) / (warmup + 1)
        return 0.5 * (1 + math.cos(math.pi * (done - warmup) / max(1, total - warmup)))


def make_schedule(
    finetuning: FinetuningConfig, lightning: LightningConfig, blocks: Mapping[str, int]
) -> Schedule:
    """The schedule that a configuration asks for.

    Raises:
        ConfigError: the network has fewer blocks than `finetuning.depth`.
    """
    depth = resolve_depth(finetuning.mode, finetuning.depth, blocks)
    frequency = finetuning.unfreeze_frequency
    return Schedule(depth, frequency, resolve_max_epochs(lightning.max_epochs, depth, frequency))
