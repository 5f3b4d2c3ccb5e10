"""One faulty dataset for each thing that must not train: the fault names the place and says why."""

from __future__ import annotations

import gzip
import os
import re
import shutil
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hsf_tune.data.checks.study import check_data
from hsf_tune.errors import ConfigError, DataError
from hsf_tune.model.labels import Merging

MRI, LABEL = "study/sub-02/t2.nii.gz", "study/sub-02/seg.nii.gz"
KEY = "datasets.datasets.study"


def _patched(study, name, offset, layout, *values):
    """The same file with a few header bytes overwritten."""
    data = bytearray(gzip.decompress(study.path(name).read_bytes()))
    struct.pack_into(layout, data, offset, *values)
    study.path(name).write_bytes(gzip.compress(bytes(data)))


def _cut_gzip(study):
    path = study.path(MRI)
    path.write_bytes(path.read_bytes()[:-2000])


def _cut_before_checksum(study):
    path = study.path(MRI)
    path.write_bytes(path.read_bytes()[:-6])


def _cut_and_zipped_again(study):
    whole = gzip.decompress(study.path(MRI).read_bytes())
    study.path(MRI).write_bytes(gzip.compress(whole[:-500]))


def _cut_plain(study):
    study.plain["patterns"]["t2"]["mri"] = "**/t2.nii*"
    data = gzip.decompress(study.path(MRI).read_bytes())
    study.path(MRI).unlink()
    study.path("study/sub-02/t2.nii").write_bytes(data[:-500])


def _flipped_bit(study):
    data = bytearray(study.path(MRI).read_bytes())
    data[len(data) // 2] ^= 16
    study.path(MRI).write_bytes(bytes(data))


def _labels(study, change: Callable[[np.ndarray], object], dtype=None):
    labels = study.values(LABEL).copy() if dtype is None else study.values(LABEL).astype(dtype)
    change(labels)
    study.write(LABEL, labels)


def _image(study, change: Callable[[np.ndarray], object]):
    image = study.values(MRI).astype(np.float32)
    change(image)
    study.write(MRI, image)


def _moved(study, affine):
    study.write(LABEL, study.values(LABEL), affine)


def _set(array, where, value):
    array[where] = value


def _turned(degrees):
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, -s, 0, 0], [s, c, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])


def _swap_patterns(study):
    pattern = study.plain["patterns"]["t2"]
    pattern["mri"], pattern["label"] = "**/seg.nii.gz", "t2.nii.gz"


def _names(study, **keys):
    study.plain.update(keys)


