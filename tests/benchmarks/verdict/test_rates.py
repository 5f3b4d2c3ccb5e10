"""How often the verdict is right, small: the whole grid is `python -m benchmarks.verdict`."""

import numpy as np
import optuna
import pytest

from benchmarks.verdict import landscapes
from benchmarks.verdict.bars import bars, broken, families
from benchmarks.verdict.rates import rates
from benchmarks.verdict.searches import DESIGNS, TRAINING_SD, Setting, draw
from benchmarks.verdict.settings import grid, read_rates, write_rates
from benchmarks.verdict.tables import DOC, tables
from hsf_tune.verdict import comparisons
from hsf_tune.verdict.difference import Part

SEARCHES = 300
CHANCE = 3 * (0.05 * 0.95 / SEARCHES) ** 0.5  # three standard errors of a rate of 5 %
SMALL = [
    Setting(6, sd=0.03, spread=0.0, fold=0.0),
    Setting(20, spread=0.1, fold=1.0),
    Setting(40, spread=0.03, fold=0.0, landscape="slope"),
    Setting(20, spread=0.1, fold=0.0, landscape="uneven"),
    Setting(14, spread=0.1, people="heavy"),
    Setting(12, spread=0.03, fold=1.0, design="demo"),
    Setting(10, effect=0.01, spread=0.0, fold=0.0),
    Setting(10, base=0.01),
]


@pytest.fixture(scope="module")
def small():
    return {setting: rates(setting, SEARCHES, seed=1) for setting in SMALL}


def test_every_bar_holds_on_a_small_grid(small):
    """False winners, coverage, false equivalents of each claim, and the base; three standard
    errors are allowed."""
    assert [str(bar) for bar in broken(small, slack=CHANCE)] == []
    assert {bar.what.split(":")[0] for bar in bars(small)} >= {
        "strategy", "arm", "documented default", "base", "base scores best, yet finetuning advised",
    }  # fmt: skip


def test_a_bar_breaks_without_the_luck_of_the_search(monkeypatch):
    """What the arm claim's error is for: strategies that differ by .1 otherwise name a winner."""
    monkeypatch.setattr(comparisons, "search_luck", lambda tried, finalists: Part(0.0, 5))
    found = {s: rates(s, 100, seed=1) for s in (Setting(20, spread=0.1), SMALL[2])}
    assert any("arm: false winner" in bar.what for bar in broken(found, slack=CHANCE))
    assert any("arm: coverage" in bar.what for bar in broken(found, slack=CHANCE))


def test_luck_in_the_search_would_pass_for_a_better_arm():
    """Why a strategy claim is worded as one: of equal arms, one recipe does beat the other."""
    found = rates(Setting(40, sd=0.010, spread=0.03, fold=0.0), 200, seed=1)
    assert found["strategy superior"] > 0.15
    assert found["strategy false"] < 0.05


def test_a_difference_of_two_points_is_found_with_twenty_subjects():
    """SD .014, spread .01, no fold variance: about 79 % by the strategy claim, 50 % by the arm's."""
    found = rates(Setting(20, fold=0.0, effect=0.02), 500, seed=1)
    assert found["strategy superior"] == pytest.approx(0.79, abs=0.06)
    assert found["arm superior"] == pytest.approx(0.50, abs=0.07)


def test_the_committed_rates_are_those_of_the_grid_and_of_this_code():
    """A setting measured again gives the row to its last digit: after a change, measure anew."""
    known = read_rates()
    assert set(known) == set(grid())
    setting = Setting(14, spread=0.03, fold=1.0, landscape="alike")
    again = rates(setting, 2000)
    assert {name: pytest.approx(v, rel=1e-4) for name, v in known[setting].items()} == again
    assert broken(known) == []


def test_the_docs_tables_are_made_from_the_committed_rates():
    """They are generated: python -m benchmarks.verdict."""
    assert tables(read_rates()) in DOC.read_text(encoding="utf-8")


def test_rates_are_read_back_as_they_were_written(tmp_path, small):
    """So that a run that was stopped goes on."""
    write_rates(small, tmp_path / "rates.csv")
    again = read_rates(tmp_path / "rates.csv")
    assert list(again) == SMALL
    for setting, row in again.items():
        assert row == {k: pytest.approx(v, rel=1e-4) for k, v in small[setting].items()}


def test_families_are_the_means_of_settings_that_share_a_value():
    """By hand."""
    found = families({Setting(6): 0.02, Setting(20): 0.04, Setting(20, spread=0.1): 0.09})
    assert (found["n 20"], found["spread 0.01"]) == (pytest.approx(0.065), pytest.approx(0.03))


def test_differences_between_strategies_have_the_variance_that_a_setting_names():
    """SD of a subject's paired difference .014; as much between folds, and two trainings' luck."""
    setting = Setting(20, spread=0.0, fold=1.0)
    drawn = draw(setting, 2000, np.random.default_rng(0))
    d = drawn.scores[:, 0, 0, :, 0] - drawn.scores[:, 1, 0, :, 0]
    pairs = d.reshape(-1, 2, 10)  # subjects i and i + 10 share a fold
    within = pairs.var(axis=1, ddof=1).mean()
    between = pairs.mean(axis=1).var() - within / 2
    assert within == pytest.approx(0.014**2, rel=0.05)
    assert between == pytest.approx(0.014**2 + 2 * TRAINING_SD**2, rel=0.1)


def test_guided_searches_end_where_optunas_do():
    """The vectorised Parzen estimator against Optuna's own sampler: mean and SD over searches of
    the best of twelve, on the sloping landscape."""
    worth = landscapes._unit(landscapes.slope)
    design, rng = DESIGNS["shipped"], np.random.default_rng(0)
    truth = landscapes.PROPOSERS["slope"](
        Setting(20, spread=1.0), design, np.zeros((1000, 2, 12, 4)), rng
    )
    ours = truth[:, 0].max(axis=1)  # arm 0 starts at random points only
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    theirs = []
    for seed in range(60):
        sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=landscapes.STARTUP)
        study = optuna.create_study(direction="maximize", sampler=sampler)
        study.optimize(
            lambda t: float(
                worth(np.array([t.suggest_float("rate", 0, 1), t.suggest_float("depth", 0, 1)]))
            ),
            n_trials=12,
        )
        theirs.append(study.best_value)
    error = np.std(theirs) / 60**0.5
    assert ours.mean() == pytest.approx(np.mean(theirs), abs=3 * error)
    assert ours.std() == pytest.approx(np.std(theirs), rel=0.4)
