from __future__ import annotations

import itertools

import nibabel as nib
import numpy as np
import pytest
import torch
import torchio as tio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, ornt_transform

from hsf_tune.data.geometry import misalignment
from hsf_tune.data.reading import Grid, read_image, read_labels, to_original
from hsf_tune.errors import DataError

ORIENTATIONS = [
    "".join(codes[i] for codes, i in zip(axes, signs, strict=True))
    for axes in itertools.permutations(["RL", "AP", "SI"])
    for signs in itertools.product((0, 1), repeat=3)
]
KEY = "datasets.datasets.study.labels"


def oblique(spacing=(0.5, 0.7, 1.2), degrees=(5, -7, 12)):
    """A slightly turned RAS+ affine with anisotropic voxels."""
    x, y, z = np.radians(degrees)
    turn_x = [[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]]
    turn_y = [[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]]
    turn_z = [[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]]
    affine = np.eye(4)
    affine[:3, :3] = np.array(turn_x) @ np.array(turn_y) @ np.array(turn_z) @ np.diag(spacing)
    affine[:3, 3] = (-20.5, 13.25, 7.0)
    return affine


def stored_as(array, affine, codes):
    """The same RAS+ volume written in another axis order and direction."""
    to_ras = axcodes2ornt(codes)
    from_ras = ornt_transform(axcodes2ornt("RAS"), to_ras)
    return (
        nib.orientations.apply_orientation(array, from_ras),
        affine @ inv_ornt_aff(from_ras, array.shape),
    )


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_any_orientation_comes_out_in_ras_and_goes_back_onto_its_own_grid(
    codes, tmp_path, write_nifti
):
    volume = np.random.default_rng(0).normal(100, 20, (5, 9, 16)).astype(np.float32)
    data, affine = stored_as(volume, oblique(), codes)
    path = write_nifti(tmp_path / "t2.nii.gz", data, affine)
    image, grid = read_image(path)
    expected = (volume - volume.mean()) / volume.std(ddof=1)
    np.testing.assert_allclose(image[grid.crop], expected, atol=1e-5)
    np.testing.assert_allclose(grid.spacing_mm, (0.5, 0.7, 1.2), atol=1e-5)
    voxel = np.array([*(s.start for s in grid.crop), 1])
    np.testing.assert_allclose(grid.affine @ voxel, oblique() @ [0, 0, 0, 1], atol=1e-4)
    labels = np.arange(volume.size, dtype=np.int32).reshape(volume.shape)
    padded = np.zeros(grid.padded_size, np.int32)
    padded[grid.crop] = labels
    back = to_original(np.stack([padded, padded + 1]), grid)
    np.testing.assert_array_equal(back[0], stored_as(labels, oblique(), codes)[0])
    assert back.shape == (2, *data.shape)


