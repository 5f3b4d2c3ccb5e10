"""What a search tried, checked before its arms are compared."""

import math

import numpy as np
import pytest

from hsf_tune.config import VerdictConfig
from hsf_tune.verdict import coverage, gather
from hsf_tune.verdict.coverage import Range, Scope, check_arms, ranges_of, reservations
from hsf_tune.verdict.scores import Confirmed, gather_tried

MARGINS = VerdictConfig()
LR = "models.lr"


def finalist(arm, lr, late_gain=math.nan, **others):
    return Confirmed(f"{arm}{lr}", arm, {LR: lr, **others}, np.ones((2, 1)), late_gain=late_gain)


def checked(rates, finalists=None, low=1e-4, high=1e-1):
    """Checks of arms that tried these rates; the first is the finalist's."""
    scope = Scope(
        {arm: {LR: Range(low, high)} for arm in rates},
        {arm: [{LR: lr} for lr in own] for arm, own in rates.items()},
    )
    finalists = finalists or {arm: [finalist(arm, own[0])] for arm, own in rates.items()}
    return check_arms(scope, finalists, MARGINS)


def test_only_rates_are_ranges_that_could_be_wider():
    """All blocks is all blocks; a choice was made by hand; what all arms share counts for each."""
    space = {
        "models.lr": {"log": [1e-4, "1e-1"]},
        "arms": {
            "encoder": {"finetuning.depth": {"int": [1, 4]}, "finetuning.mode": "encoder"},
            "head": {"models.lr": {"log": [1e-3, 1e-2]}, "a": {"choice": [1, 2]}},
        },
    }
    expected = {"encoder": {LR: Range(1e-4, 0.1)}, "head": {LR: Range(1e-3, 1e-2)}}
    assert ranges_of(space) == expected


@pytest.mark.parametrize(
    ("encoder", "decoder", "share"),
    [
        ((1e-4, 1e-1), (1e-4, 1e-1), 1.0),
        ((1e-4, 1e-2), (1e-3, 1e-1), 1 / 3),  # one decade of three
        ((1e-4, 1e-3), (1e-2, 1e-1), 0.0),
        ((1e-3, 1e-3), (1e-3, 1e-3), 1.0),
        ((1e-3, 1e-3), (1e-2, 1e-2), 0.0),
    ],
)
def test_overlap_is_the_share_of_decades_that_both_tried(encoder, decoder, share):
    """By hand, in logarithms; below a half nothing is claimed, in either direction."""
    found = checked({"encoder": encoder, "decoder": decoder})
    assert found["encoder"].overlap["decoder"] == pytest.approx(share)
    assert found["decoder"].overlap["encoder"] == pytest.approx(share)
    assert found["encoder"].withholds("decoder") == found["decoder"].withholds("encoder")
    assert found["encoder"].withholds("decoder") == (share < 0.5)


def test_arms_of_which_nothing_is_known_are_compared():
    """A run without its space file, or an arm with a fixed rate."""
    found = check_arms(Scope(), {a: [finalist(a, 1e-3)] for a in ("encoder", "head")}, MARGINS)
    assert not found["encoder"].withholds("head")
    assert found["encoder"].tried == 0


def test_a_finalist_at_the_edge_of_its_range_is_said():
    """.028 of a range to .03; .01 is not at its edge, nor is depth 4 of 4."""
    finalists = {"full": [finalist("full", 0.028, **{"finetuning.depth": 4})],
                 "head": [finalist("head", 0.01)]}  # fmt: skip
    found = checked({"full": (0.028,), "head": (0.01,)}, finalists, high=0.03)
    assert [(e.key, e.value) for e in found["full"].at_edge] == [(LR, 0.028)]
    assert found["head"].at_edge == ()
    (sentence,) = reservations(found)
    assert "finalist of full has models.lr 0.028, at the edge of its range (0.0001 to 0.03)" in (
        sentence
    )


def test_a_finalist_that_was_still_improving_is_said(make_trial):
    """Real records: .02 gained in the last quarter of twenty epochs, against none."""
    from hsf_tune.records import EpochEnded

    trials = []
    for lr, level in ((1e-3, 0.5), (2e-3, 0.8)):
        record = make_trial("encoder", {LR: lr}, {"d/s1": 0.8})
        for epoch in range(20):
            late = 0.02 * (epoch - 14) / 5 if epoch > 14 else 0.0
            dice = level + (late if lr == 1e-3 else 0.0)
            record.epochs[epoch] = EpochEnded(record.id, epoch, {"val_dice": dice})
        trials.append(record)
    members = gather(trials).finalists
    gains = sorted(c.late_gain for c in members["encoder"])
    assert gains == pytest.approx([0.0, 0.02])
    found = check_arms(Scope(), members, MARGINS)
    assert (found["encoder"].improving, found["encoder"].finalists) == (1, 2)
    assert "1 of 2 finalists of encoder were still improving" in next(reservations(found))


def test_unsettled_finalists_withhold_a_claim_once_that_is_switched_on(monkeypatch):
    """Until trainings are long enough it is only said."""
    finalists = {"encoder": [finalist("encoder", 1e-3, late_gain=0.02)],
                 "decoder": [finalist("decoder", 1e-3, late_gain=0.0)]}  # fmt: skip
    found = checked({"encoder": (1e-3,), "decoder": (1e-3,)}, finalists)
    assert not found["encoder"].withholds("decoder")
    monkeypatch.setattr(coverage, "WITHHOLD_UNSETTLED", True)
    assert found["encoder"].withholds("decoder")


def test_strategies_that_failed_were_tried(make_trial):
    """A rate at which training diverges was looked at, and each strategy counts once."""
    trials = [
        make_trial("encoder", {LR: 1e-3}, {"d/s1": 0.8}, phase="explore"),
        make_trial("encoder", {LR: 1e-3}, {"d/s2": 0.8}, phase="explore", fold=2),
        make_trial("encoder", {LR: 1e-1}, {"d/s1": 0.0}, phase="explore", status="failed"),
        make_trial("encoder", {LR: 1e-2}, {"d/s1": 0.8}),
    ]
    assert gather_tried(trials) == {"encoder": [{LR: 1e-3}, {LR: 1e-1}]}
