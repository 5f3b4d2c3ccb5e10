"""Whether two voxel grids are one, and in a neuroimager's words how they differ.

Affines go from voxel indices to mm in RAS+: x to the patient's right, y to the front,
z upwards. Nothing here opens a file or knows what the volumes show.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.orientations import inv_ornt_aff, io_orientation
from numpy.typing import NDArray

from hsf_tune.data.cases import Fault

Affine = NDArray[np.float64]
Shape = tuple[int, ...]

LARGEST_MISALIGNMENT = 0.25  # voxels; oblique affines rounded to 3 decimals differ by 0.1
ENDS = (("right", "left"), ("front", "back"), ("top", "bottom"))  # of x, y, z: plus, minus
MIRRORS = ("left-right", "front-back", "top-bottom")
SAME_SIDES = 0.01  # relative difference of voxel sides that is none
SAME_DIRECTION_DEG = 0.5


def grid_fault(
    path: Path, mri: str, image: Affine, shape: Shape, label: Affine, label_shape: Shape
) -> Fault | None:
    """What keeps a label map off its image's grid; None where they are one, however stored.

    Args:
        path: of the label map.
        mri: what to call the image.
    """
    apart = offset_in_voxels(image, shape, label, label_shape)
    if apart <= LARGEST_MISALIGNMENT:
        return None
    if np.isfinite(apart):
        found = f"lies {apart:.2g} voxels away from {mri}: it {difference(image, label, shape)}"
    else:
        found = f"has {_times(label_shape)} voxels, {mri} {_times(shape)}"
    todo = (
        "Look at both in a viewer; correct the header that is wrong or the patterns that pair"
        " them, or resample the label map to its MRI with nearest neighbours."
    )
    return Fault(str(path), found, "the same grid, to a quarter of a voxel", todo)


def label_orientation(image: Affine, shape: Shape, label: Affine, label_shape: Shape) -> Affine:
    """(3, 2) nibabel orientation that takes a label map to RAS+: its image's, where both are
    stored alike, so that rounding near 45 degrees can't part the two."""
    alike = shape == label_shape and misalignment(shape, image, label) <= LARGEST_MISALIGNMENT
    return io_orientation(image if alike else label)


def misalignment(shape: Shape, first: Affine, second: Affine) -> float:
    """How far two affines carry the same voxel apart: the largest distance over the
    corners of a volume of that shape, in units of the first affine's smallest voxel side."""
    corners = np.stack(np.meshgrid(*[[0, n - 1] for n in shape[:3]], indexing="ij"), -1)
    corners = np.concatenate([corners.reshape(-1, 3), np.ones((8, 1))], axis=1)
    distance = np.linalg.norm((corners @ (first - second).T)[:, :3], axis=1).max()
    return float(distance / np.linalg.norm(first[:3, :3], axis=0).min())


def axes_of(affine: Affine) -> str:
    """Where the axes point, as three letters: "RAS", "LPI" ..."""
    return "".join(nib.aff2axcodes(affine))


def turned(affine: Affine, shape: Shape) -> tuple[Affine, Shape]:
    """Affine and shape of the same volume with its axes reordered and flipped to RAS+."""
    orientation = io_orientation(affine)
    sizes = [0, 0, 0]
    for size, (axis, _) in zip(shape, orientation, strict=True):
        sizes[int(axis)] = size
    return affine @ inv_ornt_aff(orientation, shape), tuple(sizes)


def offset_in_voxels(
    first: Affine, first_shape: Shape, second: Affine, second_shape: Shape
) -> float:
    """How far apart two grids carry the same corner, in voxel sides; inf if sizes differ.

    Grids that hold the same voxels in another order are 0 apart.
    """
    as_stored = np.inf
    if first_shape == second_shape:
        as_stored = misalignment(first_shape, first, second)
    (a, sizes), (b, others) = turned(first, first_shape), turned(second, second_shape)
    as_turned = misalignment(sizes, a, b) if sizes == others else np.inf
    return float(min(as_stored, as_turned))


def difference(image: Affine, label: Affine, shape: Shape) -> str:
    """What sets a label map's affine apart from its image's, to go on from its name."""
    sides, others = (np.linalg.norm(a[:3, :3], axis=0) for a in (image, label))
    if not np.allclose(sides, others, rtol=SAME_SIDES):
        return f"has voxels of {_mm(others)}, its MRI of {_mm(sides)}"
    cosines = np.sum((image[:3, :3] / sides) * (label[:3, :3] / others), axis=0)
    parallel = np.abs(cosines) > np.cos(np.radians(SAME_DIRECTION_DEG))
    if parallel.all() and (cosines < 0).any():
        names = [MIRRORS[_world_axis(image[:3, j])] for j in range(3) if cosines[j] < 0]
        return (
            f"is mirrored {' and '.join(names)} against its MRI: the header says"
            f" {axes_of(label)}, its MRI's {axes_of(image)}"
        )
    if parallel.all():
        return f"is shifted against its MRI by {_shift(image, label, shape)}"
    if axes_of(image) != axes_of(label):
        return f"is stored as {axes_of(label)}, its MRI as {axes_of(image)}, in another place"
    angle = np.degrees(np.arccos(np.clip(np.abs(cosines).min(), -1, 1)))
    return f"is turned against its MRI by {angle:.1f} degrees"


def _shift(image: Affine, label: Affine, shape: Shape) -> str:
    """The way from where the image's centre lies to where the label map's does."""
    centre = np.append((np.array(shape[:3]) - 1) / 2, 1.0)
    way = ((label - image) @ centre)[:3]
    parts = [
        f"{abs(step):.3g} mm to the {ENDS[axis][int(step < 0)]}"
        for axis, step in enumerate(way)
        if abs(step) > 0.1 * np.abs(way).max()
    ]
    return ", ".join(parts) or "0 mm"


def _world_axis(column: NDArray[Any]) -> int:
    return int(np.argmax(np.abs(column)))


def _mm(sides: NDArray[Any]) -> str:
    return " x ".join(f"{side:.3g}" for side in sides) + " mm"


def _times(shape: Shape) -> str:
    return " x ".join(str(n) for n in shape)
