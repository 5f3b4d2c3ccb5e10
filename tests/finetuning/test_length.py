"""How many optimiser steps an epoch has, counted by hand."""

import pytest

from hsf_tune.config import LightningConfig
from hsf_tune.finetuning.length import EpochLength, epoch_length


@pytest.mark.parametrize(
    ("crops", "batch_size", "accumulate", "least", "expected"),
    [
        (8, 2, 4, 20, EpochLength(40, 1, 20)),  # 4 batches: each a step, five times round
        (12, 1, 4, 20, EpochLength(20, 1, 20)),
        (50, 1, 4, 20, EpochLength(50, 2, 25)),  # accumulating less is enough
        (60, 1, 4, 20, EpochLength(60, 3, 20)),
        (100, 1, 4, 20, EpochLength(100, 4, 25)),  # long enough as it is
        (10, 1, 4, 1, EpochLength(10, 4, 3)),  # one pass, the remainder counted
        (3, 8, 1, 2, EpochLength(16, 1, 2)),  # a batch may hold a crop twice
    ],
)
def test_an_epoch_has_at_least_the_steps_asked_for(crops, batch_size, accumulate, least, expected):
    lightning = LightningConfig(accumulate_grad_batches=accumulate, steps_per_epoch=least)
    assert epoch_length(crops, batch_size, lightning) == expected


def test_the_documented_run_of_a_small_laboratory_has_several_hundred_steps():
    """6 subjects with two sides, 16 epochs: 48 steps where an epoch is one pass, 320 by default."""
    assert 16 * epoch_length(12, 1, LightningConfig(steps_per_epoch=1)).steps == 48
    assert 16 * epoch_length(12, 1, LightningConfig()).steps == 320
