"""A small search space, its configuration and splits, as plain functions."""

from hsf_tune.config import config_from_dict
from hsf_tune.data.splits import Split, Splits
from hsf_tune.search.space import build_space

BLOCKS = {"encoder": 4, "decoder": 3, "full": 7}
DATASET = {
    "path": "d",
    "ca_type": "1/2/3",
    "patterns": {"t2": {"mri": "*.nii.gz", "label": "seg.nii.gz"}},
    "labels": {1: 1},
    "labels_names": {1: "CA1"},
}
RATE = {"log": [1e-4, 3e-2]}
TWO_ARMS = {
    "lightning.max_epochs": 8,
    "arms": {
        "encoder": {
            "finetuning.mode": "encoder",
            "finetuning.depth": {"int": [1, 4]},
            "finetuning.unfreeze_frequency": {"choice": [1, 2]},
            "models.lr": RATE,
        },
        "decoder": {
            "finetuning.mode": "decoder",
            "finetuning.depth": {"int": [1, 3]},
            "finetuning.unfreeze_frequency": {"choice": [1, 2]},
            "models.lr": RATE,
        },
    },
    "start": [
        {"finetuning.depth": -1, "finetuning.unfreeze_frequency": 1, "models.lr": 1e-3},
    ],
}


def make_config(**search):
    return config_from_dict(
        {"datasets": {"main_path": ".", "datasets": {"d": DATASET}}, "search": search}
    )


def make_space(content=None, config=None, fixed=None):
    return build_space(
        "test", content or TWO_ARMS, config or make_config(), BLOCKS, fixed or {}, "test.yaml"
    )


def make_splits(explore=4, confirm=5, subjects=10, test=()):
    names = [f"d/s{i:02d}" for i in range(subjects)]

    def fold(phase, i, n):
        out = tuple(names[i::n])
        return Split(phase, i + 1, tuple(s for s in names if s not in out), out)

    return Splits(
        test=test,
        explore=tuple(fold("explore", i, explore) for i in range(explore)),
        confirm=tuple(fold("confirm", i, confirm) for i in range(confirm)),
    )
