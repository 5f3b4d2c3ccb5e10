"""A small real dataset on disk and a random base model, made once."""

import shutil
import subprocess

import nibabel as nib
import numpy as np
import pytest

from hsf_tune.config import config_from_dict
from hsf_tune.model.arunet import Architecture, ARUNet
from hsf_tune.model.weights import save

LABELS = {1: "DG", 2: "CA"}
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--enable-unsafe-swiftshader", "--enable-logging=stderr",
)  # fmt: skip


@pytest.fixture
def browser(tmp_path):
    """The command of a real browser without a window; flags and an address are to follow."""
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine")
    return [CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}"]


@pytest.fixture
def open_page(browser):
    """Opens an address in a real browser: (the document as it stands then, errors it said)."""

    def open_page(address, width=1366, milliseconds=6000, height=900, dark=False):
        size = f"--window-size={width},{height}"
        scheme = ["--blink-settings=preferredColorScheme=0"] if dark else []
        waiting = f"--virtual-time-budget={milliseconds}"
        done = subprocess.run(
            [*browser, "--dump-dom", size, *scheme, waiting, address],
            capture_output=True, text=True, timeout=120, check=True,
        )  # fmt: skip
        said = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
        return done.stdout, [s for s in said if "GL Driver Message" not in s]  # software WebGL

    return open_page


def write_subject(folder, number, rng):
    """Two sides of two nested balls with noise, 16 x 24 x 16 voxels."""
    for side in ("left", "right"):
        centre = np.array([8, 12, 8]) + rng.uniform(-1, 1, 3)
        where = np.indices((16, 24, 16)).transpose(1, 2, 3, 0)
        radius = np.linalg.norm((where - centre) / [1, 1.5, 1], axis=-1)
        labels = (radius < 6).astype(np.uint8) + (radius < 3).astype(np.uint8)
        labels = np.array([0, 2, 1], np.uint8)[labels]
        image = rng.normal(0, 0.3, labels.shape) + np.array([0.0, 2.0, 1.0])[labels]
        subject = folder / f"sub-{number:02d}"
        subject.mkdir(parents=True, exist_ok=True)
        affine = np.diag([1, 1, 1, 1])
        nib.save(nib.Nifti1Image(image.astype(np.float32), affine), subject / f"{side}_mri.nii.gz")
        nib.save(nib.Nifti1Image(labels, affine), subject / f"{side}_seg.nii.gz")


@pytest.fixture(scope="session")
def dataset_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    rng = np.random.default_rng(0)
    for number in range(1, 5):
        write_subject(folder / "balls", number, rng)
    return folder


@pytest.fixture(scope="session")
def random_base(tmp_path_factory):
    import torch

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("base") / "random.safetensors"
    save(path, ARUNet(Architecture(f_maps=2, out_channels=3)), {"name": "random"})
    return path


@pytest.fixture(scope="session")
def plain_config(dataset_folder, random_base, tmp_path_factory):
    """The configuration as a plain dict, for tests to change."""
    patterns = {
        s: {"mri": f"**/{s}_mri.nii.gz", "label": f"{s}_seg.nii.gz"} for s in ("left", "right")
    }
    dataset = {
        "path": "balls",
        "ca_type": "1/2/3",
        "patterns": patterns,
        "labels": {1: 1, 2: 2},
        "labels_names": LABELS,
    }
    return {
        "datasets": {"main_path": str(dataset_folder), "datasets": {"balls": dataset}},
        "models": {
            "checkpoint": str(random_base),
            "out_channels": 3,
            "use_forgiving_loss": False,
            "lr": 1e-2,
        },
        "finetuning": {"out_channels": 3},
        "lightning": {
            "accelerator": "cpu",
            "max_epochs": 4,
            "steps_per_epoch": 1,
            "accumulate_grad_batches": 2,
        },
        "store": {"path": str(tmp_path_factory.mktemp("store"))},
    }


@pytest.fixture
def config(plain_config):
    return config_from_dict(plain_config)
