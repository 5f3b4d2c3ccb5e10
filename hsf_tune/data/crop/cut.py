"""Cut the crops of both hippocampi out of a whole head and its labels, as HSF will.

HSF finds the hippocampi by registering a template (ROILoc), then segments a box around
each. A network should train on the same boxes, so the same registration, margins and contrast
settings are used here. ROILoc and ANTs are imported only where they are called for: they are
the extra `hsf_tune[crop]`. Which files are cut is decided by the command.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.filebasedimages import ImageFileError

from hsf_tune.data.geometry import grid_fault
from hsf_tune.data.names import Side
from hsf_tune.errors import DataError, HsfTuneError
from hsf_tune.files import replacing

Array = npt.NDArray[Any]
Box = tuple[slice, slice, slice]

SIDES: tuple[Side, Side] = ("right", "left")  # in ROILoc's order
ORIENTATION = "LPI"  # ITK's name for what nibabel calls RAS+; HSF cuts in it
MASK_PATTERN = "*mask.nii.gz"  # of a brain mask beside the MRI, as in HSF
SEED = "1"  # of ANTs' random sampling, so that the same head gives the same box


@dataclass(frozen=True)
class Preset:
    """ROILoc's settings, as in a file of HSF's `conf/roiloc/`; margins in voxels."""

    margin: tuple[int, int, int]
    transform_type: str = "AffineFast"
    roi: str = "hippocampus"
    bet: bool = False


PRESETS: Mapping[str, Preset] = {
    "t2iso": Preset((8, 8, 8)),  # roiloc=default_t2iso: isotropic voxels
    "corot2": Preset((16, 4, 16)),  # roiloc=default_corot2: thick coronal slices
}


@dataclass(frozen=True)
class Located:
    """Where the hippocampi are in a head.

    Attributes:
        image: ANTs image of the head in HSF's orientation.
        boxes: side -> voxels of `image`.
        locator: ROILoc's own object.
    """

    image: Any
    boxes: Mapping[Side, Box]
    locator: Any = field(repr=False)


@dataclass(frozen=True)
class Crop:
    """One side of a head: the cut image, its cut labels, and what the cut left out.

    Attributes:
        image, labels: ANTs images; `labels` is None where there are none.
        values: label values in the crop, 0 left out.
        lost: label value -> voxels of this side outside the box.
        at_border: label values that touch the crop's border.
    """

    side: Side
    image: Any
    labels: Any
    values: tuple[int, ...] = ()
    lost: Mapping[int, int] = field(default_factory=dict)
    at_border: tuple[int, ...] = ()


def locate(mri: Path, preset: Preset, contrast: Literal["t1", "t2"], mask: Path | None) -> Located:
    """Find both hippocampi as HSF does.

    Args:
        mask: a brain mask on the MRI's grid, which steadies the registration; or None.

    Raises:
        HsfTuneError: ANTs or ROILoc is not installed.
        DataError: a file can't be read, or the registration finds no hippocampus.
    """
    ants, locator_class = _tools()
    with _refused(mri, "cut"):
        image = _oriented(ants, ants.image_read(str(mri)))
    brain = None
    if mask:
        with _refused(mask, "read"):
            brain = ants.image_read(str(mask), pixeltype="unsigned int")
    locator = locator_class(
        contrast=contrast,
        roi=preset.roi,
        bet=preset.bet,
        transform_type=preset.transform_type,
        margin=list(preset.margin),
        rightoffset=[0, 0, 0],
        leftoffset=[0, 0, 0],
        mask=brain,
    )
    try:
        locator.fit(image)
    except (RuntimeError, ValueError, OSError) as error:
        raise DataError(
            f"{mri}: no hippocampus was found by registering ROILoc's {contrast} template"
            f" ({error}). Is it a whole head of that contrast, with a correct header?"
        ) from error
    boxes = {side: box_of(locator.coords[side]) for side in SIDES}
    return Located(image, boxes, locator)


def box_of(coords: list[int]) -> Box:
    """ROILoc's (x, y, z, x, y, z) as slices; the upper bound is left out, as ANTs does."""
    x, y, z = (slice(int(a), int(b)) for a, b in zip(coords[:3], coords[3:], strict=True))
    return x, y, z


