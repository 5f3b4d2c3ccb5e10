"""Many replays of each setting: the rows of the table, and the command that prints it."""

import itertools
from statistics import median

import pytest

from benchmarks.replay.__main__ import main
from benchmarks.replay.compare import (
    agreement,
    compare,
    default_races,
    markdown,
    parse_race,
    settings_of,
    summary,
    whole_grid,
)
from benchmarks.replay.simulate import Bench, SearchSetting
from hsf_tune.errors import ConfigError
from hsf_tune.strategy import describe

SHORT = SearchSetting("random", strategies=4, keep=(2, 1))


@pytest.mark.parametrize(
    ("text", "race"), [("12/6,3,3", (12, (6, 3, 3))), ("16/8", (16, (8,))), ("2/2,2", (2, (2, 2)))]
)
def test_race_is_read_as_it_is_written(text, race):
    """Strategies on fold 1, a slash, those kept on later folds."""
    assert parse_race(text) == race


@pytest.mark.parametrize("text", ["12", "12/", "a/b", "3/6", "6/3,4", "2/0"])
def test_other_races_are_refused(text):
    """With an example of what is right."""
    with pytest.raises(ConfigError, match=f"race '{text}'.*12/6,3,3"):
        parse_race(text)


def test_default_races_cost_the_same_and_fit_the_table(make_table):
    """24 trainings an arm, on no more folds than were recorded; 8 for a small grid."""
    large, small = make_table(), make_table(rates=(1e-3, 1e-2))
    for table, cost in ((large, 24), (small, 8)):
        races = [parse_race(race) for race in default_races(table)]
        assert {n + sum(keep) for n, keep in races} == {cost}
        assert len(races) > 3
    short = [parse_race(race)[1] for race in default_races(make_table(folds=2))]
    assert {len(keep) for keep in short} == {1}


def test_pruners_are_tried_with_the_first_race_only(make_table):
    """And are let act where the folds are smaller than they ask for."""
    races = ["4/2", "3/3"]
    found = settings_of(make_table(), races, ["tpe", "random"])
    assert [(s.strategies, s.sampler, s.pruner) for s in found] == [
        (4, "tpe", "none"), (4, "tpe", "median"), (4, "random", "none"), (4, "random", "median"),
        (3, "tpe", "none"), (3, "random", "none"),
    ]  # fmt: skip
    assert not any(s.judge_small_folds for s in found)
    few = settings_of(make_table(subjects=12), races, ["tpe"])
    assert [s.judge_small_folds for s in few] == [False, True, False]


def test_row_sums_up_its_replays(make_table):
    """Means and medians of the replays with the same seeds, one by one."""
    table = make_table()
    (row,) = compare(table, [SHORT], searches=7, seed=3)
    replays = [Bench(table, SHORT).run(seed) for seed in range(3, 10)]
    best = table.true_dice[table.best]
    assert row.trainings == 2 * (4 + 2 + 1)
    assert row.below == pytest.approx(best - sum(r.dice for r in replays) / 7)
    assert row.reached == sum(r.needed is not None for r in replays) / 7
    counts = sorted(r.needed or 10**6 for r in replays)
    assert row.needed == (counts[3] if counts[3] < 10**6 else None)


def test_processes_change_nothing(make_table):
    """Two processes give the rows of one."""
    table, settings = make_table(), [SHORT, SearchSetting("tpe", strategies=3, keep=(1,))]
    alone = compare(table, settings, searches=3)
    assert compare(table, settings, searches=3, processes=2) == alone


def test_seldom_reached_is_shown_as_never(make_table):
    """Where most searches end on a poor pick there is no number of trainings needed."""
    table = make_table(lambda s, f: 0.9 if s["models.lr"] == 1e-4 else 0.6)
    rows = compare(table, [SearchSetting(strategies=1, keep=(1,))], searches=3)
    assert rows[0].needed is None
    assert "| 0% | never | never |" in markdown(table, rows)


def test_grid_in_random_order_as_by_all_its_orders(make_table):
    """The median position of the first good strategy, by brute force over all orders."""
    table = make_table(
        lambda s, f: 0.8 if s["finetuning.depth"] == 3 else 0.7,
        rates=(1e-3,),
        only=lambda s, f: s["finetuning.mode"] == "decoder",
    )
    decoder = {k: s for k, s in table.strategies.items() if table.arms[k] == "decoder"}
    small = type(table)(
        **{name: getattr(table, name) for name in ("name", "content", "points", "config", "blocks",
                                                   "splits", "arms", "trainings")},
        strategies=decoder,
    )  # fmt: skip
    orders = itertools.permutations(small.regret(key) <= 0.005 for key in decoder)
    positions = [order.index(True) + 1 for order in orders]
    whole = whole_grid(small)
    assert (len(decoder), whole.near) == (6, 2)
    assert whole.needed == 4 * median(positions)
    assert whole.epochs == 6 * 4 * 8


def test_agreement_of_folds(make_table):
    """Folds that rank alike correlate fully, opposite ones inversely."""
    assert agreement(make_table()) == pytest.approx(1)
    upside_down = make_table(lambda s, f: 0.5 + s["models.lr"] * (1 if f == 1 else -1))
    assert agreement(upside_down) == pytest.approx(-1)


def test_summary_names_best_and_default(make_table):
    """And tells how much of the grid is as good."""
    table = make_table()
    text = summary(table)
    assert f"Best: {describe(table.strategies[table.best])} (arm decoder): Dice 0.7750" in text
    assert "78 strategies on 4 folds of at least 4 subjects, 312 trainings, 2496 epochs" in text


def test_command_prints_the_table(make_table, tmp_path, capsys):
    """A row for each setting, and how fast it went."""
    make_table().save(tmp_path / "table.json")
    words = [str(tmp_path / "table.json"), "--races", "4/2", "2/2", "--samplers", "random"]
    with pytest.raises(SystemExit) as ended:
        main([*words, "--searches", "2", "--processes", "1"])
    shown = capsys.readouterr().out
    assert ended.value.code == 0
    assert [line.split("|")[1].strip() for line in shown.splitlines() if "| random |" in line] == [
        "4/2", "4/2", "2/2 (no race)",
    ]  # fmt: skip
    assert "| full grid |" in shown
    assert "6 searches in" in shown


def test_command_refuses_an_unfinished_table(make_table, tmp_path, capsys):
    """A search could ask for what is missing."""
    make_table(only=lambda s, f: f < 4).save(tmp_path / "table.json")
    with pytest.raises(SystemExit) as ended:
        main([str(tmp_path / "table.json")])
    assert ended.value.code == 1
    assert "lacks 78 of 312 trainings" in " ".join(capsys.readouterr().err.split())


def test_command_refuses_more_folds_than_recorded(make_table, tmp_path, capsys):
    """The message says how many there are."""
    make_table(folds=2).save(tmp_path / "table.json")
    with pytest.raises(SystemExit) as ended:
        main([str(tmp_path / "table.json"), "--races", "4/2,1"])
    assert ended.value.code == 1
    assert "a race over 3 folds" in " ".join(capsys.readouterr().err.split())
