"""A recorded grid: what answers for a strategy, what its true Dice is, what is missing."""

import json

import pytest

from benchmarks.replay.table import load_table
from hsf_tune.errors import ConfigError, SearchError
from hsf_tune.strategy import Strategy, strategy_key

DECODER = {
    "finetuning.depth": 3,
    "finetuning.mode": "decoder",
    "finetuning.unfreeze_frequency": 1,
    "lightning.max_epochs": 8,
}


def test_table_reads_back_as_it_was_saved(make_table, tmp_path):
    """All but digits beyond the sixth survives, failed trainings included."""
    table = make_table(lambda s, f: None if s["models.lr"] > 0.02 else round(0.7 + f / 100, 6))
    table.save(tmp_path / "table.json")
    again = load_table(tmp_path / "table.json")
    assert again.true_dice == table.true_dice
    assert again.strategies == table.strategies
    assert again.splits == table.splits
    assert again.points == table.points
    assert {k: t.dice for k, t in again.trainings.items()} == {
        k: t.dice for k, t in table.trainings.items()
    }
    assert again.missing() == []


@pytest.mark.parametrize(
    ("asked", "recorded"),
    [
        (3e-3, 3e-3),
        (1.7e-3, 1e-3),  # the middle of 1e-3 and 3e-3 is 1.73e-3 in the logarithm
        (1.8e-3, 3e-3),  # nearer to 1e-3 on a linear scale
        (1e-4, 1e-4),
        (2.9e-2, 3e-2),
    ],
)
def test_nearest_rate_in_the_logarithm_answers(make_table, asked, recorded):
    """All other keys match exactly."""
    key = make_table().nearest(Strategy({**DECODER, "models.lr": asked}))
    assert json.loads(key) == {**DECODER, "models.lr": recorded}


def test_strategy_that_was_not_recorded_is_named(make_table):
    """Only the rate may differ."""
    with pytest.raises(SearchError, match=r"test holds no training of .*depth 9"):
        make_table().nearest(Strategy({**DECODER, "finetuning.depth": 9, "models.lr": 1e-3}))


def test_true_dice_is_the_mean_over_all_folds(make_table):
    """By hand: folds of 0.6, 0.7, 0.8 and 0.9."""
    table = make_table(lambda s, f: 0.5 + f / 10)
    assert list(table.true_dice.values()) == pytest.approx([0.75] * 78)
    assert table.best == next(iter(table.strategies))  # of equal ones the first


def test_failed_fold_counts_as_zero(make_table):
    """A strategy that fails on one fold of four keeps three quarters of its Dice."""
    table = make_table(lambda s, f: None if f == 4 and s["models.lr"] == 3e-2 else 0.8)
    key = strategy_key({**DECODER, "models.lr": 3e-2})
    assert table.true_dice[key] == pytest.approx(0.6)
    assert table.regret(key) == pytest.approx(0.2)


def test_missing_trainings_are_listed(make_table):
    """Those never run; not the later folds of a strategy that failed on an earlier one."""

    def recorded(strategy, fold):
        failed = strategy["models.lr"] == 3e-2  # on fold 1, so that later ones were never run
        return fold == 1 if failed else (strategy, fold) != ({**DECODER, "models.lr": 1e-3}, 3)

    table = make_table(lambda s, f: None if s["models.lr"] == 3e-2 else 0.8, only=recorded)
    assert table.missing() == [(strategy_key({**DECODER, "models.lr": 1e-3}), 3)]


@pytest.mark.parametrize("text", ["", "[1]", '{"format": 1}', '{"format": 99}'])
def test_other_files_are_refused(tmp_path, text):
    """With the file's name and what to do."""
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"other\.json .*benchmarks\.record_grid"):
        load_table(path)
