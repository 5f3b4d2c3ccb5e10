"""A small space, splits and a Ray instance for the tests of the search."""

import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

from hsf_tune.config import config_from_dict
from hsf_tune.data.splits import Split, Splits
from hsf_tune.search.space import build_space

WORKERS = Path(__file__).parent / "workers"
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


def _config(**search):
    return config_from_dict(
        {"datasets": {"main_path": ".", "datasets": {"d": DATASET}}, "search": search}
    )


def _space(content=None, config=None, fixed=None):
    return build_space(
        "test", content or TWO_ARMS, config or _config(), BLOCKS, fixed or {}, "test.yaml"
    )


def _splits(explore=4, confirm=5, subjects=10, test=()):
    names = [f"d/s{i:02d}" for i in range(subjects)]

    def fold(phase, i, n):
        out = tuple(names[i::n])
        return Split(phase, i + 1, tuple(s for s in names if s not in out), out)

    return Splits(
        test=test,
        explore=tuple(fold("explore", i, explore) for i in range(explore)),
        confirm=tuple(fold("confirm", i, confirm) for i in range(confirm)),
    )


@pytest.fixture
def make_config():
    """Builds a configuration from settings of its `search` group."""
    return _config


@pytest.fixture
def make_space():
    """Builds a space, by default one with two arms, from plain content."""
    return _space


@pytest.fixture
def make_splits():
    """Builds the splits of ten subjects."""
    return _splits


@pytest.fixture(scope="module")
def ray_here():
    """One Ray instance for a test module, two workers wide."""
    os.environ["RAY_AUTH_MODE"] = "disabled"
    os.environ["PYTHONPATH"] = os.pathsep.join([str(WORKERS), *filter(None, sys.path)])
    from hsf_tune.search.resources import prepare_environment

    prepare_environment()
    import ray

    folder = tempfile.mkdtemp(prefix="hsf-t-", dir="/tmp")
    ray.init(
        num_cpus=2, include_dashboard=False, _temp_dir=folder, log_to_driver=False,
        object_store_memory=80 * 1024**2, logging_level="ERROR",
    )  # fmt: skip
    yield
    ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)