# what is done to a sound dataset, where the fault is, words that matter
FILES = {
    "an image that is no NIfTI": (
        lambda s: s.path(MRI).write_bytes(gzip.compress(b"no image at all" * 100)),
        MRI, ["does not begin like a NIfTI"],
    ),
    "an image of another format under this name": (
        lambda s: s.path(MRI).write_bytes(b"DICM" * 500), MRI, ["not compressed", r"ends in \.gz"],
    ),
    "a truncated .nii.gz": (_cut_gzip, MRI, ["cut short"]),
    "a .nii.gz that lacks only its checksum": (_cut_before_checksum, MRI, ["cut short"]),
    "a cut image that was compressed again": (_cut_and_zipped_again, MRI, ["cut short"]),
    "a truncated .nii": (_cut_plain, "study/sub-02/t2.nii", ["cut short"]),
    "a .nii.gz with one bit flipped": (_flipped_bit, MRI, ["damaged"]),
    "an empty file": (lambda s: s.path(MRI).write_bytes(b""), MRI, ["empty", "0 bytes"]),
    "an image without voxels": (
        lambda s: _patched(s, MRI, 40, "<8h", 3, 12, 0, 10, 1, 1, 1, 1), MRI,
        ["empty", "12 x 0 x 10"],
    ),
    "absurd dimensions": (
        lambda s: _patched(s, MRI, 40, "<8h", 3, 30000, 30000, 30000, 1, 1, 1, 1), MRI,
        ["30000 x 30000 x 30000", "at most 67,108,864"],
    ),
    "dimensions that the file can't fill": (
        lambda s: _patched(s, MRI, 40, "<8h", 3, 400, 400, 400, 1, 1, 1, 1), MRI,
        ["cut short", "400 x 400 x 400"],
    ),
    "negative dimensions": (
        lambda s: _patched(s, MRI, 40, "<8h", 3, 12, -16, 10, 1, 1, 1, 1), MRI, ["12 x -16 x 10"],
    ),
    "a time series": (
        lambda s: s.write(MRI, np.ones((12, 16, 10, 3), np.float32)), MRI,
        ["no 3D volume", "12 x 16 x 10 x 3"],
    ),
    "a single slice": (
        lambda s: s.write(MRI, np.ones((12, 16), np.float32)), MRI, ["no 3D volume", "12 x 16"],
    ),
    "a colour image": (
        lambda s: s.write(MRI, np.zeros((12, 16, 10), [("R", "u1"), ("G", "u1"), ("B", "u1")])),
        MRI, ["colours", "one number a voxel"],
    ),
    "a complex image": (
        lambda s: s.write(MRI, np.ones((12, 16, 10), np.complex64)), MRI, ["complex numbers"],
    ),
    "an unknown datatype": (
        lambda s: _patched(s, MRI, 70, "<h", 77), MRI, ["unknown type", "77"],
    ),
    "no label for an MRI": (lambda s: s.path(LABEL).unlink(), MRI, ["has no label map"]),
    "several labels for one MRI": (
        lambda s: (
            s.plain["patterns"]["t2"].update(label="*seg*.nii.gz"),
            shutil.copy(s.path(LABEL), s.path("study/sub-02/seg_old.nii.gz")),
        ),
        MRI, ["has 2 label maps", "seg_old"],
    ),
    "a pattern that matches nothing": (
        lambda s: s.plain["patterns"].update(t1={"mri": "**/t1.nii.gz", "label": "seg.nii.gz"}),
        f"{KEY}.patterns.t1.mri=**/t1.nii.gz", ["matches no"],
    ),
    "two patterns that use the same file": (
        lambda s: (
            s.plain["patterns"].update(again={"mri": "*2/t2.nii.gz", "label": "old.nii.gz"}),
            shutil.copy(s.path(LABEL), s.path("study/sub-02/old.nii.gz")),
        ),
        MRI, ["used 2 times", "study/again"],
    ),
    "label and MRI of different shape": (
        lambda s: s.write(LABEL, s.values(LABEL)[:, :-1]), LABEL,
        ["12 x 15 x 10", "12 x 16 x 10", "same grid"],
    ),
    "a label map with other voxel sizes": (
        lambda s: _moved(s, s.affine @ np.diag([1.1, 1, 1, 1])), LABEL,
        ["voxels of 0.88 x 1.2 x 0.6 mm", "0.8 x 1.2 x 0.6"],
    ),
    "a turned label map": (
        lambda s: _moved(s, _turned(8) @ s.affine), LABEL, ["turned against its MRI by"],
    ),
    "a shifted label map": (
        lambda s: _moved(s, _shifted(s.affine, 50, 0, 0)), LABEL,
        ["shifted", "50 mm to the right"],
    ),
    "a label map shifted by half a voxel": (
        lambda s: _moved(s, _shifted(s.affine, 0, 0, -0.3)), LABEL,
        ["shifted", "0.3 mm to the bottom"],
    ),
    "a label map mirrored left-right": (
        lambda s: _moved(s, s.affine @ np.diag([-1, 1, 1, 1])), LABEL,
        ["mirrored left-right", "LAS", "RAS"],
    ),
    "a label map mirrored front-back": (
        lambda s: _moved(s, s.affine @ np.diag([1, -1, 1, 1])), LABEL, ["mirrored front-back"],
    ),
    "a label map without a place beside an MRI that has one": (
        lambda s: _patched(s, LABEL, 252, "<2h", 0, 0), LABEL,
        ["the label map has neither sform nor qform"],
    ),
    "a singular affine": (
        lambda s: _patched(s, MRI, 280, "<12f", 1, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0), MRI,
        ["singular affine", "one plane"],
    ),
    "an affine with an axis of length zero": (
        lambda s: _patched(s, MRI, 280, "<12f", 0, 0, 0, 1, 0, 1, 0, 1, 0, 0, 1, 1), MRI,
        ["voxel sizes of 0 x 1 x 1"],
    ),
    "an affine with NaN": (
        lambda s: _patched(s, MRI, 280, "<f", float("nan")), MRI, ["affine with NaN"],
    ),
    "a negative voxel size": (
        lambda s: _patched(s, MRI, 80, "<3f", -0.8, 1.2, 0.6), MRI,
        ["voxel sizes of -0.8 x 1.2 x 0.6", "positive"],
    ),
    "a voxel size of zero": (
        lambda s: _patched(s, LABEL, 80, "<3f", 0.8, 0, 0.6), LABEL, ["voxel sizes of 0.8 x 0 x"],
    ),
    "NaN in the image": (
        lambda s: _image(s, lambda a: _set(a, (2, 3, 4), np.nan)), MRI, ["1 NaN voxel of 1,920"],
    ),
    "infinity in the image": (
        lambda s: _image(s, lambda a: _set(a, (2, 3, slice(0, 2)), np.inf)), MRI,
        ["2 infinite voxels"],
    ),
    "NaN in the labels": (
        lambda s: _labels(s, lambda a: _set(a, (0, 0, 0), np.nan), np.float32), LABEL, ["1 NaN"],
    ),
    "a constant image": (
        lambda s: _image(s, lambda a: _set(a, ..., 7)), MRI, ["constant", "every voxel is 7"],
    ),
    "an image of next to nothing": (
        lambda s: s.write(MRI, s.values(MRI).astype(np.float64) * 1e-200), MRI,
        ["single precision can't tell apart"],
    ),
    "an image too small for the network": (
        lambda s: (
            s.write(MRI, s.values(MRI)[:, :, :7]), s.write(LABEL, s.values(LABEL)[:, :, :7])
        ),
        MRI, ["too small for the network", "12 x 16 x 7", "at least 8"],
    ),
    "label values that are not mapped": (
        lambda s: _labels(s, lambda a: (_set(a, (0, 0, 0), 9), _set(a, (1, 1, slice(0, 4)), 23))),
        LABEL, [r"labels 9 \(1 voxel\), 23 \(4 voxels\)", f"{KEY}.labels does not map", "1, 2, 3",
                '"9: 0"'],
    ),
    "labels that are no whole numbers": (
        lambda s: _labels(s, lambda a: _set(a, (0, 0, 0), 1.5), np.float32), LABEL,
        ["no whole numbers: 1.5", "nearest neighbours"],
    ),
    "an empty label map": (
        lambda s: _labels(s, lambda a: _set(a, ..., 0)), LABEL, ["is empty", "only zeros"],
    ),
    "a label map of dropped values only": (
        lambda s: (
            s.plain["labels"].update({5: 0}), _labels(s, lambda a: _set(a, a > 0, 5)),
        ),
        LABEL, ["is empty", "drops"],
    ),
    "the same image under two subjects": (
        lambda s: shutil.copy(s.path(MRI), s.path("study/sub-03/t2.nii.gz")),
        "study/sub-03/t2.nii.gz", ["same image", "sub-02/t2.nii.gz", "study/sub-03"],
    ),
    "the same voxels in another file type": (
        lambda s: s.write("study/sub-03/t2.nii.gz", s.values(MRI).astype(np.float64)),
        "study/sub-03/t2.nii.gz", ["same image"],
    ),
    "a label map that is a copy of its MRI": (
        lambda s: shutil.copy(s.path(MRI), s.path(LABEL)), LABEL, ["looks like an MRI"],
    ),
    "labels that look like an MRI": (
        lambda s: s.write(LABEL, np.random.default_rng(5).normal(size=(12, 16, 10)) * 99), LABEL,
        ["looks like an MRI", "different values"],
    ),
    "an MRI that looks like labels": (
        lambda s: shutil.copy(s.path(LABEL), s.path(MRI)), MRI, ["looks like a label map"],
    ),
    "a dataset without patterns": (
        lambda s: s.plain.update(patterns={}), f"{KEY}.patterns", ["is empty"],
    ),
    "a label mapped beyond the names": (
        lambda s: s.plain["labels"].update({4: 4}), f"{KEY}.labels",
        ["value 4 to label 4", "labels_names does not name"],
    ),
    "label ids with a gap": (
        lambda s: _names(s, labels={1: 1, 2: 2, 3: 4}, labels_names={1: "A", 2: "B", 4: "C"}),
        f"{KEY}.labels_names", ["numbers its labels 1, 2, 4", "1 to 3 without a gap"],
    ),
    "label ids from 0": (
        lambda s: _names(s, labels={1: 0, 2: 1, 3: 2}, labels_names={0: "A", 1: "B", 2: "C"}),
        f"{KEY}.labels_names", ["numbers its labels 0, 1, 2"],
    ),
    "a name that no value is mapped to": (
        lambda s: s.plain["labels"].update({3: 2}), f"{KEY}.labels", [r"no value to label 3 \(C\)"],
    ),
    "background mapped to a label": (
        lambda s: s.plain["labels"].update({0: 1}), f"{KEY}.labels", ["background"],
    ),
    "two labels with one name": (
        lambda s: _names(s, labels_names={1: "A", 2: "B", 3: "a"}), f"{KEY}.labels_names",
        ["both 1 and 3"],
    ),
    "out_channels that is not N + 1": (
        lambda s: s.channels(6), "finetuning.out_channels=6",
        ["3 labels", "expected 4", r"finetuning\.out_channels=4"],
    ),
    "channels that the forgiving loss does not have": (
        lambda s: s.forgiving(), "finetuning.out_channels=4",
        ["expected 6", r"use_forgiving_loss=False finetuning\.out_channels=4"],
    ),
}  # fmt: skip


