"""Views of a crop, their way back, and what is made of them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from hsf_tune.finetuning.predict import PLAIN, View, make_views, predict, uncertainty


@pytest.fixture(scope="module")
def ball() -> np.ndarray:
    """A smooth blob off the centre, so that no transform maps it onto itself."""
    where = np.indices((48, 56, 40)).transpose(1, 2, 3, 0)
    distance = np.linalg.norm((where - [21, 30, 18]) * [1, 1, 1.5], axis=-1)
    return np.exp(-((distance / 9) ** 2)).astype(np.float32)


def two_classes(image: np.ndarray) -> np.ndarray:
    """A predictor that says of each voxel what it sees there."""
    foreground = np.clip(image[0, 0], 0, 1)
    return np.stack([1 - foreground, foreground])[None]


def test_one_view_is_the_crop_as_it_is(ball):
    """Without test-time augmentation the network's answer comes back untouched."""
    found = predict([two_classes], ball, make_views(1, (1, 1, 1)))
    np.testing.assert_array_equal(found, two_classes(ball[None, None])[0])


def test_second_view_is_the_mirror_image(ball):
    """Left and right are axis 0; there and back is exact."""
    _, mirror = make_views(2, (1, 1, 1))
    np.testing.assert_array_equal(mirror.of(ball), ball[::-1])
    np.testing.assert_array_equal(mirror.back(mirror.of(ball)[None])[0], ball)


@pytest.mark.parametrize("seed", range(4))
def test_every_view_finds_its_way_back(ball, seed):
    """What a predictor sees in a turned, scaled, shifted crop lands where it came from."""
    for view in make_views(6, (1.0, 1.0, 1.5), seed)[2:]:
        back = view.back(view.of(ball)[None])[0]
        assert np.abs(back - ball).max() < 0.1  # two linear interpolations of a smooth blob
        before, after = (np.array(ndimage.center_of_mass(v**4)) for v in (ball, back))
        np.testing.assert_allclose(after, before, atol=0.1)


def test_views_turn_the_patient_not_the_voxels():
    """On slices twice as thick, a turn about X by 90 degrees moves half as many slices."""
    spacing = np.diag([1.0, 1.0, 2.0])
    for view in make_views(12, (1.0, 1.0, 2.0), seed=1)[2:]:
        in_mm = spacing @ view.matrix @ np.linalg.inv(spacing)
        scales = np.linalg.norm(in_mm, axis=0)
        assert ((scales > 0.79) & (scales < 1.21)).all()
        turn = in_mm / scales
        np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-9)


def test_probabilities_are_the_mean_over_networks_and_views(ball):
    """Three networks of which one says the opposite: two thirds of the way."""

    def opposite(image):
        return two_classes(image)[:, ::-1]

    found = predict([two_classes, two_classes, opposite], ball, [PLAIN])
    expected = (2 * ball + (1 - ball)) / 3
    np.testing.assert_allclose(found[1], expected, atol=1e-6)
    views = make_views(5, (1, 1, 1))
    np.testing.assert_allclose(predict([two_classes], ball, views).sum(0), 1, atol=1e-5)


def test_views_are_a_function_of_the_seed():
    """The same command gives the same segmentation."""
    first, again, other = (make_views(4, (1, 1, 1), seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first[3].matrix, again[3].matrix)
    assert not np.allclose(first[3].matrix, other[3].matrix)


def test_uncertainty_is_zero_where_sure_and_one_where_all_classes_are_alike():
    """Entropy over log(C): (1, 0, 0) is 0, thirds are 1, (1/2, 1/2, 0) is log 2 / log 3."""
    probabilities = np.array([[1, 0, 0], [1 / 3, 1 / 3, 1 / 3], [0.5, 0.5, 0]], np.float32).T
    found = uncertainty(probabilities.reshape(3, 3, 1, 1)).ravel()
    np.testing.assert_allclose(found, [0, 1, np.log(2) / np.log(3)], atol=1e-6)


def test_no_views_is_our_own_mistake(ball):
    """The command asks for one at least."""
    with pytest.raises(ValueError, match="must not be 0"):
        predict([two_classes], ball, [])


def test_view_of_a_border_goes_on_with_the_outermost_voxels(ball):
    """No black rim, which a network would take for padding."""
    shifted = View(False, np.eye(3), np.array([100.0, 0, 0])).of(ball + 1)
    np.testing.assert_allclose(shifted, np.broadcast_to(ball[-1] + 1, ball.shape), atol=1e-6)
