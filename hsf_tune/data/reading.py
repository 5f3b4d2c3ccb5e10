"""Read one image or label map as the network sees it, and put predictions back.

Every file is read by `rawfile.py`, end to end, and its header judged before its voxels.
Steps, in HSF's own order: reorient to RAS+ (axes 0, 1, 2 run to the patient's right,
front and top), z-normalise over the whole crop, pad with zeros to multiples of 8.
Padding is centred, an odd voxel more before than after, as TorchIO's
`EnsureShapeMultiple(8)` does it for HSF at inference. Whether a file *should* be used is
decided in `checks`; here it is only refused where it can't be read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

from hsf_tune.data.geometry import grid_fault, label_orientation
from hsf_tune.data.rawfile import BadFile, RawImage, read_raw
from hsf_tune.errors import DataError

Array = npt.NDArray[Any]

MULTIPLE = 8  # voxels; three halvings of the network, and what HSF pads to
LEAST_DEVIATION = float(np.finfo(np.float32).tiny)  # of the intensities, below which there is none
_NOT_WHOLE = 1e-3  # scaled integers come back as 2.0000001
_WIDEST_RANGE = 1 << 20  # between the smallest and the largest label


@dataclass(frozen=True)
class Grid:
    """How a padded RAS+ array lies on the voxel grid of the file it came from.

    Attributes:
        file_shape: (X, Y, Z) on disk, without a fourth axis of length 1.
        file_affine: (4, 4) voxel to mm, RAS+, of the file.
        orientation: (3, 2) nibabel orientation that takes the file's axes to RAS+.
        size_before_padding: (X, Y, Z) in RAS+.
        pad_before: voxels of padding in front of each RAS+ axis.
        padded_size: (X, Y, Z) in RAS+, multiples of 8.
    """

    file_shape: tuple[int, ...]
    file_affine: Array
    orientation: Array
    size_before_padding: tuple[int, ...]
    pad_before: tuple[int, ...]
    padded_size: tuple[int, ...]

    @property
    def crop(self) -> tuple[slice, slice, slice]:
        """Where the image lies inside the padded array."""
        x, y, z = (
            slice(before, before + size)
            for before, size in zip(self.pad_before, self.size_before_padding, strict=True)
        )
        return x, y, z

    @property
    def affine(self) -> Array:
        """(4, 4) voxel to mm of the padded RAS+ array."""
        canonical = self.file_affine @ inv_ornt_aff(self.orientation, self.file_shape)
        shift = np.eye(4)
        shift[:3, 3] = [-before for before in self.pad_before]
        return canonical @ shift

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Voxel sides along the RAS+ axes."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(x), float(y), float(z)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers; `from_dict` reads them back exactly."""
        return {name: np.asarray(value).tolist() for name, value in vars(self).items()}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Grid:
        """The inverse of `to_dict`."""
        values: dict[str, Any] = {
            name: np.array(value, float) if name in ("file_affine", "orientation") else tuple(value)
            for name, value in plain.items()
        }
        return cls(**values)


def read_image(path: Path) -> tuple[Array, Grid]:
    """An image in RAS+, z-normalised over the crop and padded with zeros.

    Returns:
        (X, Y, Z) float32 of mean 0 and (unbiased) standard deviation 1 inside
        `Grid.crop`, 0 outside; and the grid.

    Raises:
        DataError: the file can't be read, is no scalar 3D volume, holds NaN or
            infinities, or is constant.
    """
    return normalised(_raw(path))


def normalised(raw: RawImage) -> tuple[Array, Grid]:
    """`read_image` of a file that has been read."""
    path, values = raw.path, raw.values.astype(np.float64)
    if not np.isfinite(values).all():
        raise DataError(
            f"{path} holds {np.count_nonzero(~np.isfinite(values))} voxels that are NaN or"
            " infinite; expected finite intensities. Repair the image, or leave it out."
        )
    with np.errstate(over="ignore", under="ignore"):
        deviation = values.std(ddof=1) if values.size > 1 else 0.0
    if not LEAST_DEVIATION < deviation < np.inf:
        raise DataError(
            f"{path} is constant ({values.flat[0]:g} everywhere, or so nearly that single precision"
            " can't tell), so it can't be normalised; expected an MRI. Replace the image, or leave"
            " it out."
        )
    grid = _grid(values.shape, raw.affine)
    scaled = ((values - values.mean()) / deviation).astype(np.float32)
    return _padded(apply_orientation(scaled, grid.orientation), grid), grid


