"""What is allowed but odd is told, by name, and stops nothing."""

from __future__ import annotations

import gzip
import json
import shutil
import struct

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, ornt_transform

from hsf_tune.data.checks.study import check_data

MRI, LABEL = "study/sub-02/t2.nii.gz", "study/sub-02/seg.nii.gz"


def _header(study, name, change):
    image = nib.load(study.path(name))
    values = np.asanyarray(image.dataobj).copy()
    change(image.header)
    nib.save(nib.Nifti1Image(values, None, image.header), study.path(name))


def _patched(study, name, offset, layout, *values):
    data = bytearray(gzip.decompress(study.path(name).read_bytes()))
    struct.pack_into(layout, data, offset, *values)
    study.path(name).write_bytes(gzip.compress(bytes(data)))


def _both(study, change):
    for name in (MRI, LABEL):
        change(name)


def _unplaced(header):
    header.set_sform(None, code=0)
    header.set_qform(None, code=0)


def _qform_elsewhere(study):
    other = study.affine.copy()
    other[0, 3] += 20
    _header(study, MRI, lambda h: h.set_qform(other, code=1))


def _shrunk(study):
    """All but one slice of a subfield is missing."""
    labels = study.values(LABEL).copy()
    labels[3:8][labels[3:8] == 2] = 0
    study.write(LABEL, labels)


def _turned_labels(study):
    image = nib.load(study.path(LABEL))
    change = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt("LPS"))
    nib.save(image.as_reoriented(change), study.path(LABEL))


def _spiked(study):
    values = study.values(MRI).copy()
    values[0, 0, :2] = 30000
    study.write(MRI, values)


def _black(study):
    values = study.values(MRI).copy()
    values[:, :, :9] = 0
    values[:6, :, 9] = 0
    study.write(MRI, values)


def _at_the_edge(study):
    labels = study.values(LABEL).copy()
    labels[:, 3:13, 4] = 1
    study.write(LABEL, labels)


def _fewer(study):
    for subject in study.subjects[4:]:
        shutil.rmtree(study.path(f"study/{subject}"))


