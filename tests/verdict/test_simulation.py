"""The verdict's promises on simulated searches, and what must not change a difference."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hsf_tune.verdict.difference import estimate

SCRIPT = Path(__file__).parents[2] / "scripts" / "simulate_verdict.py"


@pytest.fixture(scope="module")
def simulation():
    spec = importlib.util.spec_from_file_location("simulate_verdict", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("n", "sd", "spread"), [(6, 0.03, 0.0), (14, 0.014, 0.01), (40, 0.01, 0.01)]
)
def test_false_winners_of_the_arm_claim_are_rare(simulation, n, sd, spread):
    """At most 5 %, three standard errors of 1000 searches allowed; worst seen: 3.3 %."""
    found = simulation.rates(simulation.Cell(n, sd, spread, 0.0), 1000, seed=1)
    assert found.arm_right + found.arm_wrong < 0.05 + 3 * (0.05 * 0.95 / 1000) ** 0.5


def test_luck_in_the_search_would_pass_for_a_better_arm(simulation):
    """Why the arm claim carries the finalists' variance: the strategy claim, misread, errs."""
    found = simulation.rates(simulation.Cell(40, 0.01, 0.01, 0.0), 500, seed=1)
    assert found.strategy > 0.15


def test_a_difference_of_two_points_is_found_with_twenty_subjects(simulation):
    """SD .014, spread .01: about 80 % by the strategy claim, 64 % by the arm claim."""
    found = simulation.rates(simulation.Cell(20, 0.014, 0.01, 0.02), 1000, seed=1)
    assert found.strategy == pytest.approx(0.80, abs=0.06)
    assert found.arm_right == pytest.approx(0.64, abs=0.06)


@st.composite
def two_arms(draw):
    """Scores (2, finalists, subjects, seeds) with some missing, and folds."""
    n, k = draw(st.integers(3, 12)), draw(st.integers(2, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scores = rng.normal(0.8, 0.05, (2, k, n, 2))
    scores[:, :, rng.random(n) < 0.2, 1] = np.nan
    return scores, np.arange(n) % 3


@settings(max_examples=60, deadline=None)
@given(two_arms())
def test_swapping_the_arms_only_turns_the_sign(made):
    """Neither arm is privileged."""
    (a, b), folds = made
    one, other = (estimate(*pair, folds, arm_claim=True) for pair in ((a, b), (b, a)))
    assert other.mean == pytest.approx(-one.mean)
    assert other.se == pytest.approx(one.se)
    low, high = one.interval(0.95)
    assert other.interval(0.95) == pytest.approx((-high, -low))


@settings(max_examples=60, deadline=None)
@given(two_arms(), st.integers(0, 2**32 - 1))
def test_a_subjects_difficulty_and_place_change_nothing(made, seed):
    """Paired differences: a hard case is hard for both; the order is nobody's."""
    (a, b), folds = made
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(folds))
    harder = rng.normal(0, 0.1, len(folds))[None, :, None]
    one = estimate(a, b, folds, arm_claim=False)
    other = estimate((a + harder)[:, order], (b + harder)[:, order], folds[order], arm_claim=False)
    assert other.mean == pytest.approx(one.mean)
    assert other.se == pytest.approx(one.se)


@settings(max_examples=60, deadline=None)
@given(two_arms())
def test_an_arm_claim_is_never_surer_than_its_subjects_alone(made):
    """The finalists' variance only widens; the 90 % interval lies inside the 95 % one."""
    (a, b), folds = made
    plain, arm = (estimate(a, b, folds, arm_claim=claim) for claim in (False, True))
    assert arm.se >= plain.se
    assert arm.mean == plain.mean
    assert 0 <= arm.finalists_noise <= arm.from_finalists
    assert arm.interval(0.95)[0] <= arm.interval(0.90)[0]