def _shifted(affine, *way):
    moved = affine.copy()
    moved[:3, 3] += way
    return moved


@pytest.mark.parametrize(("harm", "where", "words"), FILES.values(), ids=FILES.keys())
def test_a_fault_names_its_place_and_what_is_wrong(study, harm, where, words):
    """And it is the only one: no fault drags others along, and none is a traceback."""
    harm(study)
    findings = check_data(study.config(), place_labels=lambda names, ca_type: Merging((), ()))
    found = {str(Path(f.where)).removeprefix(f"{study.root}/"): str(f) for f in findings.faults}
    assert list(found) == [where]
    for word in words:
        _require(word, found[where])
    with pytest.raises(DataError, match="1 fault found before training"):
        findings.require_sound()


def _require(word, text):
    assert re.search(word, text), f"{word!r} is not in: {text}"


def test_labels_that_the_forgiving_loss_can_not_place_are_a_fault(study):
    """What it can place is not this package's business; it comes as a function."""

    def place(names, ca_type):
        raise ConfigError(f"{', '.join(names.values())} with {ca_type} can't be placed")

    study.forgiving()
    (fault,) = check_data(study.config(), place_labels=place).faults
    assert str(fault) == "A, B, C with 1/2/3 can't be placed"
    assert fault.where == f"{KEY}.labels_names"


