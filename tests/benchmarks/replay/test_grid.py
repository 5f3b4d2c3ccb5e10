"""The grid laid over a space, and the search that records it."""

import json
from collections import Counter
from pathlib import Path

import optuna
import pytest

from benchmarks.replay.grid import (
    RATES,
    SMALL_RATES,
    every_strategy,
    grid_of,
    recording_settings,
    small_space,
)
from hsf_tune.config import config_from_dict
from hsf_tune.errors import ConfigError
from hsf_tune.records import DEFAULT, Records, TrialEnded, TrialSpec
from hsf_tune.search.coordinator import Coordinator
from hsf_tune.search.race import plan_race
from hsf_tune.search.space_file import read_space
from hsf_tune.search.study import ArmStudy
from hsf_tune.strategy import strategy_key

DEFAULT_SPACE = Path(__file__).parents[3] / "search_spaces" / "default.yaml"


def test_grid_of_the_default_space(make_space):
    """Counted by hand: 4 x 3 encoder, 3 x 3 decoder, 4 x 2 + 1 full, 1 head; six rates."""
    space = make_space(read_space(DEFAULT_SPACE))
    grid = make_space(grid_of(space.to_dict(), {"models.lr": RATES}))
    found = Counter(arm for arm, _ in every_strategy(grid))
    assert found == {"encoder": 72, "decoder": 54, "full": 54, "head": 6}
    assert strategy_key(space.default) in {strategy_key(s) for _, s in every_strategy(grid)}


def test_small_grid_takes_forty_trainings(make_space):
    """Two arms, five rates, four folds, the documented default among them."""
    space = make_space(small_space())
    grid = make_space(grid_of(space.to_dict(), {"models.lr": SMALL_RATES}))
    keys = {strategy_key(strategy) for _, strategy in every_strategy(grid)}
    assert len(keys) * 4 == 40
    assert strategy_key(space.default) in keys


@pytest.mark.parametrize("points", [{}, {"models.lr": [0.5]}])
def test_range_without_points_is_refused(make_space, points):
    """The message names arm, key and range."""
    with pytest.raises(ConfigError, match=r"'encoder', models.lr ranges from 0.0001 to 0.03"):
        grid_of(make_space().to_dict(), points)


def test_recording_trains_every_strategy_on_every_fold_once(
    make_space, make_config, make_splits, tmp_path
):
    """The race with those settings leaves nothing out."""
    grid = make_space(grid_of(make_space().to_dict(), {"models.lr": (1e-3, 1e-2)}))
    most = max(Counter(arm for arm, _ in every_strategy(grid)).values())
    config = make_config().with_values(recording_settings(4, most))
    splits, storage = make_splits(), optuna.storages.InMemoryStorage()
    coordinator = Coordinator(
        plan=plan_race(grid, config.search, splits, 42, base=False),
        records=Records(tmp_path),
        studies={a.name: ArmStudy(a, grid.terms, config.search, storage, 42) for a in grid.arms},
    )
    ran = Counter()
    while isinstance(job := coordinator.next_job("worker"), TrialSpec):
        ran[job.arm, strategy_key(job.strategy), job.split.fold] += 1
        dice = 0.7 - len(ran) / 1000
        coordinator.receive([job.started(), TrialEnded(job.trial, "finished", dice)])
        coordinator.ended("worker", died=False)
    default = ran.pop((DEFAULT, strategy_key(grid.default), 1))  # too long for this space
    wanted = {(a, strategy_key(s), fold) for a, s in every_strategy(grid) for fold in (1, 2, 3, 4)}
    assert len(wanted) == 26 * 4
    assert ran == Counter(wanted)
    assert default == 1


def test_table_holds_curves_and_no_paths(make_table, tmp_path):
    """What can be shared: numbers, names of subjects, the configuration without its places."""
    table = make_table(lambda s, f: 0.8, only=lambda s, f: f < 3)
    assert len(table.missing()) == len(table.strategies) * 2
    training = next(iter(table.trainings.values()))
    assert training.curve == pytest.approx([0.1 * k for k in range(1, 9)])
    assert training.seconds == 8.0
    config = config_from_dict(json.loads(json.dumps(table.config)))
    assert (config.datasets.main_path, config.output, config.store.path) == (".", "outputs", None)
