"""The demo's files: ordinary NIfTI, complete, written once, and never over anybody's work."""

from __future__ import annotations

import hashlib
import multiprocessing
from collections import Counter
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml

from hsf_tune.config import config_from_dict
from hsf_tune.data.demo import tasks as demo
from hsf_tune.data.demo.tasks import TASKS, ensure_demo, pretraining_subjects, write_demo
from hsf_tune.errors import DataError

CONFIGURATION = Path(__file__).parents[3] / "conf" / "datasets"
PUBLISHED_KEYS = (
    "main_path", "output_path", "batch_size", "num_workers", "pin_memory", "train_ratio",
    "replace", "k_sample", "train_val_test_idx", "train_on_all", "datasets",
)  # fmt: skip
FILES = {"demo": "contrast", "demo_guideline": "guideline"}


@pytest.fixture(scope="module")
def main_path(tmp_path_factory) -> Path:
    """Both demo tasks, whole, as a user gets them."""
    folder = tmp_path_factory.mktemp("demo") / "demo_data"
    ensure_demo(folder, {name: TASKS[task].path for name, task in FILES.items()})
    return folder


def group(name: str) -> dict:
    return yaml.safe_load((CONFIGURATION / f"{name}.yaml").read_text())


def pairs(main_path: Path, name: str) -> list[tuple[Path, Path]]:
    """(image, label) of every case, found by the data set's own patterns."""
    dataset = group(name)["datasets"][name]
    found = []
    for pattern in dataset["patterns"].values():
        for image in sorted((main_path / dataset["path"]).glob(pattern["mri"])):
            (label,) = image.parent.glob(pattern["label"])
            found.append((image, label))
    return found


def state(folder: Path) -> dict[str, tuple[str, int]]:
    """Content and time of writing of every file below a folder."""
    return {
        p.relative_to(folder).as_posix(): (
            hashlib.sha256(p.read_bytes()).hexdigest(),
            p.stat().st_mtime_ns,
        )
        for p in folder.rglob("*")
        if p.is_file()
    }


@pytest.mark.parametrize("name", FILES)
def test_patterns_find_twelve_subjects_with_both_sides(main_path, name):
    """24 cases, one folder a subject, each image with one label of its own."""
    cases = pairs(main_path, name)
    folders = Counter(image.parent.name for image, _ in cases)
    assert folders == {f"sub-{i:02d}": 2 for i in range(1, 13)}
    assert len({label for _, label in cases}) == 24


@pytest.mark.parametrize("name", FILES)
def test_every_case_holds_every_label_and_no_unmapped_value(main_path, name):
    """The mapping covers what is on disk, and each label has voxels enough to be learned."""
    dataset = group(name)["datasets"][name]
    assert sorted(set(dataset["labels"].values()) - {0}) == list(dataset["labels_names"])
    for _, path in pairs(main_path, name):
        values, counts = np.unique(np.asarray(nib.load(path).dataobj), return_counts=True)
        assert set(values) - {0} == set(dataset["labels"])
        assert counts.min() >= 100


@pytest.mark.parametrize("name", FILES)
def test_image_and_label_share_a_grid_of_at_most_24_40_24(main_path, name):
    """Equal shapes and affines; 24 left-right, 40 anterior-posterior, 24 up-down; about 1 mm."""
    shapes, orientations, types = set(), set(), set()
    for image_path, label_path in pairs(main_path, name):
        image, label = nib.load(image_path), nib.load(label_path)
        np.testing.assert_array_equal(image.affine, label.affine)
        assert image.shape == label.shape
        shape = nib.as_closest_canonical(image).shape
        assert all(20 <= n <= limit for n, limit in zip(shape, (24, 40, 24), strict=True))
        assert all(0.9 < mm < 1.25 for mm in image.header.get_zooms())
        assert label.get_data_dtype() == np.uint8
        shapes.add(shape)
        orientations.add(nib.aff2axcodes(image.affine))
        types.add(image.get_data_dtype().name)
    assert len(shapes) > 2
    assert len(orientations) > 2
    assert types == {"int16", "float32"}


def test_volumes_are_those_of_adult_hippocampi(main_path):
    """In all 2.5 to 5 ml with SUB and SRLM, CA1 the largest part, CA2 a small one."""
    dataset = group("demo")["datasets"]["demo"]
    for _, path in pairs(main_path, "demo"):
        label = nib.load(path)
        voxel_mm3 = abs(np.linalg.det(label.affine[:3, :3]))
        data = np.asarray(label.dataobj)
        mm3 = {
            dataset["labels_names"][to]: (data == value).sum() * voxel_mm3
            for value, to in dataset["labels"].items()
            if to
        }
        assert 2500 < sum(mm3.values()) < 5000
        assert max(mm3, key=mm3.get) == "CA1"
        assert mm3["CA2"] < min(mm3["DG"], mm3["SUB"])


@pytest.mark.parametrize("name", FILES)
def test_the_hippocampus_lies_within_its_crop(main_path, name):
    """Nearly nothing is cut off: at most one voxel in fifty touches the crop's faces."""
    for _, path in pairs(main_path, name):
        foreground = np.asarray(nib.load(path).dataobj) > 0
        inner = foreground[1:-1, 1:-1, 1:-1].sum()
        assert foreground.sum() - inner < 0.02 * foreground.sum()


