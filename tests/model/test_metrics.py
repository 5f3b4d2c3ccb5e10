"""Hand-computed shapes; MONAI's conventions are part of what is checked."""

import math
import warnings

import numpy as np
import pytest

from hsf_tune.model.metrics import (
    OVERLAP_METRICS,
    SURFACE_METRICS,
    overlap_scores,
    surface_scores,
)

SPACING = (0.5, 1.0, 2.0)
SHAPE = (30, 24, 20)


def cuboid(start, size, label=1, shape=SHAPE):
    volume = np.zeros(shape, np.uint8)
    volume[tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))] = label
    return volume


def test_overlap_of_shifted_cuboids_by_hand():
    """8 x 6 x 4 voxels of 1 mm3 shifted by 2: three quarters overlap, and no volume differs."""
    reference, prediction = cuboid((4, 4, 4), (8, 6, 4)), cuboid((6, 4, 4), (8, 6, 4))
    scores = overlap_scores(prediction, reference, 1, SPACING)
    assert set(scores[1]) == set(OVERLAP_METRICS)
    assert scores[1] == pytest.approx(
        {
            "dice": 0.75,
            "volume_mm3": 192,
            "reference_volume_mm3": 192,
            "volume_similarity": 1,
            "volume_error_mm3": 0,
        }
    )


def test_volumes_are_signed_and_in_mm3():
    """A prediction of 8 x 6 x 3 voxels of 0.25 mm3 in a reference of 8 x 6 x 4 is too small."""
    reference, prediction = cuboid((4, 4, 4), (8, 6, 4)), cuboid((4, 4, 4), (8, 6, 3))
    scores = overlap_scores(prediction, reference, 1, (0.5, 0.5, 1.0))[1]
    assert scores["volume_error_mm3"] == pytest.approx((144 - 192) * 0.25)
    assert scores["volume_similarity"] == pytest.approx(1 - 48 / 336)
    assert scores["dice"] == pytest.approx(2 * 144 / 336)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("voxels", [1, 2, 3])
def test_distance_between_shifted_plates_by_hand(axis, voxels):
    """Thin plates shifted across: every surface voxel is as far as the shift, in mm."""
    size = [12, 12, 12]
    size[axis] = 1
    start = [4, 4, 4]
    reference = cuboid(start, size)
    start[axis] += voxels
    prediction = cuboid(start, size)
    scores = surface_scores(prediction, reference, 1, SPACING, tolerance_mm=0.1)
    shift_mm = voxels * SPACING[axis]
    assert scores[1]["hd95_mm"] == pytest.approx(shift_mm)
    assert scores[1]["assd_mm"] == pytest.approx(shift_mm)


def test_distances_of_a_single_voxel_are_euclidean():
    """Offsets of 2, 3 and 1 voxels of 0.5, 1 and 2 mm are sqrt(1 + 9 + 4) mm apart."""
    reference, prediction = cuboid((10, 10, 10), (1, 1, 1)), cuboid((12, 13, 11), (1, 1, 1))
    scores = surface_scores(prediction, reference, 1, SPACING)[1]
    assert scores["hd95_mm"] == pytest.approx(math.sqrt(14), rel=1e-6)
    assert scores["assd_mm"] == pytest.approx(math.sqrt(14), rel=1e-6)
    assert scores["surface_dice"] == 0


def test_hd95_and_assd_of_a_plate_with_an_outlier_by_hand():
    """One stray voxel among 400 moves the mean by its share and the 95th percentile not at all."""
    reference = cuboid((5, 2, 10), (20, 20, 1))
    prediction = reference.copy()
    prediction[15, 12, 16] = 1  # 6 voxels of 2 mm above the plate
    scores = surface_scores(prediction, reference, 1, SPACING)[1]
    assert scores["hd95_mm"] == 0
    assert scores["assd_mm"] == pytest.approx(12 / (401 + 400))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_surface_dice_weighs_by_area_by_hand(axis):
    """A cuboid one voxel longer at one end: only the face that moved is out of tolerance.

    Faces of a box of a x b x c mm have areas bc, ca and ab, of which the grid cuts the rims; with
    thick slices a count of voxels would be 0.1 away.
    """
    size = np.array([16, 12, 10])
    grown = size.copy()
    grown[axis] += 2
    spacing = np.array(SPACING)
    reference, prediction = cuboid((5, 5, 5), size), cuboid((5, 5, 5), grown)
    tolerance = 0.4 * spacing[axis]
    found = surface_scores(prediction, reference, 1, SPACING, tolerance_mm=tolerance)[1]
    a, b = (np.array([size, grown]) * spacing).astype(float)

    def face(sides, normal):
        return float(np.prod(np.delete(sides, normal)))

    def area(sides):
        return 2 * sum(face(sides, normal) for normal in range(3))

    grown_sides = area(b) - area(a)
    # out of tolerance: the moved face of either volume, and what the sides have grown by
    wrong = 2 * face(a, axis) + grown_sides
    assert found["surface_dice"] == pytest.approx(1 - wrong / (area(a) + area(b)), abs=0.05)


