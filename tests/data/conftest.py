"""Small datasets on disk, as a user would have them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from hsf_tune.config import DatasetsConfig, config_from_dict


@pytest.fixture
def touch(tmp_path: Path) -> Callable[..., None]:
    """Create empty files below tmp_path, folders included."""

    def create(*names: str) -> None:
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()

    return create


@pytest.fixture
def datasets_config(tmp_path: Path) -> Callable[..., DatasetsConfig]:
    """A checked configuration of one dataset `study` in tmp_path, changed by keywords."""

    def build(
        patterns: Mapping[str, tuple[str, str]] | None = None,
        *,
        datasets: Mapping[str, Mapping[str, Any]] | None = None,
        labels: Mapping[int, int] | None = None,
        subject: str | None = None,
        path: str = "study",
        **keys: Any,
    ) -> DatasetsConfig:
        labels = labels or {1: 1, 2: 2}
        patterns = patterns or {"t2": ("**/*t2.nii.gz", "*seg.nii.gz")}
        one = {
            "path": path,
            "ca_type": "1/2/3",
            "patterns": {k: {"mri": m, "label": n} for k, (m, n) in patterns.items()},
            "labels": labels,
            "labels_names": {i: f"L{i}" for i in set(labels.values()) - {0}},
            "subject": subject,
        }
        several = {k: {**one, **v} for k, v in datasets.items()} if datasets else {"study": one}
        plain = {"datasets": {"main_path": str(tmp_path), "datasets": several, **keys}}
        return config_from_dict(plain).datasets

    return build


@pytest.fixture
def write_nifti() -> Callable[..., Path]:
    """Write an array as NIfTI, with the folders it needs."""

    def write(
        path: Path, array: np.ndarray, affine: np.ndarray | None = None, **header: Any
    ) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(array, np.eye(4) if affine is None else affine), path)
        return path

    return write
