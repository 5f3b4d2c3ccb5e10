"""The estimate of disk use, against the sizes of real files and a count by hand."""

from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from hsf_tune.cli import disk
from hsf_tune.cli.disk import DiskUse, estimate, require_room, used_bytes, weights_bytes
from hsf_tune.data.splits import Split
from hsf_tune.errors import SearchError
from hsf_tune.finetuning.base import DEMO_BASE, blocks_of, get_base
from hsf_tune.finetuning.fit import fit
from hsf_tune.finetuning.strategy import canonical
from hsf_tune.records import EpochEnded, TrialSpec
from hsf_tune.search.race import ArmPlan, RacePlan, expect
from hsf_tune.strategy import Strategy

SPLIT = Split("explore", 1, ("balls/sub-01", "balls/sub-02", "balls/sub-03"), ("balls/sub-04",))
Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def eight_maps(config):
    """A network large enough for names and shapes not to matter: 2.35 MB."""
    return config.with_values({"models.checkpoint": str(DEMO_BASE)})


@pytest.fixture
def plan():
    """Two arms over two folds, confirmed on three folds with two seeds."""
    return RacePlan(
        arms=(ArmPlan("encoder", 12, (6,), 3), ArmPlan("head", 4, (2,), 1)),
        explore=(SPLIT, SPLIT),
        confirm=(SPLIT, SPLIT, SPLIT),
        seed=0,
        confirm_seeds=(0, 1),
        default=Strategy({"lightning.max_epochs": 4}),
        default_arms=("encoder",),
        base=True,
    )


def test_a_trial_in_its_course_and_after_it_takes_what_is_estimated(eight_maps, tmp_path):
    """The state of a trial with all blocks open is three times the weights, an ended one two."""
    strategy = {"finetuning.mode": "full", "finetuning.depth": 7, "lightning.max_epochs": 8}
    strategy = canonical(
        {**strategy, "finetuning.unfreeze_frequency": 1},
        eight_maps,
        blocks_of(get_base(eight_maps)),
    )
    spec = TrialSpec("explore-x-001-f1", "x", strategy, SPLIT, 0)
    states = []

    def look(event):
        if isinstance(event, EpochEnded):
            states.append((tmp_path / "t" / "last.ckpt").stat().st_size)

    fit(eight_maps, spec, tmp_path / "t", look)
    weights = weights_bytes(eight_maps, get_base(eight_maps))
    ended = sum(path.stat().st_size for path in (tmp_path / "t").glob("*.safetensors"))
    assert ended == pytest.approx(2 * weights, rel=0.05)
    assert max(states) == pytest.approx(disk.STATE * weights, rel=0.1)


def test_a_search_counts_every_trial_that_trains_and_keeps_those_of_the_finalists(eight_maps, plan):
    base = get_base(eight_maps)
    weights = weights_bytes(eight_maps, base)
    use = estimate(eight_maps, base, plan, expect(plan, 4), workers=2)
    explored, confirmed = 12 + 6 + 4 + 2, (3 + 1 + 1) * 6
    assert use.running == (explored + confirmed) * 2 * weights + 2 * 7 * weights
    assert use.copies == (explored + confirmed) * weights
    kept = 3 * (2 + 6) + 1 * (2 + 6) + (2 + 6)  # finalists and default, explored and confirmed
    assert use.afterwards == kept * 2 * weights
    everything = eight_maps.with_values({"search.keep_checkpoints": "all"})
    assert estimate(everything, base, plan, expect(plan, 4), 2).afterwards == (
        (explored + confirmed) * 2 * weights
    )


@pytest.mark.parametrize(
    "values", [{"tracking.enabled": False}, {"tracking.uri": "http://server:5000"}]
)
def test_copies_on_another_machine_are_not_counted(eight_maps, plan, values):
    config = eight_maps.with_values(values)
    assert estimate(config, get_base(config), plan, expect(plan, 4), 1).copies == 0


@pytest.mark.parametrize(
    ("free_gb", "used_gb", "refused"),
    [(3, 0, True), (9, 0, False), (8.1, 0, False), (3, 8, False)],
)
def test_too_little_room_is_refused_with_what_is_needed(
    config, tmp_path, monkeypatch, free_gb, used_gb, refused
):
    """The search needs 10 GB; what its folder holds already is not needed again."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, int(free_gb * 1e9)))
    use = DiskUse(int(10e9), int(5e9), 0)
    folder = tmp_path / "not" / "yet"
    if not refused:
        require_room(use, config, folder, int(used_gb * 1e9))
        return
    with pytest.raises(SearchError, match=r"3\.0 GB of free space.* needs about 10\.0 GB"):
        require_room(use, config, folder)
    limited = config.with_values({"search.time_budget_s": 60})
    require_room(use, limited, folder)


def test_copies_of_mlflow_count_where_they_are_on_the_same_disk(config, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, int(10e9)))
    monkeypatch.chdir(tmp_path)
    use = DiskUse(int(9e9), 0, int(9e9))
    with pytest.raises(SearchError):
        require_room(use, config, tmp_path / "run")
    monkeypatch.setattr(disk, "_same_disk", lambda *_: False)
    require_room(use, config, tmp_path / "run")


def test_the_line_names_what_is_there_and_what_is_free(config, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, int(100e9)))
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").write_bytes(bytes(3_000_000))
    used = used_bytes(tmp_path)
    line = DiskUse(int(9e9), int(2e9), int(4e9)).describe(config, Path("outputs/x"), used)
    assert line == (
        "Disk: at most 9.0 GB in outputs/x while it runs, of which 3 MB are there, 2.0 GB"
        " afterwards (search.keep_checkpoints=finalists), and 4.0 GB of copies in MLflow;"
        " 100.0 GB are free"
    )
