"""How trials become arrays."""

import math

import numpy as np
import pytest

from hsf_tune.records import Score, TrialEnded, TrialRecord, TrialStarted
from hsf_tune.strategy import strategy_key
from hsf_tune.verdict.scores import (
    gather,
    gather_exploration,
    subjects_of_fold_1,
)

ENCODER = {"finetuning.mode": "encoder", "models.lr": 1e-3}
DECODER = {"finetuning.mode": "decoder", "models.lr": 1e-3}


def test_sides_and_labels_are_averaged_within_the_subject():
    """By hand: left (.8 + .6)/2 = .7, right .9 (its CA2 is in neither volume); subject .8."""
    scores = [
        Score("d/s1", "d--s1--left", "CA1", "dice", 0.8),
        Score("d/s1", "d--s1--left", "CA2", "dice", 0.6),
        Score("d/s1", "d--s1--left", "CA1", "volume_mm3", 700.0),
        Score("d/s1", "d--s1--right", "CA1", "dice", 0.9),
        Score("d/s1", "d--s1--right", "CA2", "dice", math.nan),
    ]
    started = TrialStarted("t", "confirm", "encoder", ENCODER, 1, 42, 20, (), ("d/s1",))
    found = gather([TrialRecord(started, {}, TrialEnded("t", "finished", scores=scores))])
    one = found.finalists["encoder"][0]
    assert one.dice == pytest.approx(np.array([[0.8]]))
    assert one.labels["CA1"] == pytest.approx(np.array([[0.85]]))
    assert one.labels["CA2"] == pytest.approx(np.array([[0.6]]))


def test_baselines_are_told_from_finalists(make_trial):
    """The unchanged base has no strategy; the default has its own arm."""
    found = gather(
        [
            make_trial("encoder", ENCODER, {"d/s1": 0.8}),
            make_trial("documented_default", DECODER, {"d/s1": 0.7}),
            make_trial("base", {}, {"d/s1": 0.6}),
        ]
    )
    assert list(found.finalists) == ["encoder"]
    assert found.default.mean == pytest.approx(0.7)
    assert found.base.mean == pytest.approx(0.6)


def test_a_default_that_is_also_a_finalist_serves_as_both(make_trial):
    """Its trials ran once, under the arm that found it."""
    trials = [make_trial("decoder", DECODER, {"d/s1": 0.7})]
    found = gather(trials, documented_default=dict(reversed(DECODER.items())))
    assert found.default is found.finalists["decoder"][0]
    assert gather(trials).default is None


def test_a_strategy_that_two_arms_hand_on_counts_for_both(make_trial):
    """It ran once, under the arm that was first; what an arm did not hand on is left out."""
    other = {**ENCODER, "models.lr": 5e-3}
    found = gather(
        [
            make_trial("encoder", ENCODER, {"d/s1": 0.8}),
            make_trial("encoder", other, {"d/s1": 0.7}),
        ],
        members={"encoder": [strategy_key(ENCODER)], "wide": [strategy_key(ENCODER)]},
    )
    assert {arm: [c.arm for c in f] for arm, f in found.finalists.items()} == {
        "encoder": ["encoder"],
        "wide": ["wide"],
    }
    assert found.finalists["wide"][0].strategy == ENCODER


def test_other_phases_and_unfinished_trials_are_passed_over(make_trial):
    """Only finished confirmation trials are quoted."""
    found = gather(
        [
            make_trial("encoder", ENCODER, {"d/s1": 0.8}, phase="explore"),
            make_trial("encoder", ENCODER, {"d/s1": 0.8}, status="failed"),
        ]
    )
    assert not found.finalists
    assert not found.subjects


def test_the_bases_single_score_pairs_with_every_seed(make_trial):
    """Nothing is trained, so there is no seed to vary."""
    trials = [make_trial("encoder", ENCODER, {"d/s1": 0.8}, seed=s) for s in (42, 43)]
    found = gather([*trials, make_trial("base", {}, {"d/s1": 0.6}, seed=42)])
    assert found.base.dice.tolist() == [[0.6, 0.6]]


def test_a_finalist_without_a_whole_fold_is_left_out_and_said_so(make_trial):
    """A failed fold must not shrink what everyone is compared on."""
    second = {**ENCODER, "models.lr": 2e-3}
    found = gather(
        [
            make_trial("encoder", ENCODER, {"d/s1": 0.8}, fold=1),
            make_trial("encoder", ENCODER, {"d/s2": 0.8}, fold=2),
            make_trial("encoder", second, {"d/s1": 0.9}, fold=1),
        ]
    )
    assert [c.strategy for c in found.finalists["encoder"]] == [ENCODER]
    assert found.dropped == (
        "1 of 2 finalists of encoder lack scores on whole folds of the confirmation and are left"
        " out of the verdict.",
    )


def test_exploration_is_kept_fold_by_fold(make_trial):
    """Arm, strategy and the mean of each fold."""
    trials = [
        make_trial("encoder", ENCODER, {"d/s1": 0.8, "d/s2": 0.6}, phase="explore", fold=1),
        make_trial("encoder", ENCODER, {"d/s3": 0.9}, phase="explore", fold=2),
    ]
    (found,) = gather_exploration(trials)
    assert found.dice_of_fold == pytest.approx({1: 0.7, 2: 0.9})
    assert found.dice == pytest.approx(0.8)
    assert subjects_of_fold_1(trials) == {"d/s1", "d/s2"}
