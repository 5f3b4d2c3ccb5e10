"""The optimiser: groups that wait, rates by the schedule, clipping relative to the weights."""

import pytest
import torch
from torch import nn

from hsf_tune.finetuning.optimizer import clip_gradients, make_optimizer, set_groups
from hsf_tune.finetuning.schedule import Schedule


def two_groups():
    torch.manual_seed(0)
    return [("final_conv", nn.Linear(3, 2)), ("block", nn.Linear(4, 3))]


def test_frozen_groups_have_no_state():
    groups = two_groups()
    optimizer = make_optimizer(groups, 1e-2)
    groups[1][1].requires_grad_(False)
    groups[0][1](torch.ones(1, 3)).sum().backward()
    optimizer.step()
    assert all(p in optimizer.state for p in groups[0][1].parameters())
    assert not any(p in optimizer.state for p in groups[1][1].parameters())


def test_a_block_that_opens_late_takes_its_first_step_as_one_that_opened_at_once():
    """Adam's first bias-corrected step is lr x sign(gradient); a step count that ran on while the
    block was frozen would make it sqrt(1 - .999^k) / (1 - .9^k) / sqrt(.001) / 10 times as long."""

    def first_step(opening_step):
        groups = two_groups()
        schedule = Schedule(depth=1, frequency=1, max_epochs=2)
        optimizer = make_optimizer(groups, 1e-2)
        block = groups[1][1]
        before = block.bias.detach().clone()
        block.requires_grad_(False)
        steps_per_epoch = opening_step
        for step in range(opening_step + 1):
            opened = step >= opening_step
            block.requires_grad_(opened)
            optimizer.zero_grad()
            groups[0][1](block(torch.ones(1, 4))).sum().backward()
            set_groups(optimizer, schedule, 1e-2, step, steps_per_epoch)
            optimizer.param_groups[1]["lr"] = 1e-2
            if not opened:
                assert block.bias.grad is None
            optimizer.step()
        return (block.bias.detach() - before).abs()

    assert first_step(50) == pytest.approx(torch.full((3,), 1e-2).numpy(), rel=1e-3)


def test_rates_are_the_plans_at_every_step():
    schedule = Schedule(depth=1, frequency=2, max_epochs=4)
    optimizer = make_optimizer(two_groups(), 0.5)
    for step in range(12):
        set_groups(optimizer, schedule, 0.5, step, 3)
        rates = [group["lr"] for group in optimizer.param_groups]
        assert rates == [0.5 * schedule.rate(0, step, 3), 0.5 * schedule.rate(1, step, 3)]
    assert rates[1] > 0


def test_gradients_are_clipped_to_a_hundredth_of_each_units_weights():
    """Rows of norm 5 and 0: limits .05 and .01 x the floor of .001."""
    layer = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    layer.weight.grad = torch.tensor([[30.0, 40.0], [0.6, 0.8]])
    clip_gradients(make_optimizer([("final_conv", layer)], 1e-3))
    assert layer.weight.grad.norm(dim=1).tolist() == pytest.approx([0.05, 1e-5], rel=1e-4)


def test_small_gradients_are_left_as_they_are():
    layer = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[3.0, 4.0]]))
    layer.weight.grad = torch.tensor([[0.003, 0.004]])
    clip_gradients(make_optimizer([("final_conv", layer)], 1e-3))
    assert layer.weight.grad.flatten().tolist() == pytest.approx([0.003, 0.004])


def test_there_is_no_weight_decay():
    layer = nn.Linear(2, 1, bias=False)
    before = layer.weight.detach().clone()
    optimizer = make_optimizer([("final_conv", layer)], 1e-1)
    layer.weight.grad = torch.zeros_like(layer.weight)
    optimizer.step()
    assert torch.equal(layer.weight.detach(), before)
