"""One replayed search: what it finds, what it costs, and that it repeats."""

import json
from dataclasses import replace

import pytest

from benchmarks.replay.simulate import Bench, SearchSetting, _InMemory
from hsf_tune.search.race import read_state
from hsf_tune.search.study import ArmStudy

PLAIN = SearchSetting()  # two arms of 12, 6, 3 and 3 strategies: 48 trainings of 8 epochs


def failing_at_high_rates(strategy, fold):
    return None if strategy["models.lr"] > 5e-3 else 0.7 + strategy["models.lr"] - fold / 100


@pytest.mark.parametrize("sampler", ["tpe", "random"])
@pytest.mark.parametrize("seed", range(3))
def test_known_optimum_is_found(make_table, sampler, seed):
    """A long search ends at the decoder, all blocks, at the best rate; the frequency hardly
    matters there."""
    table = make_table()
    replay = Bench(table, SearchSetting(sampler, strategies=40, keep=(6, 3, 3))).run(seed)
    pick = json.loads(replay.pick)
    assert (pick["finetuning.mode"], pick["finetuning.depth"]) == ("decoder", 3)
    assert pick["models.lr"] == 3e-3
    assert replay.dice == table.true_dice[replay.pick] >= table.true_dice[table.best] - 0.005
    assert 0 < replay.needed <= replay.trainings


def test_costs_are_counted(make_table):
    """By hand: 2 arms x (12 + 6 + 3 + 3) trainings of 8 epochs, one second each, two workers."""
    replay = Bench(make_table(), PLAIN).run(1)
    assert (replay.trainings, replay.epochs, replay.pruned) == (48, 48 * 8, 0)
    assert replay.needed_epochs == 8 * replay.needed
    assert 48 * 8 / 2 <= replay.seconds <= 48 * 8


def test_fewer_folds_cost_less_and_are_judged_on_all(make_table):
    """Two folds are raced over; the true Dice is still the mean over four."""
    table = make_table()
    replay = Bench(table, replace(PLAIN, keep=(6,))).run(1)
    assert replay.trainings == 2 * (12 + 6)
    assert replay.dice == table.true_dice[replay.pick]


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("pruner", ["none", "median"])
def test_same_seed_gives_the_same_search(make_table, workers, pruner):
    """On benches of their own, one after another seed; another seed gives another search."""
    table, setting = make_table(failing_at_high_rates), replace(PLAIN, pruner=pruner)
    bench = Bench(table, setting)
    other = bench.run(6, workers=workers)
    first = bench.run(5, workers=workers)
    assert Bench(table, setting).run(5, workers=workers) == first
    assert other != first


def test_workers_change_the_time_and_not_the_cost(make_table):
    """Four workers take less simulated time for the same number of trainings."""
    one, four = (Bench(make_table(), PLAIN).run(2, workers=n) for n in (1, 4))
    assert one.trainings == four.trainings
    assert one.seconds == 48 * 8
    assert four.seconds < 0.4 * one.seconds


def test_pruner_saves_epochs(make_table):
    """Fewer epochs than the trainings would have taken, every pruned one cut short."""
    replay = Bench(make_table(), replace(PLAIN, pruner="median")).run(0)
    assert replay.pruned > 5
    assert (replay.trainings - replay.pruned) * 8 < replay.epochs
    assert replay.epochs <= replay.trainings * 8 - replay.pruned


def test_pruner_leaves_small_folds_alone(make_table):
    """With three subjects a fold it acts only where it is told to all the same."""
    table = make_table(subjects=12)
    shy = Bench(table, replace(PLAIN, pruner="median")).run(0)
    bold = Bench(table, replace(PLAIN, pruner="median", judge_small_folds=True)).run(0)
    assert (shy.pruned, shy.epochs) == (0, 48 * 8)
    assert bold.pruned > 0


def test_tie_goes_to_what_was_proposed_first(make_table):
    """With all strategies equal, any pick is right, from the first training on."""
    replay = Bench(make_table(lambda s, f: 0.7), PLAIN).run(3)
    assert (replay.needed, replay.needed_epochs) == (1, 8)
    assert '"finetuning.mode": "encoder"' in replay.pick  # the first arm
    assert '"models.lr": 0.001' in replay.pick  # its start point


def test_lucky_first_fold_is_found_out(make_table):
    """A strategy that shines on fold 1 alone leads at first; later folds correct the pick."""

    def dice(strategy, fold):
        lucky = strategy["finetuning.mode"] == "encoder"
        return 0.9 if lucky and fold == 1 else 0.6 if lucky else 0.8

    table = make_table(dice)
    replay = Bench(table, PLAIN).run(0)
    assert replay.needed > 1
    assert replay.dice == pytest.approx(0.8)


def test_search_that_ends_on_a_poor_pick_never_needed_anything(make_table):
    """Where the last pick is too far below the best, no number of trainings was enough."""

    def dice(strategy, fold):
        good = strategy["models.lr"] == 1e-4  # no start point, and the search is too short
        return 0.9 if good else 0.6

    replay = Bench(make_table(dice), SearchSetting(strategies=1, keep=(1, 1, 1))).run(0)
    assert (replay.needed, replay.needed_epochs) == (None, None)
    assert replay.dice == pytest.approx(0.6)


def test_failed_trainings_are_no_picks(make_table):
    """They cost what they took and are never picked."""
    replay = Bench(make_table(failing_at_high_rates), PLAIN).run(4)
    assert '"models.lr": 0.003' in replay.pick
    assert replay.epochs == 8 * replay.trainings


@pytest.mark.parametrize("pruner", ["none", "median"])
def test_state_kept_along_is_what_the_records_say(make_table, pruner, monkeypatch):
    """After each event of a search the quick state equals the one read from the records."""
    compared = []

    def checked(self, event):
        record(self, event)
        assert self.state == read_state(self.records)
        compared.append(event.kind)

    record = _InMemory.record
    monkeypatch.setattr(_InMemory, "record", checked)
    table = make_table(failing_at_high_rates)
    Bench(table, replace(PLAIN, pruner=pruner, strategies=6, keep=(3, 2))).run(1, workers=3)
    assert set(compared) >= {"note", "trial_started", "trial_ended"}


def test_more_folds_than_recorded_are_refused(make_table):
    """A race over four folds needs four."""
    with pytest.raises(ValueError, match="4 folds asked for, 2 recorded"):
        Bench(make_table(folds=2), PLAIN)


def test_memory_changes_nothing(make_table):
    """Searches that share a memory are those that each ask studies of their own."""
    table, memory = make_table(failing_at_high_rates), {}
    races = [(12, (6, 3, 3)), (6, (6, 6, 6)), (16, (8,)), (12, (6, 3, 3))]
    for sampler in ("tpe", "grid"):
        for pruner in ("none", "median"):
            for n, keep in races:
                bench = Bench(table, SearchSetting(sampler, pruner, n, keep))
                assert bench.run(3, memory=memory) == bench.run(3)


def test_studies_are_asked_once_for_the_same_history(make_table, monkeypatch):
    """A race that differs only in its later folds needs hardly any new suggestion."""
    asked = []
    ask = ArmStudy.propose
    monkeypatch.setattr(ArmStudy, "propose", lambda *a: asked.append(1) or ask(*a))
    table, memory = make_table(), {}
    for _ in range(2):
        Bench(table, PLAIN).run(3, memory=memory, workers=1)
        assert len(asked) == 24
    Bench(table, replace(PLAIN, keep=(8, 4, 4))).run(3, memory=memory, workers=1)
    assert len(asked) == 24
