"""What the first screen says, in which case."""

from pathlib import Path

import pytest

from hsf_tune.installed import typed
from hsf_tune.report.first import first_screen, in_words

ENCODER = {"finetuning.mode": "encoder", "finetuning.depth": 2, "models.lr": 3e-3,
           "finetuning.unfreeze_frequency": 2, "lightning.max_epochs": 20}  # fmt: skip
DEFAULT = {**ENCODER, "finetuning.mode": "decoder", "finetuning.depth": 3}


def group(dice, **own):
    """Fields of an arm or a baseline, as in report.json."""
    return {"confirmed_dice_mean": dice, "confirmed_dice_ci95": [dice - 0.01, dice + 0.01],
            "n_subjects": 12, "explored_dice": dice, **own}  # fmt: skip


def summary(status="winner", arm="encoder", strategy=ENCODER, recommended="encoder", base=0.70):
    best = {"best_explored_dice": 0.83, "best_confirmed_ci95": [0.79, 0.81]}
    return {
        "verdict": {"status": status, "arm": arm, "sentence": "So it is."},
        "recommendation": {"strategy": strategy, "arm": recommended, "reason": "Because.",
                           **group(base if not strategy else 0.80)},
        "arms": {
            "encoder": group(0.79, best_strategy=ENCODER, best_confirmed_dice=0.80, **best),
            "decoder": group(0.76, best_strategy=None, best_confirmed_dice=None, **best),
        },
        "baselines": {"base": group(base), "documented_default": group(0.78)},
        "differences": [
            {"between": ["encoder", "base"], "claim": "strategy", "mean": 0.1, "ci95": [0.08, 0.12]},
            {"between": ["encoder", "documented_default"], "claim": "strategy", "mean": 0.02,
             "ci95": [-0.01, 0.05]},
        ],
    }  # fmt: skip


def test_a_winner_is_answered_with_its_dice_and_its_gains():
    """The strategy's own Dice, not its arm's; intervals as they were tested."""
    screen = first_screen(summary(), Path("outputs/a b/best_strategy.yaml"))
    assert (screen["question"], screen["answer"]) == ("Encoder or decoder?", "The encoder")
    assert screen["level"].dice == 0.80
    base, default = screen["gains"]
    assert (base.mean, base.before, base.remark) == (0.1, 0.70, "")
    assert (default.mean, default.remark) == (0.02, "may be nothing")
    assert screen["command"] == typed("finetune", "strategy=outputs/a b/best_strategy.yaml")


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        ("equivalent", "Either: no difference that matters"),
        ("undecided", "These data can't tell"),
        ("not_comparable", "Not comparable yet"),
        ("not_confirmed", "Not known yet"),
        ("single_arm", "Only one part was searched"),
    ],
)
def test_without_a_winner_the_answer_says_so(status, answer):
    """No arm is named."""
    assert first_screen(summary(status, None), Path("r"))["answer"] == answer


def test_a_base_that_is_best_is_recommended_as_it_is():
    """No command, no gain over itself."""
    screen = first_screen(summary(strategy={}, recommended="base", base=0.9), Path("r"))
    assert screen["use"].startswith("Don't finetune")
    assert screen["level"].dice == 0.9
    assert screen["command"] == ""
    assert [gain.over for gain in screen["gains"]] == ["the documented default"]


def test_the_documented_default_gains_over_the_base_alone():
    """Where that was not tested, the difference of the two means."""
    screen = first_screen(summary(strategy=DEFAULT, recommended="decoder"), Path("r"))
    assert screen["is_default"]
    (gain,) = screen["gains"]
    assert gain.mean == pytest.approx(0.10)
    assert gain.limits is None


def test_before_the_confirmation_nothing_is_gained():
    """The exploration's Dice, said to be flattered."""
    explored = summary("not_confirmed", None)
    explored["recommendation"]["confirmed_dice_mean"] = None
    screen = first_screen(explored, Path("r"))
    assert not screen["level"].confirmed
    assert screen["level"].dice == 0.83
    assert screen["gains"] == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "Tune the encoder: 2 blocks, one more every 2 epochs, learning rate 0.003, 20 epochs"),
        ({"finetuning.unfreeze_frequency": 1}, "2 blocks, one more every epoch"),
        ({"finetuning.unfreeze_frequency": 0}, "2 blocks, all from the start"),
        ({"finetuning.depth": 1}, "1 block, opened after 2 epochs"),
        ({"finetuning.depth": 0}, "Tune the final convolution alone, learning rate 0.003"),
        ({"models.dropout": 0.1}, "20 epochs, dropout 0.1"),
    ],
)
def test_a_strategy_is_told_in_words(changes, words):
    """As one would tell a colleague."""
    assert words in in_words({"strategy": {**ENCODER, **changes}, "arm": "encoder"})
