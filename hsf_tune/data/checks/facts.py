"""Gather the facts of a sound case: sizes, volumes, places, and what deserves a second look.

Reads nothing and refuses nothing; `content.py` calls this once no fault is left, and
`study.py` compares the facts of all cases.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from nibabel.orientations import apply_orientation, io_orientation
from numpy.typing import NDArray

from hsf_tune.data.geometry import axes_of, label_orientation, offset_in_voxels, turned
from hsf_tune.data.rawfile import RawImage

NOT_WHOLE = 1e-3  # scaled integers come back as 2.0000001
EDGE_SHARE = 0.01  # of the labelled voxels; fewer on the crop's faces are no cut


class Values(NamedTuple):
    """The different values of a volume, in rising order, and how often each is there."""

    numbers: NDArray[Any]
    counts: NDArray[Any]

    @property
    def whole(self) -> bool:
        """Whether all are whole numbers, as label maps hold."""
        return bool((np.abs(self.numbers - np.rint(self.numbers)) <= NOT_WHOLE).all())

    @property
    def largest_share(self) -> float:
        """The share of the most frequent value."""
        return float(self.counts.max() / self.counts.sum())

    @property
    def deviation(self) -> float:
        """The standard deviation over voxels."""
        numbers = self.numbers.astype(np.float64)
        return float(np.sqrt(np.cov(numbers, fweights=self.counts)))

    def percentile(self, share: float) -> float:
        """The value below which this share of the voxels lies."""
        below = np.cumsum(self.counts) / self.counts.sum()
        return float(self.numbers[min(int(np.searchsorted(below, share)), len(below) - 1)])


@dataclass(frozen=True)
class CaseFacts:
    """What the table, the remarks and the comparisons between cases need of a sound case.

    Attributes:
        shape: (X, Y, Z) voxels in RAS+.
        spacing_mm: voxel sides in RAS+.
        axes, label_axes: how the two files are stored ("RAS", "LPI" ...).
        volumes_mm3: of each label 1..N, 0 where it is absent.
        centre_mm: of all labels together, (x, y, z) in RAS+.
        image_hash, labels_hash: of the voxels in RAS+, whatever their file's type.
        fit: how much of the image's variance the labels explain, as they are and mirrored
            left-right, front-back and top-bottom.
        remarks: kind of oddity -> what was found, for `study.py` to gather over cases.
    """

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    axes: str
    label_axes: str
    volumes_mm3: Mapping[int, float]
    centre_mm: tuple[float, float, float]
    image_hash: str
    labels_hash: str
    fit: tuple[float, float, float, float]
    remarks: Mapping[str, str]


def facts_of(
    mri: RawImage, label: RawImage, values: Values, mapping: Mapping[int, int], n_labels: int
) -> CaseFacts:
    """The facts of a case whose two files fit together.

    Args:
        values: of the MRI.
        mapping: value in the label map -> label, 0 to drop it.
    """
    image, labels = in_ras(mri, label, mapping, n_labels)
    counts = np.bincount(labels.ravel(), minlength=n_labels + 1)
    voxel_mm3 = float(abs(np.linalg.det(mri.affine[:3, :3])))
    affine, _ = turned(mri.affine, mri.values.shape)
    centre = affine @ np.append(np.argwhere(labels > 0).mean(axis=0), 1.0)
    sides = np.linalg.norm(affine[:3, :3], axis=0)
    x, y, z = image.shape
    return CaseFacts(
        shape=(x, y, z),
        spacing_mm=(float(sides[0]), float(sides[1]), float(sides[2])),
        axes=axes_of(mri.affine),
        label_axes=axes_of(label.affine),
        volumes_mm3={i: float(counts[i] * voxel_mm3) for i in range(1, n_labels + 1)},
        centre_mm=(float(centre[0]), float(centre[1]), float(centre[2])),
        image_hash=_hash(image),
        labels_hash=_hash(labels),
        fit=_fit(image, labels, values),
        remarks=dict(_oddities(mri, label, values, labels)),
    )


def in_ras(
    mri: RawImage, label: RawImage, mapping: Mapping[int, int], n_labels: int
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Image and label indices 0..N, each (X, Y, Z) in RAS+; what is not mapped is background."""
    orientation = io_orientation(mri.affine)
    own = label_orientation(mri.affine, mri.values.shape, label.affine, label.values.shape)
    image = apply_orientation(mri.values.astype(np.float32), orientation)
    return image, apply_orientation(_indices(label, mapping, n_labels), own)


