"""Searches on a real Ray instance, with a trainer that learns nothing."""

import json
from collections import Counter

import pytest

from hsf_tune.records import Records
from hsf_tune.search.run import run_search

SMALL = {"strategies_per_arm": 4, "keep": [2, 1, 1], "confirm_folds": 2, "confirm_seeds": 1}


@pytest.fixture
def search(ray_here, tmp_path, make_config, make_space, make_splits):
    """Runs a small search in a folder, with faults if any; outcome and records."""

    def run(faults=None, observers=(), folder=tmp_path / "run", space=None, **settings):
        folder.mkdir(exist_ok=True)
        (folder / "faults.json").write_text(json.dumps(faults or {}))
        config = make_config(**{**SMALL, **settings})
        built = make_space(space, config)
        records = Records(folder)
        outcome = run_search(
            built.config,
            built,
            make_splits(confirm=2),
            folder,
            records,
            observers=observers,
            base_comparable=True,
            trainer="trivial_trainer",
        )
        return outcome, records

    return run


def test_race_runs_each_fold_with_the_strategies_that_are_left(search):
    """4 strategies an arm on fold 1, 2 on fold 2, 1 on folds 3 and 4; then all is confirmed."""
    outcome, records = search()
    counts = Counter(
        (r.started.phase, r.started.arm, r.started.fold) for r in records.trials.values()
    )
    assert outcome.status == "finished"
    for arm in ("encoder", "decoder"):
        assert [counts["explore", arm, fold] for fold in (1, 2, 3, 4)] == [4, 2, 1, 1]
        assert [counts["confirm", arm, fold] for fold in (1, 2)] == [1, 1]
    for arm in ("base", "documented_default"):
        assert counts["explore", arm, 1] == 1
        assert [counts["confirm", arm, fold] for fold in (1, 2)] == [1, 1]
    assert all(r.finished for r in records.trials.values())
