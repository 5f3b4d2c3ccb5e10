"""The drawn subjects: the same each time, anatomically in order, one anatomy under every view."""

from __future__ import annotations

from itertools import pairwise

import nibabel as nib
import numpy as np
import pytest

from hsf_tune.data.demo.crops import REGION_VALUES, SIDES, SUBFIELD_VALUES, Crop, make_crop

SUBFIELDS = ("DG", "CA1", "CA2", "CA3", "SUB")
SUBJECTS = (103, 1001)


@pytest.fixture(scope="module")
def crops() -> dict[tuple[int, str], Crop]:
    return {(n, side): make_crop(n, side) for n in SUBJECTS for side in SIDES}


def ras(array: np.ndarray, crop: Crop) -> np.ndarray:
    return np.asarray(nib.as_closest_canonical(nib.Nifti1Image(array, crop.affine)).dataobj)


def centre_mm(crop: Crop, name: str) -> np.ndarray:
    """World coordinates of a subfield's centre of mass."""
    voxels = np.argwhere(crop.labels == SUBFIELD_VALUES[name])
    return nib.affines.apply_affine(crop.affine, voxels.mean(0))


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def hippocampus(crop: Crop) -> np.ndarray:
    return np.isin(ras(crop.labels, crop), [SUBFIELD_VALUES[name] for name in SUBFIELDS])


def mean_signal(crop: Crop, regions: Crop, name: str) -> float:
    return float(crop.image[regions.labels == REGION_VALUES[name]].mean())


def test_same_arguments_draw_the_same_crop_to_the_last_bit():
    """Nothing but the arguments decides a crop: no global state, no call order."""
    first = make_crop(103, "left", "t1", "regions")
    np.random.seed(7)  # noqa: NPY002 - global state must not matter
    make_crop(5, "right")
    again = make_crop(103, "left", "t1", "regions")
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.labels, again.labels)
    np.testing.assert_array_equal(first.affine, again.affine)


def test_another_number_is_another_person():
    """Two subjects differ in shape, and not only in noise."""
    a, b = hippocampus(make_crop(1, "right")), hippocampus(make_crop(2, "right"))
    smallest = tuple(slice(0, min(m, n)) for m, n in zip(a.shape, b.shape, strict=True))
    assert dice(a[smallest], b[smallest]) < 0.95


@pytest.mark.parametrize("number", SUBJECTS)
@pytest.mark.parametrize("side", SIDES)
def test_subfields_lie_as_in_a_brain(crops, number, side):
    """SUB medial of CA1, CA2 and CA3 above SUB, CA3 medial of CA2, in world coordinates."""
    crop = crops[number, side]
    outwards = -1 if side == "left" else 1
    at = {name: centre_mm(crop, name) * [outwards, 1, 1] for name in SUBFIELDS}
    assert all(position[0] > 0 for position in at.values()), "on its own side of the midline"
    assert at["SUB"][0] < at["DG"][0] < at["CA1"][0]
    assert at["CA3"][0] < at["CA2"][0]
    assert at["SUB"][2] < at["DG"][2] < at["CA2"][2]


@pytest.mark.parametrize("number", SUBJECTS)
@pytest.mark.parametrize("side", SIDES)
def test_the_tail_climbs_behind_the_head(crops, number, side):
    """Along the posterior direction the hippocampus rises, and its tail turns medially."""
    crop = crops[number, side]
    voxels = np.argwhere(np.isin(crop.labels, [SUBFIELD_VALUES[n] for n in SUBFIELDS]))
    x, y, z = nib.affines.apply_affine(crop.affine, voxels).T
    head, tail = y > np.quantile(y, 0.9), y < np.quantile(y, 0.1)
    body = (y > np.quantile(y, 0.4)) & (y < np.quantile(y, 0.6))
    assert np.ptp(y) == pytest.approx(38, abs=7)
    assert z[tail].mean() > z[head].mean() + 2
    assert abs(x[tail]).mean() < abs(x[body]).mean()


