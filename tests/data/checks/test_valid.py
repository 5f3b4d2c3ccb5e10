"""What is odd but valid passes without a fault and reaches the network as it lies in space."""

from __future__ import annotations

import gzip
import struct

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, ornt_transform

from hsf_tune.config import StoreConfig, config_from_dict
from hsf_tune.data.checks.study import check_data
from hsf_tune.data.store import open_store

MRI, LABEL = "study/sub-02/t2.nii.gz", "study/sub-02/seg.nii.gz"


def _save(path, values, affine, kind=nib.Nifti1Image, **forms):
    image = kind(values, affine)
    for form, code in forms.items():
        getattr(image.header, f"set_{form}")(affine if code else None, code=code)
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)


def _both(study, change):
    """Change image and labels of sub-02 alike."""
    for name in (MRI, LABEL):
        change(name, study.values(name))


def _oblique(degrees=30.0):
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.array(
        [[1, 0, 0], [0, c, -s], [0, s, c]]
    )
    affine = np.eye(4)
    affine[:3, :3] = turn * [0.7, 1.1, 0.9]
    affine[:3, 3] = [-30, 12, 55]
    return affine


def _to(codes):
    """Store sub-02 with its axes in another order and direction; what it shows stays in place."""

    def change(study):
        target = axcodes2ornt(tuple(codes))
        for name in (MRI, LABEL):
            image = nib.load(study.path(name))
            change = ornt_transform(nib.io_orientation(image.affine), target)
            nib.save(image.as_reoriented(change), study.path(name))

    return change


def _label_turned(study):
    image = nib.load(study.path(LABEL))
    change = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt("PSL"))
    nib.save(image.as_reoriented(change), study.path(LABEL))


def _renamed(study):
    study.plain["path"] = "étude [pilote] 2"
    study.path("study").rename(study.path("étude [pilote] 2"))
    folder = study.path("étude [pilote] 2/sub-02")
    folder.rename(folder.with_name("sub é (02) [bis]"))


def _plain_nii(study):
    study.plain["patterns"]["t2"] = {"mri": "**/t2.nii*", "label": "seg.nii*"}
    for name in (MRI, LABEL):
        _save(study.path(name[:-3]), study.values(name), study.affine)
        study.path(name).unlink()


def _big_endian(study):
    for name in (MRI, LABEL):
        values = study.values(name).astype(np.int16)
        header = nib.Nifti1Header(endianness=">")
        header.set_data_dtype(values.dtype.newbyteorder(">"))
        nib.save(nib.Nifti1Image(values, study.affine, header), study.path(name))


def _scaled(study):
    """Values 10 (label + 3), to be read back through slope 0.1 and intercept -3."""

    def change(name, values):
        whole = ((values.astype(int) + 3) * 10).astype(np.int16)
        image = nib.Nifti1Image(whole, study.affine)
        nib.save(image, study.path(name))
        data = bytearray(gzip.decompress(study.path(name).read_bytes()))
        struct.pack_into("<2f", data, 112, 0.1, -3.0)
        study.path(name).write_bytes(gzip.compress(bytes(data)))
        assert np.allclose(study.values(name), values, atol=1e-3)

    _both(study, change)


def _one_form_each(study):
    _save(study.path(MRI), study.values(MRI), study.affine, sform=0, qform=1)
    _save(study.path(LABEL), study.values(LABEL), study.affine, qform=0, sform=2)


def _others_beside(study):
    for name in ("._t2.nii.gz", "._seg.nii.gz", "t2.json", "seg.json", ".DS_Store"):
        study.path(f"study/sub-02/{name}").write_bytes(b"\x00\x05\x16\x07 no image")


def _lacking_a_class(study):
    values = study.values(LABEL).copy()
    values[values == 3] = 0
    study.write(LABEL, values)


