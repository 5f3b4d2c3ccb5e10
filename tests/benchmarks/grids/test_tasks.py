"""What a grid holds, in which order it is recorded, and how its rows are read back."""

from benchmarks.grids.record import COLUMNS, append_row, read_table
from benchmarks.grids.tasks import ARMS, EPOCHS, LONGEST, STEPS, Recipe, planned, recipes


def test_a_recipe_opens_its_blocks_at_a_share_of_the_run():
    """A tenth of 20 epochs: a block every 2, whatever the number of steps in an epoch."""
    assert Recipe("full", -1, 0.1, 1e-2).strategy()["finetuning.unfreeze_frequency"] == 2
    assert Recipe("scratch", -1, 0.0, 1e-2).strategy()["finetuning.mode"] == "full"


def test_every_recipe_is_there_once_and_opens_all_its_blocks():
    listed = list(recipes())
    assert len(set(listed)) == len(listed) == 32
    blocks = {"encoder": 4, "decoder": 3, "full": 7, "scratch": 7}
    for recipe in listed:
        depth = blocks[recipe.arm] if recipe.depth == -1 else recipe.depth
        frequency = recipe.strategy()["finetuning.unfreeze_frequency"]
        assert (depth + 1) * frequency <= EPOCHS


def test_short_trainings_come_first_and_the_best_three_of_an_arm_are_trained_longest():
    first = planned(42, {})
    assert [row.steps for row in first] == sorted(row.steps for row in first)
    assert {row.steps for row in first} == set(STEPS)
    dice = {row.key: row.recipe.lr for row in first}  # a higher rate is better
    longest = [row for row in planned(42, dice) if row.steps == LONGEST]
    assert {row.recipe.arm for row in longest} == set(ARMS)
    assert {row.recipe.lr for row in longest} == {3e-2}
    again = {row.recipe for row in planned(42, dice) if row.seed == 43}
    assert again == {row.recipe for row in longest}


def test_what_is_in_the_table_is_not_recorded_again(tmp_path):
    training = planned(42, {})[5]
    values = (*training.key, 0.5, 3.0, "{}", "[]")
    append_row(tmp_path / "grid.csv", dict(zip(COLUMNS, values, strict=True)))
    append_row(tmp_path / "grid.csv", dict(zip(COLUMNS, values, strict=True)))
    assert read_table(tmp_path / "grid.csv") == {training.key: 0.5}