def cut(
    located: Located, labels: Mapping[Side, Path], keep: Mapping[Side, Mapping[int, int]]
) -> list[Crop]:
    """Cut image and labels of both sides.

    Args:
        labels: side -> label map on the MRI's grid; one file may hold both sides.
        keep: side -> value on disk -> value in the crop, where one file tells the sides
            apart by value; {} keeps every value.

    Raises:
        DataError: the image can't be cut, or a label map not be read as whole numbers.
    """
    ants, _ = _tools()
    with _refused("The MRI", "cut"):
        images = list(located.locator.transform(located.image))
    crops = []
    for side, image in zip(SIDES, images, strict=True):
        if side not in labels:
            crops.append(Crop(side, image, None))
            continue
        with _refused(labels[side], "cut"):
            whole = _oriented(ants, ants.image_read(str(labels[side])))
        values = pick(_whole_numbers(labels[side], whole.numpy()), keep.get(side, {}))
        split = whole.new_image_like(values.astype(np.float32))
        x, y, z = located.boxes[side]
        inside = ants.crop_indices(split, [x.start, y.start, z.start], [x.stop, y.stop, z.stop])
        crops.append(
            Crop(
                side,
                image,
                inside.astype("uint32"),
                tuple(int(v) for v in np.unique(values[x, y, z]) if v),
                lost_voxels(values, located.boxes, side),
                touching(values[x, y, z]),
            )
        )
    return crops


def pick(values: Array, keep: Mapping[int, int]) -> Array:
    """The labels of one side under their common values; all others become 0."""
    if not keep:
        return values
    picked = np.zeros_like(values)
    for on_disk, value in keep.items():
        picked[values == on_disk] = value
    return picked


def lost_voxels(values: Array, boxes: Mapping[Side, Box], side: Side) -> dict[int, int]:
    """Label voxels nearer to this side's box than to the other's, but not inside it."""
    outside = values != 0
    for box in boxes.values():
        outside[box] = False
    places = np.argwhere(outside)
    if not len(places):
        return {}
    distance = {s: np.abs(places - _centre(box)).sum(axis=1) for s, box in boxes.items()}
    other = next(s for s in boxes if s != side)
    own = places[distance[side] <= distance[other]]
    found, counts = np.unique(values[tuple(own.T)], return_counts=True)
    return {int(v): int(n) for v, n in zip(found, counts, strict=True)}


def touching(values: Array) -> tuple[int, ...]:
    """Labels with voxels in the outermost layer of a crop."""
    inner = np.zeros(values.shape, bool)
    inner[1:-1, 1:-1, 1:-1] = True
    return tuple(int(v) for v in np.unique(values[~inner]) if v)


def require_same_grid(mri: Path, label: Path) -> None:
    """Whether a label map lies on its MRI's voxels.

    Raises:
        DataError: it does not, or a file can't be read.
    """
    try:
        head, labels = nib.load(mri), nib.load(label)
    except (OSError, EOFError, ValueError, ImageFileError) as error:
        raise DataError(
            f"{mri} or {label} can't be read ({error}); expected NIfTI files. Copy or export them"
            " again."
        ) from error
    grids = head.affine, head.shape[:3], labels.affine, labels.shape[:3]
    if fault := grid_fault(label, mri.name, *grids):
        raise DataError(str(fault))


def write_image(image: Any, path: Path) -> None:
    """Write an ANTs image whole under its name, or not at all.

    Raises:
        DataError: it can't be written there.
    """
    ants, _ = _tools()
    with _refused(path, "written"), replacing(path) as temporary:
        ants.image_write(image, str(temporary))


@contextmanager
def _refused(what: Path | str, done: str) -> Iterator[None]:
    """Say in a sentence what ITK raises about a file, so that one head does not end them all."""
    try:
        yield
    except (RuntimeError, ValueError, OSError) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"{what} can't be {done} ({reason}); expected a whole NIfTI file and a folder to write"
            " to. Copy or export it again."
        ) from error


def _tools() -> tuple[Any, Any]:
    """ANTs and ROILoc's locator."""
    os.environ.setdefault("ANTS_RANDOM_SEED", SEED)
    try:
        import ants
        from roiloc.locator import RoiLocator
    except ImportError as error:
        raise HsfTuneError(
            f"Cutting crops needs ROILoc and ANTs ({error}). Install them, best in an environment of"
            " their own, as ANTs asks for an older numpy. From the clone: pip install -e '.[crop]'"
        ) from error
    return ants, RoiLocator


def _oriented(ants: Any, image: Any) -> Any:
    if image.orientation == ORIENTATION:
        return image
    return ants.reorient_image2(image, orientation=ORIENTATION)


def _whole_numbers(path: Path, values: Array) -> Array:
    whole = np.rint(values)
    if not (np.abs(values - whole) < 1e-3).all() or whole.min() < 0:
        raise DataError(
            f"{path} holds values that are no label indices (from {values.min():g} to"
            f" {values.max():g}); expected whole numbers from 0. Take the label map."
        )
    return whole.astype(np.int64)


def _centre(box: Box) -> Array:
    return np.array([(side.start + side.stop) / 2 for side in box])