def test_two_datasets_that_number_a_subfield_differently_are_a_fault(study):
    """A plain loss has one channel for each number."""
    shutil.copytree(study.path("study"), study.path("other"))
    other = {**study.plain, "path": "other", "labels_names": {1: "B", 2: "A", 3: "C"}}
    config = study.config(others={"other": other})
    text = "\n".join(str(fault) for fault in check_data(config).faults)
    _require("datasets.datasets.other.labels_names has B as label 1, but .*study as 2", text)


def test_swapped_patterns_are_told_for_each_pair(study):
    """mri matches the label maps and label matches the images."""
    _swap_patterns(study)
    faults = check_data(study.config()).faults
    assert len(faults) == len(study.subjects)
    assert all("look swapped" in str(fault) for fault in faults)


def test_a_pattern_that_also_catches_label_maps_is_told_for_each(study):
    """mri matches every file of a subject's folder."""
    study.plain["patterns"]["t2"].update(mri="**/*.nii.gz", label="seg*.nii.gz")
    faults = check_data(study.config()).faults
    assert {Path(fault.where).name for fault in faults} == {"seg.nii.gz"}
    assert all("is the label map of t2.nii.gz" in fault.found for fault in faults)


def test_all_faults_of_all_cases_come_at_once(study):
    """Three different faults in three subjects and one in the configuration make four."""
    study.path("study/sub-01/t2.nii.gz").write_bytes(b"")
    _labels(study, lambda a: _set(a, ..., 0))
    study.write("study/sub-03/t2.nii.gz", np.full((12, 16, 10), 3.0, np.float32))
    study.channels(9)
    text = "\n".join(str(fault) for fault in check_data(study.config()).faults)
    assert len(text.splitlines()) == 4
    for word in ("sub-01/t2.nii.gz is empty", "sub-02/seg.nii.gz is empty", "constant", "=9"):
        assert word in text


