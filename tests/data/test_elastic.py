from __future__ import annotations

import numpy as np
import pytest
import torch
import torchio as tio
from scipy.interpolate import BSpline
from scipy.ndimage import gaussian_filter

from hsf_tune.data.elastic import RandomElastic, spline_weights


def subject(size, affine):
    """A smooth image, so that interpolation is well determined, and a label map of it."""
    noise = np.random.default_rng(0).normal(size=size)
    image = torch.from_numpy(gaussian_filter(noise, 2)).float()[None]
    labels = (image / image.std() + 3).round().clamp(0, 5).to(torch.uint8)
    return tio.Subject(
        image=tio.ScalarImage(tensor=image, affine=affine),
        labels=tio.LabelMap(tensor=labels, affine=affine),
    )


@pytest.mark.parametrize("points", [4, (4, 5, 7)])
@pytest.mark.parametrize(
    "affine",
    [
        np.eye(4),
        np.diag([0.4, 0.7, 1.1, 1]),
        np.array([[0.8, -0.6, 0, 5], [0.6, 0.8, 0, -7], [0, 0, 1, 3], [0, 0, 0, 1]]) * 1.0,
        np.diag([-0.5, 0.5, 0.5, 1]),
    ],
    ids=["unit", "anisotropic", "oblique", "LAS"],
)
@pytest.mark.filterwarnings("ignore:The maximum displacement")
def test_the_deformation_is_torchios_own(points, affine):
    """Same seed, same result: images to rounding, labels to voxels on the edge of two."""
    keys = {"num_control_points": points, "max_displacement": 3, "locked_borders": 0}
    given = subject((20, 28, 16), affine)
    torch.manual_seed(3)
    expected = tio.RandomElasticDeformation(**keys)(given)
    torch.manual_seed(3)
    found = RandomElastic(**keys)(given)
    np.testing.assert_allclose(found.image.numpy(), expected.image.numpy(), atol=1e-5)
    assert (found.labels.data != expected.labels.data).float().mean() < 1e-3
    moved = (found.labels.data != given.labels.data).float().mean()
    assert moved > 0.1  # else nothing was compared
    assert found.labels.data.dtype == torch.uint8


@pytest.mark.parametrize(("size", "n_points"), [(1, 4), (24, 4), (48, 7)])
def test_weights_are_those_of_uniform_cubic_b_splines(size, n_points):
    """Against scipy's B-spline basis; ITK puts 0.125 voxels of margin at both ends."""
    cells = n_points - 3
    cell = (size + 0.25) / cells
    knots = -0.625 + cell * np.arange(-3, cells + 4)
    basis = BSpline.design_matrix(np.arange(size, dtype=float), knots, 3).toarray()
    np.testing.assert_allclose(spline_weights(size, n_points).numpy(), basis, atol=1e-6)