def test_tolerance_defaults_to_the_largest_voxel_side():
    """A block one slice of 2 mm too high is forgiven, one of two slices is not."""
    reference = cuboid((5, 5, 5), (10, 10, 8))
    one, two = cuboid((5, 5, 6), (10, 10, 8)), cuboid((5, 5, 7), (10, 10, 8))

    def surface_dice(prediction, **tolerance):
        scores = surface_scores(prediction, reference, 1, SPACING, **tolerance)
        return scores[1]["surface_dice"]

    assert surface_dice(one) == surface_dice(one, tolerance_mm=2.0) == 1
    assert surface_dice(one, tolerance_mm=1.9) < 0.9
    assert surface_dice(two) < 0.9
    assert surface_dice(two, tolerance_mm=4.0) == 1


def test_perfect_prediction_scores_perfectly_also_at_the_edge_of_the_image():
    """A label that touches the border has its surface there in both volumes."""
    volume = cuboid((0, 0, 0), (10, 24, 5)) + cuboid((20, 3, 15), (10, 8, 5), label=2)
    for scores in surface_scores(volume, volume, 2, SPACING).values():
        assert scores == {"surface_dice": 1, "hd95_mm": 0, "assd_mm": 0}
    assert all(
        scores["dice"] == 1 for scores in overlap_scores(volume, volume, 2, SPACING).values()
    )


@pytest.mark.parametrize("missed_by", ["prediction", "reference"])
def test_label_that_one_volume_lacks_scores_the_worst(missed_by):
    """Dice 0, surface Dice 0, distances the image's diagonal: 15 x 24 x 40 mm."""
    volumes = [np.zeros(SHAPE, np.uint8), cuboid((4, 4, 4), (5, 5, 5))]
    prediction, reference = volumes if missed_by == "prediction" else volumes[::-1]
    overlap = overlap_scores(prediction, reference, 1, SPACING)[1]
    assert (overlap["dice"], overlap["volume_similarity"]) == (0, 0)
    surface = surface_scores(prediction, reference, 1, SPACING)[1]
    diagonal = math.sqrt(15**2 + 24**2 + 40**2)
    assert set(surface) == set(SURFACE_METRICS)
    assert surface == pytest.approx(
        {"surface_dice": 0, "hd95_mm": diagonal, "assd_mm": diagonal}, rel=1e-9
    )


def test_label_in_neither_volume_is_left_out():
    """Label 2 of 3 is nowhere, and gets no score at all."""
    volume = cuboid((2, 2, 2), (4, 4, 4)) + cuboid((10, 2, 2), (4, 4, 4), label=3)
    assert sorted(overlap_scores(volume, volume, 3, SPACING)) == [1, 3]
    assert sorted(surface_scores(volume, volume, 3, SPACING)) == [1, 3]
    assert overlap_scores(volume * 0, volume * 0, 3, SPACING) == {}


def test_ignored_labels_hide_their_voxels_and_are_not_scored():
    """What is predicted inside a HEAD of the reference is neither right nor wrong."""
    reference = cuboid((4, 4, 4), (6, 6, 6)) + cuboid((10, 4, 4), (6, 6, 6), label=2)
    prediction = cuboid((4, 4, 4), (12, 6, 6))  # runs on through the head
    kept = overlap_scores(prediction, reference, 2, SPACING, ignore_labels=(2,))
    assert list(kept) == [1]
    assert kept[1]["dice"] == 1
    assert kept[1]["volume_mm3"] == pytest.approx(216)
    surface = surface_scores(prediction, reference, 2, SPACING, ignore_labels=(2,))
    assert surface == {1: {"surface_dice": 1, "hd95_mm": 0, "assd_mm": 0}}
    assert overlap_scores(prediction, reference, 2, SPACING)[1]["dice"] == pytest.approx(2 / 3)


def test_where_the_labels_lie_in_the_image_changes_nothing():
    """Cropping to the labels is invisible: a larger image gives the same distances."""
    small = np.random.default_rng(0).integers(0, 3, (8, 9, 7)).astype(np.uint8)
    other = np.roll(small, 1, axis=2)
    large, large_other = (np.pad(v, ((5, 7), (3, 2), (9, 4))) for v in (small, other))
    near = surface_scores(small, other, 2, SPACING)
    far = surface_scores(large, large_other, 2, SPACING)
    for label in near:
        assert near[label] == pytest.approx(far[label], rel=1e-6)


def test_surface_scores_give_no_warnings():
    """Nothing that a library says about itself reaches the user."""
    volume = cuboid((4, 4, 4), (5, 5, 5))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        surface_scores(volume, np.roll(volume, 1, 0), 1, SPACING)


@pytest.mark.parametrize(
    ("prediction", "expected"),
    [
        (np.zeros((30, 24, 19), np.uint8), r"\(30, 24, 19\)"),
        (np.full(SHAPE, 3, np.uint8), "3 to 3; expected 0 to 2"),
    ],
)
def test_volumes_that_do_not_fit_are_refused(prediction, expected):
    """Another size, or a label out of range, is our defect and not a score."""
    with pytest.raises(ValueError, match=expected):
        overlap_scores(prediction, np.zeros(SHAPE, np.uint8), 2, SPACING)