def test_both_files_of_a_case_are_faulted_at_once(study):
    """An unreadable image does not hide what is wrong with its label map."""
    _cut_gzip(study)
    _labels(study, lambda a: _set(a, (0, 0, 0), 9))
    assert len(check_data(study.config()).faults) == 2


@pytest.mark.parametrize("shape", [(30000, 30000, 30000), (2000, 2000, 16), (400, 400, 400)])
def test_absurd_dimensions_are_refused_before_anything_is_allocated(study, shape):
    """The claim alone costs no memory, whatever it is."""
    _patched(study, MRI, 40, "<8h", 3, *shape, 1, 1, 1, 1)
    tracemalloc.start()
    faults = check_data(study.config(), workers=1).faults
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(faults) == 1
    assert peak < 20e6


def test_a_small_file_that_unpacks_to_gigabytes_is_refused(study):
    """Zeros compress a thousandfold; what follows the voxels is read only up to a bound."""
    whole = gzip.decompress(study.path(MRI).read_bytes())
    study.path(MRI).write_bytes(gzip.compress(whole + bytes(100_000_000), 1))
    tracemalloc.start()
    (fault,) = check_data(study.config(), workers=1).faults
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "after its last voxel" in str(fault)
    assert peak < 40e6


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_read_permission_is_a_fault(study):
    study.path(MRI).chmod(0)
    (fault,) = check_data(study.config()).faults
    assert "may not be read by you" in str(fault)


SPLITS = {
    "an index out of range": (
        {"train_val_test_idx": [[0, 1], [2, 9], []]}, [r"validation part holds \[9\]", "8 cases"],
    ),
    "an index in two parts": (
        {"train_val_test_idx": [[0, 1, 2], [2, 3], []]}, [r"\[2\] more than once"],
    ),
    "nothing to validate": (
        {"train_val_test_idx": [list(range(8)), [], []]}, ["no subject to validate"],
    ),
    "nothing to train": ({"train_val_test_idx": [[], [0, 1], []]}, ["no subject to train"]),
    "a subject that does not exist": (
        {"train_val_test_subjects": [["sub-01"], ["sub-2"], []]}, ["'sub-2'", "Did you mean"],
    ),
    "a subject in two parts": (
        {"train_val_test_subjects": [["sub-01", "sub-02"], ["sub-02"], []]}, ["more than once"],
    ),
    "a sample larger than what trains": ({"k_sample": 40}, ["k_sample is 40"]),
}  # fmt: skip


@pytest.mark.parametrize(("keys", "words"), SPLITS.values(), ids=SPLITS.keys())
def test_a_split_that_can_not_be_is_a_fault(study, keys, words):
    text = "\n".join(str(fault) for fault in check_data(study.config(**keys)).faults)
    for word in words:
        _require(word, text)


def test_one_subject_only_is_a_fault(study):
    """With one subject nothing can validate."""
    for subject in study.subjects[1:]:
        shutil.rmtree(study.path(f"study/{subject}"))
    text = "\n".join(str(fault) for fault in check_data(study.config()).faults)
    _require("study/sub-01 is all that is left.*at least two subjects", text)


def test_indices_that_part_a_subjects_cases_are_a_fault(study):
    """The left side trains while the right one validates."""
    for subject in study.subjects:
        for name in ("t2", "seg"):
            values = study.values(f"study/{subject}/{name}.nii.gz")[::-1]
            study.write(f"study/{subject}/r{name}.nii.gz", values)
    study.plain["patterns"]["right"] = {"mri": "**/rt2.nii.gz", "label": "rseg.nii.gz"}
    config = study.config(train_val_test_idx=[list(range(8)), list(range(8, 16)), []])
    _require("parts the cases of study/sub-01", str(check_data(config).faults[0]))


def test_a_search_that_trains_on_everything_is_a_fault(study):
    """train_on_all is for finetune.py; there it is only told of."""
    config = study.config(train_on_all=True)
    assert "train_on_all" in str(check_data(config, purpose="search").faults[0])
    findings = check_data(config, purpose="finetune")
    assert findings.faults == ()
    assert any("no validation" in warning for warning in findings.warnings)
