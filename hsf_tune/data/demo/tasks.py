"""Write the demo's subjects as ordinary NIfTI files, once.

Decides which subjects a demo task has, where their files lie and when they are written anew.
What a subject looks like is decided in `crops.py`. Discovery, checks and training read the
files as they would a laboratory's; nothing downstream knows that they were drawn.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import nibabel as nib
from filelock import FileLock

from hsf_tune.data.demo.crops import Contrast, Crop, Guideline, Side, make_subject
from hsf_tune.errors import DataError

TaskName = Literal["contrast", "guideline", "pretraining"]

VERSION = 2  # of the drawing: a change of any voxel needs a new number
MARKER = ".demo.json"


@dataclass(frozen=True)
class DemoTask:
    """A demo data set: who is in it, scanned how and segmented by which guideline."""

    path: str  # below main_path
    contrast: Contrast
    guideline: Guideline
    first_number: int  # the tasks' subjects are different people
    subjects: int


TASKS: dict[TaskName, DemoTask] = {
    "contrast": DemoTask("contrast/hippocampus_demo_3T", "t1", "subfields", 101, 12),
    "guideline": DemoTask("guideline/hippocampus_demo_3T", "t2", "regions", 201, 12),
    "pretraining": DemoTask("pretraining/hippocampus_demo_3T", "t2", "subfields", 1001, 40),
}


def pretraining_subjects(n: int, skip: int = 0) -> Iterator[tuple[str, dict[Side, Crop]]]:
    """Subjects on which the demo's base model is trained, or held out: its own contrast, no file.

    Args:
        n: how many; the first of more subjects are the same as those of fewer.
        skip: leave out so many first, to draw held-out subjects.

    Yields:
        ("sub-1001", {"left": crop, "right": crop}); none of them is in a demo task.
    """
    task = TASKS["pretraining"]
    for number in range(task.first_number + skip, task.first_number + skip + n):
        yield f"sub-{number}", make_subject(number, task.contrast, task.guideline)


def ensure_demo(main_path: Path | str, datasets: Mapping[str, str]) -> list[Path]:
    """Write those of the named data sets that are the demo's and are not there yet.

    Args:
        main_path: the folder that `datasets.main_path` resolves to.
        datasets: `path` of each data set by its name; a path that is not the demo's is left alone.

    Returns:
        The folders that were written now; empty where all was there already.

    Raises:
        DataError: the folder can't be written, or an older demo is there and holds files that the
            demo did not write.
    """
    tasks = {task.path: name for name, task in TASKS.items()}
    written = []
    for path in dict.fromkeys(datasets.values()):
        name = tasks.get(Path(path).as_posix())
        folder = Path(main_path) / path
        try:
            if name is not None and write_demo(folder, name):
                written.append(folder)
        except OSError as error:
            raise DataError(
                f"The demo's files can't be written to {folder}: {error}. Expected a folder to "
                "write in. Start from another working directory, or set datasets.main_path."
            ) from error
    return written


def write_demo(folder: Path | str, task: TaskName, subjects: int | None = None) -> bool:
    """Write a demo task's files unless they are there; complete or not at all.

    A folder that holds files but no mark of the demo is the user's, and left as it is. Several
    processes may call this at once: one writes, the others wait.

    Args:
        folder: the data set's folder; one folder a subject is made in it.
        task: which subjects, contrast and guideline.
        subjects: how many; None for the task's own number.

    Returns:
        Whether files were written.

    Raises:
        DataError: an older demo is there and holds files that the demo did not write.
    """
    folder = Path(folder)
    wanted = {"version": VERSION, "task": task, "subjects": subjects or TASKS[task].subjects}
    if _is_done(folder, wanted):
        return False
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.parent / f".{folder.name}.lock"):
        if _is_done(folder, wanted):
            return False
        _refuse_foreign_files(folder)
        fresh = folder.with_name(f".{folder.name}.new")
        shutil.rmtree(fresh, ignore_errors=True)  # what a killed process left
        _write_subjects(fresh, TASKS[task], subjects or TASKS[task].subjects)
        marker = {**wanted, "files": _fingerprints(fresh)}
        (fresh / MARKER).write_text(json.dumps(marker, indent=1) + "\n")
        _replace(folder, fresh)
    return True


def _write_subjects(folder: Path, task: DemoTask, subjects: int) -> None:
    for index in range(subjects):
        name = f"sub-{index + 1:02d}"
        (folder / name).mkdir(parents=True)
        drawn = make_subject(task.first_number + index, task.contrast, task.guideline)
        for side, crop in drawn.items():
            stem = folder / name / f"{name}_{task.contrast}w_hippocampus_{side}"
            _save(crop.image, crop, Path(f"{stem}_crop.nii.gz"))
            _save(crop.labels, crop, Path(f"{stem}_seg_crop.nii.gz"))


def _save(array: object, crop: Crop, path: Path) -> None:
    image = nib.Nifti1Image(array, crop.affine)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)


def _is_done(folder: Path, wanted: Mapping[str, object]) -> bool:
    """Whether nothing is to be written: the demo is there, or the folder is the user's own."""
    if not folder.is_dir() or not any(folder.iterdir()):
        return False
    marker = _marker(folder)
    if marker is None:
        return True
    same = all(marker.get(key) == value for key, value in wanted.items())
    return same and all((folder / name).is_file() for name in marker["files"])


def _marker(folder: Path) -> dict | None:
    path = folder / MARKER
    return json.loads(path.read_text()) if path.is_file() else None


def _refuse_foreign_files(folder: Path) -> None:
    """Raise where replacing an older demo would lose what somebody added or edited."""
    marker = _marker(folder) if folder.is_dir() else None
    if marker is None:
        return
    found = _fingerprints(folder)
    foreign = sorted(name for name in found if marker["files"].get(name) != found[name])
    if foreign:
        raise DataError(
            f"{folder} holds an older demo and {len(foreign)} file(s) that the demo did not write, "
            f"such as {foreign[0]}. Expected the demo's own files, to replace them. "
            "Move the folder elsewhere and start again, or set datasets.main_path."
        )


def _fingerprints(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below the folder, by relative path; the marker is left out."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MARKER)
    return {
        p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files
    }


def _replace(folder: Path, fresh: Path) -> None:
    """Put the finished folder in place by renaming, so that no reader finds half of it."""
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    fresh.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