def test_the_sheet_is_rolled_round_the_dentate_gyrus(crops):
    """Across the middle of the body: SUB below, CA1 lateral, CA2 above, DG inside, gap medially."""
    crop = crops[103, "right"]
    section = ras(crop.labels, crop)[:, 17]  # lateral, superior
    inside = np.argwhere(section == SUBFIELD_VALUES["DG"])
    x, z = inside.mean(0).astype(int)
    lateral = [v for v in section[x:, z] if v in SUBFIELD_VALUES.values()]
    assert lateral[-1] == SUBFIELD_VALUES["CA1"]
    assert set(section[x, :z]) & {SUBFIELD_VALUES["SUB"], SUBFIELD_VALUES["CA1"]}
    assert set(section[x, z:]) & {SUBFIELD_VALUES["CA2"], SUBFIELD_VALUES["CA3"]}
    medial = section[:x, z]
    assert SUBFIELD_VALUES["CA1"] not in medial


@pytest.mark.parametrize("number", SUBJECTS)
def test_the_left_side_mirrors_the_right_with_variations_of_its_own(crops, number):
    """Flipped, the left hippocampus covers the right one; unflipped it does not; never exactly."""
    left, right = hippocampus(crops[number, "left"]), hippocampus(crops[number, "right"])
    assert 0.75 < dice(left[::-1], right) < 0.99
    assert dice(left, right) < dice(left[::-1], right) - 0.1


@pytest.mark.parametrize("side", SIDES)
def test_both_contrasts_show_the_same_anatomy(side):
    """The T1 of a subject has the T2's labels and place, and an opposite signal."""
    t2, t1 = make_crop(103, side, "t2"), make_crop(103, side, "t1")
    np.testing.assert_array_equal(t2.labels, t1.labels)
    np.testing.assert_array_equal(t2.affine, t1.affine)
    assert np.corrcoef(t2.image.ravel(), t1.image.ravel())[0, 1] < -0.5


@pytest.mark.parametrize("side", SIDES)
def test_both_guidelines_label_the_same_scan(side):
    """The image is the same to the bit and the outline agrees; the borders within do not."""
    fields, regions = make_crop(203, side), make_crop(203, side, guideline="regions")
    np.testing.assert_array_equal(fields.image, regions.image)
    one = np.isin(fields.labels, [SUBFIELD_VALUES[n] for n in SUBFIELDS])
    other = np.isin(regions.labels, [v for n, v in REGION_VALUES.items() if n != "fimbria"])
    assert dice(one, other) > 0.97
    ca1 = dice(fields.labels == SUBFIELD_VALUES["CA1"], regions.labels == REGION_VALUES["CA1"])
    assert ca1 < 0.85


def test_the_srlm_is_a_dark_band_in_t2_and_a_bright_one_in_t1():
    """Between DG and CA1, where T2-weighted protocols look for it; myelin is bright in T1."""
    regions = make_crop(203, "right", guideline="regions")
    for contrast, sign in (("t2", 1), ("t1", -1)):
        crop = make_crop(203, "right", contrast)
        band = mean_signal(crop, regions, "SRLM")
        for neighbour in ("DG", "CA1"):
            assert sign * (mean_signal(crop, regions, neighbour) - band) > 0


def test_a_label_of_the_second_guideline_ends_at_a_coronal_plane():
    """TAIL takes all behind one plane: no other label shares more than a slice with it."""
    crop = make_crop(203, "right", guideline="regions")
    labels = ras(crop.labels, crop)
    tail = np.unique(np.argwhere(labels == REGION_VALUES["TAIL"])[:, 1])
    others = [v for n, v in REGION_VALUES.items() if n not in ("TAIL", "fimbria")]
    rest = np.unique(np.argwhere(np.isin(labels, others))[:, 1])
    assert len(np.intersect1d(tail, rest)) <= 1
    assert all(b - a == 1 for a, b in pairwise(tail))