@pytest.mark.parametrize("size", [(8, 16, 24), (5, 9, 15), (1, 23, 10)])
def test_normalising_and_padding_equal_what_hsf_does_at_inference(size, tmp_path, write_nifti):
    """TorchIO's ZNormalization and EnsureShapeMultiple(8), as HSF composes them."""
    volume = np.random.default_rng(1).gamma(2, 300, size).astype(np.float32)
    path = write_nifti(tmp_path / "t2.nii.gz", volume, oblique())
    pipeline = tio.Compose([tio.ZNormalization(), tio.EnsureShapeMultiple(8)])
    reference = pipeline(tio.ScalarImage(tensor=torch.from_numpy(volume)[None], affine=oblique()))
    image, grid = read_image(path)
    np.testing.assert_allclose(image, reference.data[0].numpy(), atol=1e-5)
    np.testing.assert_allclose(grid.affine, reference.affine, atol=1e-4)
    assert image.dtype == np.float32


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    codes=st.tuples(st.sampled_from(ORIENTATIONS), st.sampled_from(ORIENTATIONS)),
    size=st.tuples(*[st.integers(2, 12)] * 3),
    spacing=st.tuples(*[st.floats(0.2, 3)] * 3),
    degrees=st.tuples(*[st.floats(-40, 40)] * 3),
    dtype=st.sampled_from([">i2", "<i2", "u1", "f4", ">f8"]),
    singleton=st.booleans(),
)
def test_image_and_label_are_voxel_aligned_whatever_their_headers(
    codes, size, spacing, degrees, dtype, singleton, tmp_path, write_nifti
):
    """Written with different axis orders, both show the same voxel marked."""
    ras = np.zeros(size, np.int16)
    marked = tuple(n // 2 for n in size)
    ras[marked] = 7
    paths = []
    for name, code in zip(("image", "label"), codes, strict=True):
        data, affine = stored_as(ras, oblique(spacing, degrees), code)
        data = data.astype(dtype)[..., None] if singleton else data.astype(dtype)
        paths.append(write_nifti(tmp_path / f"{name}.nii", data, affine))
    image, grid = read_image(paths[0])
    labels = read_labels(paths[1], grid, {7: 3}, KEY)
    assert np.argmax(image) == np.argmax(labels)
    assert labels.sum() == 3
    axes = nib.orientations.aff2axcodes(grid.affine)
    assert axes == ("R", "A", "S")


def test_scaled_integers_keep_their_whole_labels(tmp_path):
    """An int16 label map with a slope, as some tools write it."""
    values = np.arange(27, dtype=np.float64).reshape(3, 3, 3) % 4
    on_disk = np.rint((values - 3) / 0.1).astype(np.int16)
    file = nib.Nifti1Image(on_disk, np.eye(4))
    file.header.set_slope_inter(0.1, 3)
    nib.save(file, tmp_path / "seg.nii.gz")
    grid = Grid((3, 3, 3), np.eye(4), axcodes2ornt("RAS"), (3, 3, 3), (3, 3, 3), (8, 8, 8))
    labels = read_labels(tmp_path / "seg.nii.gz", grid, {1: 1, 2: 2, 3: 3}, KEY)
    np.testing.assert_array_equal(labels[grid.crop], values)
    assert labels.dtype == np.uint8


def test_labels_are_mapped_and_dropped_as_configured(tmp_path, write_nifti):
    values = np.array([0, 1, 8, 10, 0, 1, 8, 10], np.float32).reshape(2, 2, 2)
    _, grid = read_image(write_nifti(tmp_path / "t2.nii", np.arange(8.0).reshape(2, 2, 2)))
    path = write_nifti(tmp_path / "seg.nii", values)
    labels = read_labels(path, grid, {1: 2, 8: 5, 10: 0}, KEY)[grid.crop]
    np.testing.assert_array_equal(labels.ravel(), [0, 2, 5, 0, 0, 2, 5, 0])


def test_rounding_near_45_degrees_does_not_part_image_and_label(tmp_path, write_nifti):
    """There, the last digit of an affine decides which axis counts as 'right'."""
    data = np.random.default_rng(0).integers(0, 3, (4, 6, 8)).astype(np.int16)
    for turn in (45 - 1e-4, 45 + 1e-4):
        pair = oblique((1, 1, 1), (0, 0, turn)), oblique((1, 1, 1), (0, 0, 90 - turn))
        image = write_nifti(tmp_path / "t2.nii", data, pair[0])
        label = write_nifti(tmp_path / "seg.nii", data, pair[1])
        normalised, grid = read_image(image)
        labels = read_labels(label, grid, {1: 1, 2: 2}, KEY)
        assert np.corrcoef(normalised[grid.crop].ravel(), labels[grid.crop].ravel())[0, 1] > 0.999


def test_misalignment_is_the_corner_that_moves_most_in_voxels():
    shifted = np.diag([0.5, 1, 1, 1])
    shifted[0, 3] = 0.25
    assert misalignment((10, 10, 10), np.diag([0.5, 1, 1, 1]), shifted) == pytest.approx(0.5)


def broken_gzip(path, write):
    write(path, np.random.default_rng(0).normal(size=(20, 20, 20)))
    path.write_bytes(path.read_bytes()[:-2000])


UNREADABLE = {
    "missing": (lambda path, write: None, "can't be read"),
    "empty file": (lambda path, write: path.write_bytes(b""), "can't be read"),
    "no NIfTI": (lambda path, write: path.write_text("hello"), "can't be read"),
    "cut short": (broken_gzip, "can't be read"),
    "4D": (lambda path, write: write(path, np.ones((4, 4, 4, 2))), "4 x 4 x 4 x 2"),
    "2D": (lambda path, write: write(path, np.ones((4, 4))), "4 x 4 "),
    "complex": (lambda path, write: write(path, np.ones((4, 4, 4), complex)), "complex"),
    "NaN": (lambda path, write: write(path, np.full((4, 4, 4), np.nan)), "64 voxels"),
    "next to constant": (
        lambda path, write: write(path, np.arange(64.0).reshape(4, 4, 4) * 1e-200),
        "constant",
    ),
    "constant": (lambda path, write: write(path, np.full((4, 4, 4), 7.0)), "constant"),
}


@pytest.mark.parametrize(("spoil", "words"), UNREADABLE.values(), ids=UNREADABLE.keys())
def test_an_image_that_can_not_be_read_is_named_with_the_reason(
    spoil, words, tmp_path, write_nifti
):
    path = tmp_path / "sub-07_t2.nii.gz"
    spoil(path, write_nifti)
    with pytest.raises(DataError, match=r"sub-07_t2\.nii\.gz") as caught:
        read_image(path)
    assert words in str(caught.value)


def shifted(mm):
    affine = np.eye(4)
    affine[0, 3] = mm
    return affine


@pytest.mark.parametrize(
    ("values", "affine", "words"),
    [
        (np.full((4, 4, 4), 9.0), np.eye(4), [KEY, "label 9", "maps 1, 2", '"9: 0"']),
        (np.full((4, 4, 4), 0.5), np.eye(4), ["0.5", "whole number"]),
        (np.full((4, 4, 4), np.nan), np.eye(4), ["nan", "whole number"]),
        (np.linspace(0, 1e8, 64).round().reshape(4, 4, 4), np.eye(4), ["100000000", "MRI"]),
        (np.ones((4, 4, 5)), np.eye(4), ["4 x 4 x 5", "4 x 4 x 4"]),
        (np.ones((4, 4, 4)), shifted(2), ["2 voxels away"]),
        (np.ones((4, 4, 4)), np.diag([-1.0, 1, 1, 1]), ["voxels away"]),
    ],
)
def test_a_label_map_that_does_not_fit_is_named_with_the_reason(
    values, affine, words, tmp_path, write_nifti
):
    _, grid = read_image(write_nifti(tmp_path / "t2.nii", np.arange(64.0).reshape(4, 4, 4)))
    path = write_nifti(tmp_path / "seg.nii.gz", values, affine)
    with pytest.raises(DataError, match=r"seg\.nii\.gz") as caught:
        read_labels(path, grid, {1: 1, 2: 2}, KEY)
    assert [word for word in words if word not in str(caught.value)] == []


def test_affines_that_differ_by_rounding_are_taken(tmp_path, write_nifti):
    _, grid = read_image(
        write_nifti(tmp_path / "t2.nii", np.arange(64.0).reshape(4, 4, 4), oblique())
    )
    near = np.vstack([oblique()[:3] + 1e-4, [0, 0, 0, 1]])
    label = write_nifti(tmp_path / "seg.nii", np.ones((4, 4, 4)), near)
    assert read_labels(label, grid, {1: 1}, KEY).sum() == 64
