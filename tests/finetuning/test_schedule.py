"""The schedule, held against the closed form of its definition."""

import math

import pytest

from hsf_tune.config import FinetuningConfig, LightningConfig
from hsf_tune.errors import ConfigError
from hsf_tune.finetuning.schedule import Schedule, make_schedule, resolve_max_epochs
from hsf_tune.modes import Halves, n_blocks

BLOCKS = n_blocks(Halves(tuple("abcd"), tuple("efg")))
ALL_PLANS = [
    (mode, depth, frequency)
    for mode, n in BLOCKS.items()
    for depth in range(-1, n + 1)
    for frequency in (1, 2, 3, 4, 7)
]


def test_the_published_network_has_four_encoders_and_three_decoders():
    assert BLOCKS == {"encoder": 4, "decoder": 3, "full": 7}


@pytest.mark.parametrize(("mode", "depth", "frequency"), ALL_PLANS)
def test_open_blocks_follow_the_closed_form(mode, depth, frequency):
    """At epoch e, min(d, e // f) blocks are open: counted here by adding one at each opening."""
    schedule = make_schedule(FinetuningConfig(mode, depth, frequency), LightningConfig(), BLOCKS)
    d = BLOCKS[mode] if depth == -1 else depth
    opened = 0
    for epoch in range(schedule.max_epochs):
        if epoch > 0 and epoch % frequency == 0 and opened < d:
            opened += 1
        assert schedule.open_blocks(epoch) == opened
    assert opened == d
    assert schedule.never_opened == 0


@pytest.mark.parametrize(
    ("depth", "frequency", "epochs"),
    [(3, 4, 16), (4, 4, 20), (0, 4, 4), (1, 4, 8), (7, 1, 8), (3, 0, 16)],
)
def test_auto_epochs_are_the_documented_rule_of_thumb(depth, frequency, epochs):
    assert resolve_max_epochs("auto", depth, frequency) == epochs


def test_at_frequency_0_all_blocks_are_open_from_the_start():
    schedule = Schedule(depth=3, frequency=0, max_epochs=5)
    assert [schedule.open_blocks(epoch) for epoch in range(5)] == [3] * 5
    assert [schedule.opening_epoch(group) for group in range(4)] == [0] * 4
    assert schedule.never_opened == 0


def test_the_documented_encoder_at_16_epochs_never_opens_its_fourth_block():
    assert Schedule(depth=4, frequency=4, max_epochs=16).never_opened == 1


@pytest.mark.parametrize(("mode", "depth"), [("encoder", 5), ("decoder", 4), ("full", 8)])
def test_more_blocks_than_the_network_has_are_refused_by_number(mode, depth):
    with pytest.raises(ConfigError, match=rf"finetuning.depth is {depth}.*{BLOCKS[mode]} blocks"):
        make_schedule(FinetuningConfig(mode, depth, 2), LightningConfig(), BLOCKS)


@pytest.mark.parametrize("max_epochs", [1, 2, 3, 8, 20])
@pytest.mark.parametrize("steps_per_epoch", [1, 2, 5])
@pytest.mark.parametrize("frequency", [1, 2, 4])
def test_an_open_group_has_a_rate_above_zero_from_its_first_step_to_its_last(
    max_epochs, steps_per_epoch, frequency
):
    schedule = Schedule(depth=3, frequency=frequency, max_epochs=max_epochs)
    for group in range(4):
        first = schedule.opening_epoch(group) * steps_per_epoch
        for step in range(max_epochs * steps_per_epoch):
            rate = schedule.rate(group, step, steps_per_epoch)
            assert (rate > 0) == (step >= first)
            assert rate <= 1


def test_each_group_warms_up_to_the_full_rate_and_ends_near_zero_with_the_run():
    """100 steps in all: the block that opens half way has warm-up and cosine of its own."""
    schedule = Schedule(depth=1, frequency=10, max_epochs=20)
    for group, total in ((0, 200), (1, 100)):
        first = 200 - total
        rates = [schedule.rate(group, s, 10) for s in range(first, 200)]
        warmup = total // 10
        assert rates[:warmup] == pytest.approx([(k + 1) / (warmup + 1) for k in range(warmup)])
        assert rates[warmup] == 1.0
        half = warmup + (total - warmup) // 2
        assert rates[half] == pytest.approx(0.5, abs=0.01)
        last = (1 + math.cos(math.pi * (total - 1 - warmup) / (total - warmup))) / 2
        assert rates[-1] == pytest.approx(last)
        assert rates[-1] < 0.01
