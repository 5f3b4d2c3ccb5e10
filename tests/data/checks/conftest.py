"""A sound study on disk that a test then harms."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from hsf_tune.config import Config, config_from_dict

SHAPE = (12, 16, 10)
AFFINE = np.array([[0.8, 0, 0, -40], [0, 1.2, 0, -20], [0, 0, 0.6, 10], [0, 0, 0, 1.0]])


def image_of(rng: np.random.Generator) -> np.ndarray:
    """Intensities of an MRI, as scanners store them."""
    return rng.normal(500, 90, SHAPE).astype(np.int16)


def labels_of(rng: np.random.Generator) -> np.ndarray:
    """Three subfields in the middle of the crop, with rims that differ between subjects."""
    labels = np.zeros(SHAPE, np.uint8)
    for label, (front, back) in enumerate([(3, 6), (6, 9), (9, 13)], start=1):
        labels[3:9, front:back, 2:8] = label
        labels[3:9, front:back, 7] *= rng.random((6, back - front)) < 0.7
    return labels


@dataclass
class Study:
    """A dataset `study` in `root`, and the YAML that describes it, both free to be changed."""

    root: Path
    subjects: list[str]
    plain: dict[str, Any]
    settings: dict[str, Any] = field(default_factory=dict)
    affine: np.ndarray = field(default_factory=AFFINE.copy)

    def path(self, name: str) -> Path:
        return self.root / name

    def values(self, name: str) -> np.ndarray:
        return np.asanyarray(nib.load(self.path(name)).dataobj)

    def write(self, name: str, values: np.ndarray, affine: np.ndarray | None = None) -> None:
        self.path(name).parent.mkdir(parents=True, exist_ok=True)
        affine = self.affine if affine is None else affine
        nib.save(nib.Nifti1Image(values, affine), self.path(name))

    def config(self, others: dict[str, Any] | None = None, **keys: Any) -> Config:
        """The checked configuration; `others` are datasets beside it, keys go to `datasets`."""
        both = {"study": self.plain, **(others or {})}
        datasets = {"main_path": str(self.root), "datasets": both, **keys}
        channels = {"out_channels": 4}
        plain = {
            "datasets": datasets,
            "finetuning": {**channels, **self.settings.get("finetuning", {})},
            "models": {
                **channels,
                "use_forgiving_loss": False,
                **self.settings.get("models", {}),
            },
        }
        return config_from_dict(plain)

    def channels(self, n: int) -> None:
        for group in ("finetuning", "models"):
            self.settings.setdefault(group, {})["out_channels"] = n

    def forgiving(self) -> None:
        self.settings.setdefault("models", {})["use_forgiving_loss"] = True


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """Eight subjects, one contrast each, three labels; not a fault, not a warning."""
    plain = {
        "path": "study",
        "ca_type": "1/2/3",
        "patterns": {"t2": {"mri": "**/t2.nii.gz", "label": "seg.nii.gz"}},
        "labels": {1: 1, 2: 2, 3: 3},
        "labels_names": {1: "A", 2: "B", 3: "C"},
    }
    result = Study(tmp_path, [f"sub-0{i}" for i in range(1, 9)], plain)
    for i, subject in enumerate(result.subjects):
        rng = np.random.default_rng(i)
        result.write(f"study/{subject}/t2.nii.gz", image_of(rng))
        result.write(f"study/{subject}/seg.nii.gz", labels_of(rng))
    return result
