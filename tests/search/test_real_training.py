"""Real finetuning through Ray: killed workers and used workers change nothing."""

import json

import pytest
from safetensors.torch import load_file

from hsf_tune.config import config_from_dict
from hsf_tune.data.splits import Split, Splits
from hsf_tune.records import Records
from hsf_tune.search.run import run_search
from hsf_tune.search.space import build_space

SUBJECTS = tuple(f"balls/sub-{i:02d}" for i in range(1, 5))
CONTENT = {
    "lightning.max_epochs": 4,
    "arms": {
        "encoder": {
            "finetuning.mode": "encoder",
            "finetuning.depth": {"int": [1, 3]},
            "finetuning.unfreeze_frequency": 1,
            "models.lr": 1e-2,
        }
    },
}


@pytest.fixture
def search(ray_here, tmp_path, plain_config):
    """Trains three strategies, one after the other; the records."""

    def run(name, kill_after=()):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "faults.json").write_text(json.dumps({"kill_after": list(kill_after)}))
        settings = {"strategies_per_arm": 3, "folds": 2, "keep": [1], "sampler": "grid",
                    "confirm": False, "max_concurrent": 1}  # fmt: skip
        config = config_from_dict({**plain_config, "search": settings})
        blocks = {"encoder": 4, "decoder": 3, "full": 7}
        space = build_space("real", CONTENT, config, blocks, {}, "real.yaml")
        folds = tuple(
            Split("explore", i + 1, SUBJECTS[:i] + SUBJECTS[i + 1 :], (SUBJECTS[i],))
            for i in range(2)
        )
        records = Records(folder)
        run_search(
            space.config, space, Splits((), folds, ()), folder, records, trainer="dying_trainer"
        )
        return records

    return run


@pytest.mark.slow
def test_workers_killed_around_openings_train_the_same_weights(search):
    """Killed before, at and after an opening, and in fresh processes: bit for bit the same.

    The undisturbed search trains all in one process, so that what an earlier trial leaves
    behind there would show as well.
    """
    undisturbed, killed = search("undisturbed"), search("killed", kill_after=[0, 1, 2])
    assert len(undisturbed.trials) == 5
    assert list(killed.trials) == list(undisturbed.trials)
    for trial, record in undisturbed.trials.items():
        assert record.finished
        assert killed.trials[trial].finished
        assert [e.metrics["val_dice"] for e in record.epochs.values()] == [
            e.metrics["val_dice"] for e in killed.trials[trial].epochs.values()
        ]
        one, other = (
            load_file(r.folder / r.trials[trial].ended.last_checkpoint)
            for r in (undisturbed, killed)
        )
        assert all((one[name] == other[name]).all() for name in one)