WARNINGS = {
    "few subjects": (_fewer, ["4 subjects", "below 6 no verdict"]),
    "sform and qform that disagree": (_qform_elsewhere, ["sform and qform disagree", "t2.nii.gz"]),
    "neither sform nor qform": (
        lambda s: _both(s, lambda name: _header(s, name, _unplaced)),
        ["1 of 8 cases without sform and qform", "left may be right"],
    ),
    "voxel sizes told twice": (
        lambda s: _patched(s, MRI, 80, "<3f", 1, 1, 1), ["1 x 1 x 1 mm against 0.8 x 1.2 x 0.6"],
    ),
    "lengths in micrometres": (
        lambda s: _header(s, MRI, lambda h: h.set_xyzt_units("micron")), ["lengths in micron"],
    ),
    "very anisotropic voxels": (
        lambda s: _both(s, lambda n: s.write(n, s.values(n), np.diag([0.4, 0.4, 2.4, 1]))),
        ["far longer in one direction", "0.4 x 0.4 x 2.4 mm"],
    ),
    "unusual voxel sizes": (
        lambda s: _both(s, lambda n: s.write(n, s.values(n), np.diag([7, 7, 7, 1.0]))),
        ["unusual voxel sizes", "7 x 7 x 7 mm"],
    ),
    "two storage orders in one case": (_turned_labels, ["different orientations", "RAS and LPS"]),
    "an outlier in volume": (_shrunk, ["B of sub-02", "unusually small", "robust z -"]),
    "extreme intensities": (_spiked, ["extreme intensities", "up to 30000"]),
    "an image that is nearly all one value": (
        _black, ["nearly one value", "95% of the voxels are 0"],
    ),
    "labels at the edge": (_at_the_edge, ["reach the image's edge"]),
    "a class that nobody has": (
        lambda s: [
            s.write(f"study/{sub}/seg.nii.gz", s.values(f"study/{sub}/seg.nii.gz") % 3)
            for sub in s.subjects
        ],
        [r"label 3 (C) is in no label map; the network will learn never to find it"],
    ),
    "one label map for two subjects": (
        lambda s: shutil.copy(s.path(LABEL), s.path("study/sub-03/seg.nii.gz")),
        ["2 cases have the same label map", "study--sub-02--t2, study--sub-03--t2"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("change", "words"), WARNINGS.values(), ids=WARNINGS.keys())
def test_an_oddity_is_warned_of_and_stops_nothing(study, change, words):
    change(study)
    findings = check_data(study.config())
    assert [str(fault) for fault in findings.faults] == []
    text = "\n".join(findings.warnings)
    for word in words:
        assert word in text


def _sided(study, left_x_mm, right_x_mm):
    """A left and a right case for each subject, their crops at these places."""
    for i, subject in enumerate(study.subjects):
        for side, x_mm in (("left", left_x_mm), ("right", right_x_mm)):
            affine = study.affine.copy()
            affine[0, 3] = x_mm
            for name in ("t2", "seg"):
                values = np.roll(study.values(f"study/{subject}/{name}.nii.gz"), i, axis=1)
                values = values if side == "left" else values[::-1]
                study.write(f"study/{subject}/{side}_{name}.nii.gz", values, affine)
    study.plain["patterns"] = {
        f"{side}_t2": {"mri": f"**/{side}_t2.nii.gz", "label": f"{side}_seg.nii.gz"}
        for side in ("left", "right")
    }


@pytest.mark.parametrize(("left_x_mm", "warned"), [(-35, False), (25, False), (60, True)])
def test_left_labels_to_the_right_of_right_ones_are_warned_of(study, left_x_mm, warned):
    """The right crops start at 25 mm; crops without a place of their own are not judged."""
    _sided(study, left_x_mm, 25)
    text = "\n".join(check_data(study.config()).warnings)
    assert ("left and right swapped" in text) == warned


def test_warnings_and_tables_go_to_dataset_json_as_plain_data(study):
    """They survive JSON unchanged, and name cases and labels."""
    _shrunk(study)
    findings = check_data(study.config())
    plain = findings.to_dict()
    assert json.loads(json.dumps(plain)) == plain
    assert plain["warnings"] == list(findings.warnings)
    volume = plain["tables"]["study"]["volumes"]["study--sub-02--t2"]["B"]
    assert volume["outlier"] is True


def test_one_image_twice_in_a_subject_is_warned_of(study):
    """As a copy under another contrast's name; it would count double."""
    for name in ("t2", "seg"):
        shutil.copy(
            study.path(f"study/sub-02/{name}.nii.gz"), study.path(f"study/sub-02/b{name}.nii.gz")
        )
    study.plain["patterns"]["b"] = {"mri": "**/bt2.nii.gz", "label": "bseg.nii.gz"}
    findings = check_data(study.config())
    assert findings.faults == ()
    assert "2 cases have the same image" in findings.warnings[0]


def _visible(study, flip):
    """Intensities that follow the labels, which are then written with some axis reversed."""
    for i, subject in enumerate(study.subjects):
        rng = np.random.default_rng(100 + i)
        labels = study.values(f"study/{subject}/seg.nii.gz").copy()
        labels[7:], labels[:, 8:], labels[:, :, 6:] = 0, 0, 0  # nothing is symmetric
        image = 300.0 + 80.0 * labels + rng.normal(0, 30, labels.shape)
        study.write(f"study/{subject}/t2.nii.gz", image.astype(np.int16))
        study.write(f"study/{subject}/seg.nii.gz", np.flip(labels, flip))


@pytest.mark.parametrize(
    ("flip", "found"),
    [((), None), (0, "left-right"), (1, "front-back"), (2, "top-bottom")],
)
def test_labels_written_with_an_axis_reversed_under_the_same_header_are_warned_of(
    study, flip, found
):
    """No header tells; the images do, when the whole dataset is so."""
    _visible(study, flip)
    findings = check_data(study.config())
    told = [w for w in findings.warnings if "fit the image better when mirrored" in w]
    assert findings.faults == ()
    assert len(told) == (0 if found is None else 1)
    assert found is None or f"mirrored {found}" in told[0]


def test_many_outliers_are_told_by_their_number(study):
    """Every second label map of 8 subjects has three odd volumes; 8 are told one by one."""
    for subject in study.subjects[:3]:
        labels = study.values(f"study/{subject}/seg.nii.gz").copy()
        labels[5:] = 0
        study.write(f"study/{subject}/seg.nii.gz", labels)
    text = "\n".join(check_data(study.config()).warnings)
    assert text.count("unusually small") == 8
    assert "1 more volumes are unusual" in text
