"""A small real run: three subjects on disk, two folds of one strategy, trained by `fit`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml

from hsf_tune.config import Config, config_from_dict
from hsf_tune.data.splits import Split
from hsf_tune.finetuning.base import blocks_of, get_base
from hsf_tune.finetuning.finished import FinishedRun, open_run
from hsf_tune.finetuning.fit import fit
from hsf_tune.finetuning.strategy import SavedStrategy, canonical, save_strategy
from hsf_tune.model.arunet import Architecture, ARUNet
from hsf_tune.model.weights import save
from hsf_tune.records import Records, TrialSpec

SUBJECTS = ("balls/sub-01", "balls/sub-02", "balls/sub-03")
AFFINE = np.array([[-1, 0, 0, 9], [0, 0, 1.5, -7], [0, 1, 0, 3], [0, 0, 0, 1.0]])  # LSA on disk


def write_subject(folder: Path, number: int) -> None:
    """Two nested balls with noise, 15 x 14 x 22 voxels, stored in another orientation than RAS+."""
    random = np.random.default_rng(number)
    centre = np.array([7, 7, 11]) + random.uniform(-1, 1, 3)
    where = np.indices((15, 14, 22)).transpose(1, 2, 3, 0)
    radius = np.linalg.norm(where - centre, axis=-1)
    labels = np.select([radius < 3, radius < 6], [20, 10], 0).astype(np.uint8)
    image = random.normal(0, 0.3, labels.shape) + labels / 10
    subject = folder / f"sub-{number:02d}"
    subject.mkdir(parents=True)
    nib.save(nib.Nifti1Image(image.astype(np.float32), AFFINE), subject / "left_t1_mri.nii.gz")
    nib.save(nib.Nifti1Image(labels, AFFINE), subject / "left_t1_seg.nii.gz")


@pytest.fixture(scope="session")
def plain_config(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("study")
    for number in (1, 2, 3):
        write_subject(folder / "balls", number)
    torch.manual_seed(0)
    base = folder / "random.safetensors"
    save(base, ARUNet(Architecture(f_maps=2, out_channels=3)), {"name": "random"})
    dataset = {
        "path": "balls",
        "ca_type": "1/2/3",
        "patterns": {"left_t1": {"mri": "**/left_t1_mri.nii.gz", "label": "left_t1_seg.nii.gz"}},
        "labels": {10: 1, 20: 2},
        "labels_names": {1: "OUTER", 2: "INNER"},
    }
    return {
        "datasets": {"main_path": str(folder), "datasets": {"balls": dataset}},
        "models": {"checkpoint": str(base), "out_channels": 3, "use_forgiving_loss": False},
        "finetuning": {"out_channels": 3, "depth": 1, "unfreeze_frequency": 1},
        "lightning": {"accelerator": "cpu", "max_epochs": 2, "accumulate_grad_batches": 1},
        "store": {"path": str(folder / "store")},
    }


@pytest.fixture(scope="session")
def config(plain_config: dict[str, Any]) -> Config:
    return config_from_dict(plain_config)


@pytest.fixture(scope="session")
def run(config: Config, tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    """Explored on two folds; sub-03 is a locked test set."""
    folder = tmp_path_factory.mktemp("outputs") / "study-1"
    records = Records(folder)
    strategy = canonical({"models.lr": 0.01}, config, blocks_of(get_base(config)))
    explored = []
    for fold in (1, 2):
        train, validate = SUBJECTS[fold - 1], SUBJECTS[2 - fold]
        split = Split("explore", fold, (train,), (validate,))
        explored.append(split.to_dict())
        spec = TrialSpec(f"explore-decoder-000-f{fold}", "decoder", strategy, split, 42)
        fit(config, spec, folder / "checkpoints" / spec.trial, records.append)
    base = get_base(config)
    saved = SavedStrategy(
        strategy=strategy,
        config=config.to_dict(),
        split=split,
        seed=42,
        threads=1,
        precision="32-true",
        base_name=base.name,
        base_sha256=base.sha256,
        dataset_key="0123",
        arm="decoder",
        trial="explore-decoder-000-f1",
        reason="it was the only one",
        origin={"torch": str(torch.__version__)},
    )
    save_strategy(folder / "best_strategy.yaml", saved)
    (folder / "config.yaml").write_text(yaml.safe_dump(config.to_dict()))
    cases = [{"dataset": "balls", "subject": s, "pattern": "left_t1"} for s in SUBJECTS]
    splits = {"test": [SUBJECTS[2]], "explore": explored}
    dataset = {"key": "0123", "cases": cases, "splits": splits}
    (folder / "dataset.json").write_text(json.dumps(dataset))
    return open_run(folder)
