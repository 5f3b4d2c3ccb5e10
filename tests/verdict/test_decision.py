"""What a difference allows to be claimed."""

import math

import numpy as np
import pytest
from scipy import stats

from hsf_tune.config import VerdictConfig
from hsf_tune.verdict.decision import SubjectsNeeded, decide, holm, subjects_needed
from hsf_tune.verdict.difference import Estimate, Part
from hsf_tune.verdict.recommendation import recommend_explored
from hsf_tune.verdict.scores import Explored

MARGINS = VerdictConfig()


def made(mean, se, n=20, luck=0.0, lasting=0.0):
    """An estimate with this mean and standard error; `luck` has as many degrees of freedom."""
    extra = (Part(luck, n - 1),) if luck else ()
    sampling = Part(se**2 - luck, n - 1)
    every = np.arange(n)
    return Estimate(mean, sampling, lasting, extra, every, every, np.full(n, mean))


@pytest.mark.parametrize(
    ("mean", "se", "n", "expected"),
    [
        # t(19): 2.093 at 95 %, 1.729 at 90 %
        (0.010, 0.0023, 20, "superior"),  # .0052 to .0148
        (0.010, 0.0024, 20, "undecided"),  # .00498: just not beyond .005
        (-0.010, 0.0023, 20, "superior"),
        (0.000, 0.0057, 20, "equivalent"),  # 90 %: +-.00986
        (0.000, 0.0058, 20, "undecided"),  # +-.01003
        (0.0075, 0.001, 20, "superior"),  # inside +-.010 too: superior takes precedence
        (0.100, 0.001, 5, "undecided"),  # below six subjects nothing is decided
        (0.000, 0.0001, 5, "undecided"),
        (0.100, 0.001, 6, "superior"),
    ],
)
def test_decisions(mean, se, n, expected):
    """Intervals by hand from the t table, against the margins."""
    assert decide(made(mean, se, n), MARGINS) == expected


def test_margins_are_configurable():
    """A laboratory that cares about .02 only calls .01 equivalent."""
    wide = VerdictConfig(superior=0.02, equivalent=0.03)
    assert decide(made(0.010, 0.002), MARGINS) == "superior"
    assert decide(made(0.010, 0.002), wide) == "equivalent"


def with_p(p, n=20, se=0.003):
    """An estimate whose two-sided test against the superiority margin has this p."""
    return made(MARGINS.superior + stats.t.isf(p / 2, n - 1) * se, se, n)


@pytest.mark.parametrize(
    ("p_values", "superior"),
    [
        ([0.010, 0.020, 0.040], [True, True, True]),  # thresholds .0167, .025, .05
        ([0.040, 0.010, 0.030], [False, True, False]),  # .03 > .025 stops the rest
        ([0.020, 0.020, 0.020], [False, False, False]),
        ([0.049], [True]),
    ],
)
def test_holm_corrects_superiority(p_values, superior):
    """Holm's thresholds by hand, in whatever order the tests come."""
    statuses = holm([with_p(p) for p in p_values], MARGINS)
    assert [s == "superior" for s in statuses] == superior


def test_holm_never_decides_below_six_subjects():
    """As everywhere."""
    assert holm([with_p(1e-6, n=5), made(0.0, 1e-5, n=5)], MARGINS) == ["undecided"] * 2


def test_subjects_needed_are_the_fewest_that_decide():
    """With as many subjects the same difference is decided, with one fewer it is not."""
    found = made(0.012, 0.02 / math.sqrt(10), n=10)
    low, high = subjects_needed(found, MARGINS)
    best = 0.012 + 0.6745 * 0.02 / math.sqrt(10)

    def decided(mean, n):
        half = stats.t.ppf(0.975, n - 1) * 0.02 / math.sqrt(n)
        near = stats.t.ppf(0.95, n - 1) * 0.02 / math.sqrt(n)
        return mean - half > 0.005 or mean + near < 0.010

    assert decided(best, low)
    assert not decided(best, low - 1)
    assert high is None or high > low


def test_not_reachable_where_the_strategies_of_an_arm_differ_as_much():
    """The luck of the search does not shrink with subjects."""
    found = made(0.008, 0.02, n=20, luck=0.019**2)
    assert subjects_needed(found, MARGINS) is None


def test_not_reachable_where_trainings_differ_as_much():
    """Ten folds stay ten trainings, whoever is scored in them."""
    found = made(0.008, 0.02, n=20, lasting=0.019**2)
    assert subjects_needed(found, MARGINS) is None


def test_perhaps_never_where_only_a_lucky_difference_is_reachable():
    """The upper end is open when part of the plausible differences can't be decided."""
    found = made(0.012, 0.006, n=20, luck=0.0035**2)
    needed = subjects_needed(found, MARGINS)
    assert isinstance(needed, SubjectsNeeded)
    assert needed.low > 20
    assert needed.high is None


def test_an_exploration_does_not_recommend_what_the_documented_default_beat():
    """Fold 1: default .16, best of the arms .10, which is better only where the default never ran."""
    leader = Explored("a", "encoder", {"finetuning.mode": "encoder"}, {1: 0.10, 2: 0.30})
    default = Explored("d", "documented_default", {"finetuning.mode": "decoder"}, {1: 0.16})
    found = recommend_explored([leader, default])
    assert found.strategy == {"finetuning.mode": "decoder"}
    assert "0.160" in found.reason
    assert "0.100" in found.reason
    worse = Explored("d", "documented_default", {"finetuning.mode": "decoder"}, {1: 0.09})
    assert recommend_explored([leader, worse]).strategy == leader.strategy


def test_arms_that_a_stopped_search_took_to_different_folds_are_compared_on_those_of_both():
    """The encoder has been on two folds, the whole network on one, where it is far ahead."""
    encoder = Explored("a", "encoder", {"finetuning.mode": "encoder"}, {1: 0.49, 2: 0.49})
    worse = Explored("b", "encoder", {"finetuning.mode": "encoder"}, {1: 0.50})
    full = Explored("c", "full", {"finetuning.mode": "full"}, {1: 0.75})
    found = recommend_explored([encoder, worse, full])
    assert (found.arm, found.strategy) == ("full", full.strategy)
    assert "0.750 over 1 fold." in found.reason
    assert recommend_explored([encoder, worse]).strategy == encoder.strategy