VALID = {
    **{f"stored as {codes}": _to(codes) for codes in ("LPS", "LAS", "PIR", "SRP", "ALI", "RSA")},
    "an oblique affine": lambda s: _both(s, lambda n, v: s.write(n, v, _oblique())),
    "an affine at exactly 45 degrees, its label's differing by rounding": lambda s: (
        s.write(MRI, s.values(MRI), _oblique(45)),
        s.write(LABEL, s.values(LABEL), _oblique(45 - 1e-5)),
    ),
    "a label map stored in another orientation": _label_turned,
    "uncompressed files": _plain_nii,
    "spaces, accents and brackets in names": _renamed,
    "a float label map with whole numbers": lambda s: s.write(
        LABEL, s.values(LABEL).astype(np.float32)
    ),
    "affines that differ by rounding": lambda s: s.write(
        LABEL, s.values(LABEL), s.affine + 5e-4 * np.sign(s.affine)
    ),
    "x*y*z*1 volumes": lambda s: _both(s, lambda n, v: s.write(n, v[..., None])),
    "x*y*z*1*1 labels": lambda s: s.write(LABEL, s.values(LABEL)[..., None, None]),
    "big-endian integers": _big_endian,
    "scaled integers": _scaled,
    "qform only against sform only": _one_form_each,
    "hidden files and sidecars beside the images": _others_beside,
    "a class that one subject lacks": _lacking_a_class,
    "NIfTI-2": lambda s: _both(s, lambda n, v: _save(s.path(n), v, s.affine, kind=nib.Nifti2Image)),
    "64-bit floats": lambda s: s.write(MRI, s.values(MRI).astype(np.float64)),
    "unsigned 16-bit intensities": lambda s: s.write(MRI, s.values(MRI).astype(np.uint16)),
    "a value in the mapping that no file holds": lambda s: s.plain["labels"].update({77: 0}),
    "empty space around the head": lambda s: _both(
        s, lambda n, v: s.write(n, np.pad(v, ((0, 9), (3, 0), (0, 0))))
    ),
}


def _reference(study):
    """Image and labels of sub-02 in RAS+, by nibabel alone."""
    folder = next(f for f in sorted(study.path(study.plain["path"]).iterdir()) if "02" in f.name)
    files = [next(folder.glob(f"{name}.nii*")) for name in ("t2", "seg")]
    turned = [nib.as_closest_canonical(nib.load(file)) for file in files]
    return [np.asanyarray(image.dataobj).squeeze() for image in turned]


@pytest.mark.parametrize("change", VALID.values(), ids=VALID.keys())
def test_valid_data_pass_and_reach_the_network_unharmed(study, change, tmp_path):
    """No fault; image and labels are what nibabel shows in RAS+."""
    change(study)
    config = study.config()
    findings = check_data(config)
    assert [str(fault) for fault in findings.faults] == []
    store = open_store(
        list(findings.cases), config.datasets, StoreConfig(path=str(tmp_path / "store"))
    )
    stored = store.load(next(case.id for case in findings.cases if "02" in case.subject))
    image, labels = _reference(study)
    assert np.array_equal(stored.labels[stored.crop], np.rint(labels).astype(np.uint8))
    normalised = (image - image.mean()) / image.std(ddof=1)
    assert np.allclose(stored.image[0][stored.crop], normalised, atol=1e-4)


def test_a_class_that_one_subject_lacks_is_warned_of_by_name(study):
    """Not dropped without a word: the warning counts the case, which stays."""
    _lacking_a_class(study)
    findings = check_data(study.config())
    assert len(findings.cases) == len(study.subjects)
    assert "study: label 3 (C) is in no label map of sub-02 (1 of 8 cases)" in findings.warnings[0]


def test_a_sound_study_has_neither_fault_nor_warning(study):
    findings = check_data(study.config())
    assert (findings.faults, findings.warnings) == ((), ())
    findings.require_sound()


def test_a_real_left_side_and_its_mirror_image_are_two_images(study):
    """A left crop flipped to look like a right one is another image, as people do it."""
    study.write("study/sub-03/t2.nii.gz", study.values(MRI)[::-1])
    assert check_data(study.config()).faults == ()


@st.composite
def headers(draw):
    """A random valid header: voxel sizes, rotation, place, storage order, type and form codes."""
    angles = [draw(st.floats(-180, 180)) for _ in range(3)]
    turn = np.eye(3)
    for axis, angle in enumerate(np.radians(angles)):
        c, s = np.cos(angle), np.sin(angle)
        step = np.eye(3)
        i, j = [(1, 2), (0, 2), (0, 1)][axis]
        step[i, i], step[i, j], step[j, i], step[j, j] = c, -s, s, c
        turn = step @ turn
    affine = np.eye(4)
    affine[:3, :3] = turn * [draw(st.floats(0.2, 3)) for _ in range(3)]
    affine[:3, 3] = [draw(st.floats(-200, 200)) for _ in range(3)]
    return {
        "affine": affine,
        "shape": tuple(draw(st.integers(8, 14)) for _ in range(3)),
        "mirrored": draw(st.lists(st.integers(0, 2), max_size=3, unique=True)),
        "order": draw(st.permutations([0, 1, 2])),
        "label_order": draw(st.permutations([0, 1, 2])),
        "label_flips": [draw(st.sampled_from([-1, 1])) for _ in range(3)],
        "label_turned": draw(st.booleans()),
        "image_type": draw(st.sampled_from(["i2", ">i2", "f4", ">f8", "u2", "i4", "i8"])),
        "label_type": draw(st.sampled_from(["u1", "i2", ">i2", "f4", ">f4", "u4"])),
        "forms": draw(st.sampled_from([(1, 0), (0, 1), (2, 1), (1, 4), (3, 3)])),
        "label_forms": draw(st.sampled_from([(1, 0), (0, 1), (2, 1), (1, 4), (3, 3)])),
        "trailing": draw(st.sampled_from([(), (1,), (1, 1)])),
        "suffix": draw(st.sampled_from([".nii", ".nii.gz"])),
    }


