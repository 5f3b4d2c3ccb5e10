"""The real `hsf` command runs what is exported (opt-in: it installs hsf and registers a head).

    HSF_MRI=/usr/share/mricron/templates/ch2.nii.gz python -m pytest -m slow tests/export/test_hsf.py

HSF_MRI is a whole-head T1; Debian's mricron-data has one. HSF_VENV keeps hsf's environment.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from hsf_tune.cli.commands import run as run_command
from hsf_tune.export.folder import write_folder
from hsf_tune.finetuning.finished import FinishedRun

HEAD = Path(os.environ.get("HSF_MRI", "/usr/share/mricron/templates/ch2.nii.gz"))
SCRIPT = Path(__file__).parents[2] / "scripts" / "try_hsf.py"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not HEAD.exists(), reason="HSF_MRI names no whole-head MRI"),
]


@pytest.fixture(scope="module")
def venv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    given = os.environ.get("HSF_VENV")
    return Path(given) if given else tmp_path_factory.mktemp("hsf") / "venv"


@pytest.mark.parametrize(("kind", "n"), [("single", 1), ("bag", 3)])
def test_hsf_segments_a_head_with_the_exported_folder(
    run: FinishedRun, venv: Path, tmp_path: Path, kind: str, n: int
) -> None:
    """Both sides, on the head's own grid, with our labels; and `predict` agrees to the voxel."""
    models = run.models_of(run.saved.strategy)
    bag = [models[0], models[1], replace(models[0], path=Path(run.config.models.checkpoint))][:n]
    folder = tmp_path / "models" / "exported"
    write_folder(run, run.saved, bag, kind, folder, "exported")  # type: ignore[arg-type]
    without_tta = "segmentation.segmentation.test_time_augmentation=False"
    words = [str(folder), str(HEAD), without_tta, "--venv", str(venv), "--to", str(tmp_path / "w")]
    subprocess.run([sys.executable, str(SCRIPT), *words], check=True)
    if kind == "bag":
        return  # HSF lets networks vote, we average their probabilities
    (crops,) = (tmp_path / "w").glob("exported-*/hsf_outputs")
    for side in ("left", "right"):
        crop = next(crops.glob(f"*_{side}_hippocampus.nii.gz"))
        with pytest.raises(SystemExit):
            run_command("predict", [str(folder), str(crop), "--to", str(tmp_path)])
        theirs = nib.load(crop.with_name(crop.name.replace(".nii.gz", "_seg_crop.nii.gz")))
        ours = nib.load(tmp_path / crop.name.replace(".nii.gz", "_pred.nii.gz"))
        np.testing.assert_allclose(ours.affine, theirs.affine, atol=1e-4)
        np.testing.assert_array_equal(np.asarray(ours.dataobj), np.asarray(theirs.dataobj))