def _indices(label: RawImage, mapping: Mapping[int, int], n_labels: int) -> NDArray[np.uint8]:
    """Label indices 0..N in the file's own order."""
    found = np.zeros(label.values.shape, np.uint8)
    for value, index in mapping.items():
        if 0 < index <= n_labels:
            found[np.abs(label.values - float(value)) <= NOT_WHOLE] = index
    return found


def _fit(
    image: NDArray[np.float32], labels: NDArray[np.uint8], values: Values
) -> tuple[float, float, float, float]:
    """The correlation ratio of image and labels, as they are and flipped along x, y and z.

    Source: Roche et al. 1998, doi:10.1007/BFb0056301 (as a measure of alignment).
    """
    low, high = values.percentile(0.01), values.percentile(0.99)
    clipped = np.clip(image, low, high).astype(np.float64)
    centred = (clipped - clipped.mean()).ravel()
    total = float(np.square(centred).sum()) or 1.0
    ratios = []
    for flipped in (labels, labels[::-1], labels[:, ::-1], labels[:, :, ::-1]):
        classes = flipped.ravel()
        counts = np.bincount(classes)
        sums = np.bincount(classes, weights=centred)
        between = float((np.square(sums[counts > 0]) / counts[counts > 0]).sum())
        ratios.append(between / total)
    return ratios[0], ratios[1], ratios[2], ratios[3]


def _oddities(
    mri: RawImage, label: RawImage, values: Values, indices: NDArray[np.uint8]
) -> Iterator[tuple[str, str]]:
    """Kind and finding of what is allowed, but worth a look."""
    for image, name in ((mri, "MRI"), (label, "label map")):
        if not image.placed:
            yield "unplaced", name
        elif image.sform is not None and image.qform is not None:
            apart = offset_in_voxels(
                image.sform, image.values.shape, image.qform, image.values.shape
            )
            if apart > 0.5:
                yield "two_places", name
    header, sides = np.array(mri.header_spacing_mm), np.array(mri.spacing_mm)
    if not np.allclose(header, sides, rtol=0.05):
        yield "two_spacings", f"{_mm(header)} against {_mm(sides)}"
    if mri.unit in ("m", "micron"):
        yield "unit", mri.unit
    if max(sides) > 4 * min(sides):
        yield "anisotropic", _mm(sides)
    if min(sides) < 0.05 or max(sides) > 5:
        yield "odd_spacing", _mm(sides)
    if axes_of(mri.affine) != axes_of(label.affine):
        yield "two_orientations", f"{axes_of(mri.affine)} and {axes_of(label.affine)}"
    if values.largest_share > 0.9:
        most = values.numbers[values.counts.argmax()]
        yield "mostly_one_value", f"{values.largest_share:.0%} of the voxels are {most:g}"
    low, high = values.percentile(0.01), values.percentile(0.99)
    top = float(values.numbers[-1])
    if top - high > 20 * (high - low) > 0:
        yield "spikes", f"up to {top:g}, while 98 % lie between {low:g} and {high:g}"
    outer = sum(np.count_nonzero(indices.take(end, axis)) for axis in range(3) for end in (0, -1))
    if outer > EDGE_SHARE * np.count_nonzero(indices):
        yield "edge", f"{outer:,} labelled voxels"


def _hash(volume: NDArray[Any]) -> str:
    data = np.ascontiguousarray(volume) + 0  # no negative zeros
    return hashlib.blake2b(data.tobytes() + str(data.shape).encode(), digest_size=16).hexdigest()


def _mm(sides: Any) -> str:
    return " x ".join(f"{side:.3g}" for side in sides) + " mm"