def _write(path, values, affine, dtype, forms, trailing):
    header = nib.Nifti1Header(endianness=">" if dtype.startswith(">") else "<")
    header.set_data_dtype(np.dtype(dtype))
    image = nib.Nifti1Image(values.reshape(values.shape + trailing), None, header)
    image.header.set_sform(affine if forms[0] else None, code=forms[0])
    image.header.set_qform(affine, code=forms[1])
    if not forms[1]:
        image.header["qform_code"] = 0
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(header=headers())
def test_image_and_labels_come_out_voxel_aligned_and_in_ras(header, tmp_path_factory):
    """Each voxel carries a number of its own, from which its labels and its place follow."""
    root = tmp_path_factory.mktemp("any")
    affine, shape = header["affine"].copy(), header["shape"]
    for axis in header["mirrored"]:
        affine[:, axis] *= -1
    numbers = np.arange(np.prod(shape)).reshape(shape)
    labels = numbers % 4
    label_affine = affine
    if header["label_turned"]:
        orientation = np.array(list(zip(header["label_order"], header["label_flips"], strict=True)))
        labels = nib.apply_orientation(labels, orientation)
        label_affine = affine @ inv_ornt_aff(orientation, shape)
    for subject in ("sub-1", "sub-2"):
        other = numbers if subject == "sub-1" else numbers + 1
        image_path = root / "study" / subject / f"t2{header['suffix']}"
        _write(image_path, other.astype(header["image_type"]), affine, header["image_type"],
               header["forms"], header["trailing"])  # fmt: skip
        _write(image_path.with_name("seg.nii.gz"), labels.astype(header["label_type"]),
               label_affine, header["label_type"], header["label_forms"], ())  # fmt: skip
    config = config_from_dict(
        {
            "datasets": {
                "main_path": str(root),
                "datasets": {
                    "study": {
                        "path": "study",
                        "ca_type": "1/2/3",
                        "patterns": {"t2": {"mri": "**/t2.nii*", "label": "seg.nii.gz"}},
                        "labels": {1: 1, 2: 2, 3: 3},
                        "labels_names": {1: "A", 2: "B", 3: "C"},
                    }
                },
            },
            "finetuning": {"out_channels": 4},
            "models": {"out_channels": 4, "use_forgiving_loss": False},
        }
    )
    findings = check_data(config, workers=1)
    assert [str(fault) for fault in findings.faults] == []
    store = open_store(list(findings.cases), config.datasets, StoreConfig(path=str(root / "store")))
    stored = store.load(findings.cases[0].id)
    inside = stored.image[0][stored.crop].astype(np.float64)
    found = np.rint(inside * numbers.std(ddof=1) + numbers.mean()).astype(int)
    assert np.array_equal(np.sort(found.ravel()), np.arange(numbers.size))
    assert np.array_equal(stored.labels[stored.crop], found % 4)
    _assert_in_place(stored, found, affine, shape)


def _assert_in_place(stored, found, affine, shape):
    """Axes run to the right, front and top as closely as they can, and no voxel has moved."""
    axes = stored.affine[:3, :3] / np.linalg.norm(stored.affine[:3, :3], axis=0)
    assert nib.aff2axcodes(stored.affine) == ("R", "A", "S") or np.abs(axes).max(axis=0).min() < 0.8
    corner = np.array([part.start for part in stored.crop])
    for index in ((0, 0, 0), tuple(n - 1 for n in found.shape), (3, 5, 2)):
        original = np.unravel_index(found[index], shape)
        was = affine @ [*original, 1.0]
        now = stored.affine @ [*(np.array(index) + corner), 1.0]
        assert np.allclose(was, now, atol=0.1)
