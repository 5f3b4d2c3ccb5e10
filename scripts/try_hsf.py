"""Segment a whole-head MRI with an exported folder, by the real `hsf` command.

    python scripts/try_hsf.py models/NAME head.nii.gz

The command gets a virtual environment of its own (made on first use, as hsf pins older
packages), and a local answer where it asks the network for its newest version. What is
checked: both sides are there, on the MRI's own grid, with labels that the folder declares.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pooch
import yaml

HSF = ["torch==2.13.0", "hsf==1.2.3", "onnxruntime"]
LAUNCHER = """
import json, sys, requests

def answer(url, *args, **kwargs):
    if "pypi" not in url.lower():
        raise RuntimeError(f"hsf wants {url}; the exported models should be all it needs")
    response = requests.Response()
    response.status_code, response.encoding = 200, "utf-8"
    response._content = json.dumps({"releases": {"1.2.3": []}}).encode()
    return response

requests.get = answer
from hsf.factory import start
start()
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="an exported folder")
    parser.add_argument("mri", type=Path, help="whole-head MRI, .nii.gz")
    parser.add_argument("--venv", type=Path, help="default: in your user's cache folder")
    parser.add_argument(
        "--to", type=Path, help="work in a new folder here; default: a temporary one"
    )
    parser.add_argument("--contrast", choices=("t1", "t2"), default="t1")
    parser.add_argument("options", nargs="*", help="further options of hsf")
    args = parser.parse_intermixed_args()
    work = fresh_folder(args.to or Path(tempfile.mkdtemp()), args.folder.resolve().name)
    venv = args.venv or pooch.os_cache("hsf_tune") / "hsf-venv"
    mri = Path(shutil.copy(args.mri, work / args.mri.name))
    began_s = time.perf_counter()
    run_hsf(hsf_python(venv), args.folder.resolve(), mri, args.contrast, args.options)
    print(f"hsf took {time.perf_counter() - began_s:.0f} s")
    for line in check(args.folder, mri):
        print(line)
    print(f"Work: {work}")


def fresh_folder(to: Path, name: str) -> Path:
    """A new folder below `to`; nothing that lies there is touched."""
    to.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=to.resolve()))


def hsf_python(venv: Path) -> Path:
    """The interpreter of hsf's environment, installed if it is missing.

    What somebody else has put there, or may change, is not run.
    """
    venv.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = venv.stat()
    if status.st_uid != os.getuid() or status.st_mode & 0o022:
        sys.exit(f"{venv} is not yours alone; expected a folder that only you can write: --venv.")
    python = venv / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *HSF], check=True)
    return python


def run_hsf(python: Path, folder: Path, mri: Path, contrast: str, options: list[str]) -> None:
    """The command of the folder's README, on one MRI."""
    (config,) = (folder / "conf" / "segmentation").glob("*.yaml")
    words = [
        "--config-dir",
        str(folder / "conf"),
        f"segmentation={config.stem}",
        f"files.path={mri.parent}",
        f"files.pattern={mri.name}",
        "roiloc=default_t2iso",
        f"roiloc.contrast={contrast}",
        f"hydra.run.dir={mri.parent / 'hydra'}",
        *options,
    ]
    subprocess.run([str(python), "-c", LAUNCHER, *words], check=True)


def check(folder: Path, mri: Path) -> list[str]:
    """What came out, or an error where it is not what the folder promises."""
    (config,) = (folder / "conf" / "segmentation").glob("*.yaml")
    plain = yaml.safe_load(config.read_text(encoding="utf-8"))
    missing = [name for name in plain["models"] if not (folder / name).exists()]
    assert not missing, f"hsf deleted {missing}: their checksums differ"
    head = nib.load(mri)
    lines = []
    for side in ("left", "right"):
        name = mri.name.removesuffix(".nii.gz")
        segmentation = nib.load(mri.parent / f"{name}_{side}_hippocampus_seg.nii.gz")
        assert segmentation.shape == head.shape, (segmentation.shape, head.shape)
        np.testing.assert_allclose(segmentation.affine, head.affine, atol=1e-3)
        values, counts = np.unique(np.asarray(segmentation.dataobj), return_counts=True)
        assert (values == values.round()).all()
        voxel_mm3 = float(np.prod(segmentation.header.get_zooms()[:3]))
        found = ", ".join(
            f"{int(v)}: {n * voxel_mm3:.0f} mm3" for v, n in zip(values, counts, strict=True) if v
        )
        lines.append(f"{side}: {segmentation.shape} voxels as the MRI, labels {found or 'none'}")
    return lines


if __name__ == "__main__":
    main()