def read_labels(path: Path, image: Grid, mapping: Mapping[int, int], key: str) -> Array:
    """A label map on the padded RAS+ grid of its image, as indices.

    Args:
        image: grid of the image that the labels belong to.
        mapping: value on disk -> label; 0 drops it. 0 on disk is background unless mapped.
        key: the configuration key of `mapping`, for messages.

    Returns:
        (X, Y, Z) uint8, 0 where padded.

    Raises:
        DataError: the file can't be read, does not lie on the image's grid, or holds a
            value that is not whole or not mapped.
    """
    raw = _raw(path)
    indices = _mapped(path, raw.values, mapping, key)
    grids = image.file_affine, image.file_shape, raw.affine, indices.shape
    if fault := grid_fault(path, "its image", *grids):
        raise DataError(str(fault))
    return _padded(apply_orientation(indices, label_orientation(*grids)), image)


def to_original(prediction: Array, grid: Grid) -> Array:
    """A prediction on the padded RAS+ grid, put back onto the file's own grid.

    Args:
        prediction: (..., X, Y, Z) of `grid.padded_size`; leading axes (channels) are kept.

    Returns:
        (..., X, Y, Z) of `grid.file_shape` in the file's own axis order and direction;
        its affine is `grid.file_affine`.

    Raises:
        ValueError: the sizes differ.
    """
    if prediction.shape[-3:] != grid.padded_size:
        raise ValueError(f"{prediction.shape[-3:]=} differs from {grid.padded_size=}")
    leading = prediction.shape[:-3]
    inside = prediction[(..., *grid.crop)].reshape(-1, *grid.size_before_padding)
    # RAS+ axis j comes from the file's axis i with orientation[i] = (j, direction).
    axes = [int(axis) for axis in grid.orientation[:, 0]]
    back = np.transpose(inside, [0, *[1 + axis for axis in axes]])
    flipped = [1 + i for i, direction in enumerate(grid.orientation[:, 1]) if direction < 0]
    back = np.flip(back, tuple(flipped)).reshape(*leading, *grid.file_shape)
    return np.ascontiguousarray(back)


def _raw(path: Path) -> RawImage:
    try:
        return read_raw(path)
    except BadFile as bad:
        raise DataError(
            "\n".join(
                f"{path} can't be read: it {fault.found}; expected {fault.expected}. {fault.todo}"
                for fault in bad.faults
            )
        ) from bad


def _grid(file_shape: tuple[int, ...], affine: Array) -> Grid:
    orientation = io_orientation(affine)
    size = [0, 0, 0]
    for length, (axis, _) in zip(file_shape, orientation, strict=True):
        size[int(axis)] = length
    padded = tuple(-(-n // MULTIPLE) * MULTIPLE for n in size)
    before = tuple(-(-(p - n) // 2) for p, n in zip(padded, size, strict=True))
    return Grid(tuple(file_shape), affine, orientation, tuple(size), before, padded)


def _padded(array: Array, grid: Grid) -> Array:
    result = np.zeros(grid.padded_size, array.dtype)
    result[grid.crop] = array
    return result


def _mapped(path: Path, values: Array, mapping: Mapping[int, int], key: str) -> Array:
    with np.errstate(invalid="ignore"):
        whole = np.rint(values)
        fractions = ~(np.abs(values - whole) <= _NOT_WHOLE)
    if fractions.any():
        raise DataError(
            f"{path} holds {values[fractions].flat[0]:g}, which is not a whole number; expected"
            " label indices. Take the label map, not a probability map, and resample it with"
            " nearest neighbours."
        )
    low, high = int(whole.min()), int(whole.max())
    if high - low > _WIDEST_RANGE:
        raise DataError(
            f"{path} holds values from {low} to {high}; expected label indices. Is it an MRI?"
            " Correct the patterns, or take the label map."
        )
    indices = whole.astype(np.int64) - low
    numbers = [low + int(i) for i in np.flatnonzero(np.bincount(indices.ravel()))]
    known = {0: 0, **mapping}
    missing = [n for n in numbers if n not in known]
    if missing:
        holds = ", ".join(str(n) for n in missing[:10])
        raise DataError(
            f"{path} holds label{'s' if len(missing) > 1 else ''} {holds}, which {key} does not"
            f" map (it maps {', '.join(str(n) for n in sorted(mapping))}). Add"
            f' "{missing[0]}: 0" to drop it, or map it to a subfield.'
        )
    table = np.zeros(high - low + 1, dtype=np.uint8)
    table[[n - low for n in numbers]] = [known[n] for n in numbers]
    return table[indices]