@pytest.mark.parametrize("name", FILES)
def test_configuration_has_the_published_keys_and_passes_the_check(name):
    """The schema of HSF's data sets key for key; the hints are keys of the groups they name."""
    content = group(name)
    groups = ("search", "models", "finetuning", "lightning")
    assert set(content) - {"base", *groups} == set(PUBLISHED_KEYS)
    hints = {key: content.pop(key, {}) for key in groups}
    hints["models"]["out_channels"] = hints["finetuning"]["out_channels"]  # as composing does
    config = config_from_dict({"datasets": content, **hints})
    assert config.datasets.base == "demo"
    labels = config.datasets.datasets[name].labels_names
    assert config.finetuning.out_channels == len(labels) + 1
    assert config.datasets.datasets[name].path == TASKS[FILES[name]].path


def test_writing_again_touches_nothing(tmp_path):
    """The second call finds the first one's files and leaves every byte and time as it is."""
    assert write_demo(tmp_path / "data", "contrast", subjects=1)
    before = state(tmp_path)
    assert not write_demo(tmp_path / "data", "contrast", subjects=1)
    assert state(tmp_path) == before


def test_two_runs_write_the_same_bytes(tmp_path):
    """Fingerprints of the demo's files mean something: no time and no folder's name in them."""
    for folder in ("a", "b"):
        write_demo(tmp_path / folder, "guideline", subjects=1)
    a, b = state(tmp_path / "a"), state(tmp_path / "b")
    assert {k: v[0] for k, v in a.items()} == {k: v[0] for k, v in b.items()}


def test_a_new_version_of_the_drawing_replaces_the_old_files(tmp_path, monkeypatch):
    """Files of an older version are written anew, whole."""
    write_demo(tmp_path / "data", "contrast", subjects=2)
    monkeypatch.setattr(demo, "VERSION", demo.VERSION + 1)
    assert write_demo(tmp_path / "data", "contrast", subjects=1)
    assert sorted(p.name for p in (tmp_path / "data").glob("sub-*")) == ["sub-01"]
    assert [p.name for p in tmp_path.iterdir() if p.is_dir()] == ["data"]


def test_a_deleted_file_is_written_again(tmp_path):
    """A demo that lost a file is not taken for complete."""
    write_demo(tmp_path / "data", "contrast", subjects=1)
    lost = next((tmp_path / "data").rglob("*_seg_crop.nii.gz"))
    lost.unlink()
    assert write_demo(tmp_path / "data", "contrast", subjects=1)
    assert lost.is_file()


def test_a_folder_that_is_the_users_own_is_left_alone(tmp_path):
    """Files without the demo's mark are somebody's data, whatever the folder is called."""
    mine = tmp_path / TASKS["contrast"].path / "sub-01" / "notes.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    before = state(tmp_path)
    assert ensure_demo(tmp_path, {"demo": TASKS["contrast"].path}) == []
    assert state(tmp_path) == before


@pytest.mark.parametrize("edit", ["changed", "added"])
def test_an_older_demo_with_a_users_edits_is_refused_and_kept(tmp_path, monkeypatch, edit):
    """A corrected label or an added file is not lost to a newer drawing; the message names it."""
    write_demo(tmp_path / "data", "contrast", subjects=1)
    name = "sub-01_t1w_hippocampus_left_seg_crop.nii.gz" if edit == "changed" else "extra.nii.gz"
    (tmp_path / "data" / "sub-01" / name).write_bytes(b"corrected by hand")
    before = state(tmp_path)
    monkeypatch.setattr(demo, "VERSION", demo.VERSION + 1)
    with pytest.raises(DataError, match=name):
        write_demo(tmp_path / "data", "contrast", subjects=1)
    assert state(tmp_path) == before


def test_leftovers_of_a_killed_process_do_not_get_in(tmp_path):
    """Half a demo beside the folder is neither used nor kept."""
    (tmp_path / ".data.new" / "sub-07").mkdir(parents=True)
    write_demo(tmp_path / "data", "contrast", subjects=1)
    assert [p.name for p in (tmp_path / "data").glob("sub-*")] == ["sub-01"]
    assert not (tmp_path / ".data.new").exists()


def _write_one(folder: Path) -> bool:
    return write_demo(folder, "contrast", subjects=1)


def test_of_two_processes_at_once_one_writes(tmp_path):
    """Both return with the whole demo in place; only one drew it."""
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        wrote = pool.map(_write_one, [tmp_path / "data"] * 2, chunksize=1)
    assert sorted(wrote) == [False, True]
    assert len(list((tmp_path / "data").rglob("*.nii.gz"))) == 4


def test_data_sets_that_are_not_the_demos_are_not_made(tmp_path):
    """A path that the demo does not know stays for discovery to complain about."""
    assert ensure_demo(tmp_path, {"clark": "hippocampus_clark_3T"}) == []
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    """The message names the folder and the key to set, instead of a traceback."""
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file.*datasets\.main_path"):
        ensure_demo(tmp_path / "file", {"demo": TASKS["contrast"].path})


def test_pretraining_subjects_are_other_people_and_more_of_them_start_alike():
    """Held-out subjects are drawn by skipping; no number is also one of a demo task's."""
    numbers = [range(t.first_number, t.first_number + t.subjects) for t in TASKS.values()]
    assert len({n for r in numbers for n in r}) == sum(len(r) for r in numbers)
    first, second = list(pretraining_subjects(2))
    (skipped,) = pretraining_subjects(1, skip=1)
    assert first[0] != second[0] == skipped[0]
    np.testing.assert_array_equal(second[1]["left"].image, skipped[1]["left"].image)
