"""Turn the drawn anatomy into what a laboratory has: an MRI crop and a manual segmentation.

Decides how each tissue looks in each contrast, what each labelling guideline calls it, and the
variation that scanners bring (voxel size, orientation, bias field, blur, noise). Everything is
a pure function of (subject number, side, contrast, guideline), and the anatomy of (number,
side) alone: another contrast or guideline shows the same hippocampus. Files are `tasks.py`'s.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from hsf_tune.data.demo.anatomy import Anatomy, Tissue, draw_anatomy
from hsf_tune.data.demo.shape import Array, Shape

Side = Literal["left", "right"]
Contrast = Literal["t2", "t1"]
Guideline = Literal["subfields", "regions"]

SIDES: tuple[Side, ...] = ("left", "right")

_FINER = 2  # points per voxel and axis: averaging them gives partial volume
_ORIENTATIONS = ("RAS", "LPI", "LAS", "ASR")


@dataclass(frozen=True)
class Look:
    """A contrast: the mean signal of each tissue, and what the scanner does to it."""

    signal: dict[Tissue, float]
    jitter: float  # standard deviation of a tissue's mean between subjects, relative
    bias: float  # strength of the bias field, relative
    blur_voxels: tuple[float, float]  # range of the point spread's standard deviation
    noise: tuple[float, float]  # range of the noise, relative to grey matter


LOOKS: dict[Contrast, Look] = {
    "t2": Look(
        signal={
            Tissue.CSF: 260, Tissue.CORTEX: 152, Tissue.NUCLEUS: 138, Tissue.WHITE_MATTER: 108,
            Tissue.ALVEUS: 92, Tissue.SUB: 146, Tissue.CA1: 158, Tissue.CA2: 164, Tissue.CA3: 162,
            Tissue.DG: 172, Tissue.SRLM: 92,
        },
        jitter=0.03, bias=0.10, blur_voxels=(0.25, 0.45), noise=(0.03, 0.05),
    ),
    "t1": Look(
        signal={
            Tissue.CSF: 40, Tissue.CORTEX: 112, Tissue.NUCLEUS: 128, Tissue.WHITE_MATTER: 165,
            Tissue.ALVEUS: 160, Tissue.SUB: 120, Tissue.CA1: 110, Tissue.CA2: 108, Tissue.CA3: 108,
            Tissue.DG: 102, Tissue.SRLM: 140,
        },
        jitter=0.03, bias=0.15, blur_voxels=(0.35, 0.55), noise=(0.04, 0.06),
    ),
}  # fmt: skip

# Value on disk of each label. Numbers as manual segmentations have them, so that the datasets' own
# mapping is needed; alveus and fimbria are drawn by the raters and dropped by the mapping.
SUBFIELD_VALUES = {"DG": 210, "CA1": 206, "CA2": 207, "CA3": 208, "SUB": 205, "fimbria": 212}
REGION_VALUES = {
    "DG": 14, "CA1": 11, "CA2/3": 12, "SUB": 15, "SRLM": 16, "UNCUS": 17, "TAIL": 18, "fimbria": 31,
}  # fmt: skip


@dataclass(frozen=True)
class Crop:
    """One side of one subject as it lies on disk, in any orientation.

    Attributes:
        image: (I, J, K) int16 or float32.
        labels: (I, J, K) uint8, values on disk.
        affine: (4, 4) voxel indices to RAS+ mm; both sides of a subject share one world.
    """

    image: NDArray[np.int16] | NDArray[np.float32]
    labels: NDArray[np.uint8]
    affine: NDArray[np.float64]


def make_crop(
    number: int, side: Side, contrast: Contrast = "t2", guideline: Guideline = "subfields"
) -> Crop:
    """Draw, scan and segment one side of subject `number`; the same arguments, the same crop."""
    scan = _Scan.draw(_rng(number, "scan"))
    anatomy = _anatomy(number, side, scan)
    signal = _signal(anatomy.tissue, LOOKS[contrast], _rng(number, contrast), scan)
    image = _noisy(signal, LOOKS[contrast], _rng(number, contrast, side))
    labels = _majority(_LABELLERS[guideline](anatomy), scan.size)
    return _on_disk(image, labels, side, scan)


def make_subject(
    number: int, contrast: Contrast = "t2", guideline: Guideline = "subfields"
) -> dict[Side, Crop]:
    """Both sides of subject `number`."""
    return {side: make_crop(number, side, contrast, guideline) for side in SIDES}


# --- subject and scan -------------------------------------------------------------------------


def _rng(number: int, *purpose: str) -> np.random.Generator:
    """An independent stream for each purpose, so that one more draw here changes nothing there."""
    return np.random.default_rng([number, *"/".join(purpose).encode()])


@dataclass(frozen=True)
class _Scan:
    """How a subject lay in the scanner, and how its files are written."""

    size: tuple[int, int, int]  # voxels: left-right, posterior-anterior, inferior-superior
    spacing_mm: tuple[float, float, float]
    centre_mm: tuple[float, float, float]  # of the right crop, RAS; the left one mirrors it
    orientation: str
    floating: bool

    @classmethod
    def draw(cls, rng: np.random.Generator) -> _Scan:
        """At most 24 x 40 x 24 voxels (multiples of 8 need no padding), about 23 x 45 x 23 mm."""
        plane_mm, slice_mm = rng.uniform(0.96, 1.02), rng.uniform(1.13, 1.20)
        plane, slices = min(24, round(23.2 / plane_mm)), min(40, round(45.4 / slice_mm))
        centre_mm = np.array([26.0, -21.0, -13.0]) + rng.uniform(-2, 2, 3)
        return cls(
            size=(plane, slices, plane),
            spacing_mm=(plane_mm, slice_mm, plane_mm),
            centre_mm=tuple(centre_mm),
            orientation=_ORIENTATIONS[rng.integers(len(_ORIENTATIONS))],
            floating=bool(rng.random() < 0.3),
        )


def _anatomy(number: int, side: Side, scan: _Scan) -> Anatomy:
    """The subject's side on a grid finer than its voxels."""
    shape = Shape.draw(_rng(number, "shape")).side(_rng(number, "shape", side))
    x, y, z = (n * _FINER for n in scan.size)
    dx, dy, dz = (mm / _FINER for mm in scan.spacing_mm)
    wobbles = _rng(number, "wobble"), _rng(number, "wobble", side)
    return draw_anatomy(shape, (x, y, z), (dx, dy, dz), *wobbles)


# --- signal -----------------------------------------------------------------------------------


def _signal(tissue: NDArray[np.uint8], look: Look, rng: np.random.Generator, scan: _Scan) -> Array:
    """Noiseless signal (X, Y, Z) on voxels: tissue means, blur, partial volume."""
    means = np.array([look.signal[t] for t in Tissue])
    means = means * (1 + look.jitter * rng.standard_normal(len(means)).clip(-2, 2))
    blurred = gaussian_filter(means[tissue], rng.uniform(*look.blur_voxels) * _FINER)
    return _blocks(blurred, scan.size).mean(-1).astype(np.float32)


def _noisy(signal: Array, look: Look, rng: np.random.Generator) -> Array:
    """The signal with the side's bias field (a smooth quadratic) and the magnitude of its noise."""
    x = np.meshgrid(*(np.linspace(-1, 1, n) for n in signal.shape), indexing="ij")
    terms = np.stack([*x, x[0] * x[1], x[1] * x[2], x[1] ** 2 - 1 / 3])
    weights = look.bias * rng.uniform(-1, 1, len(terms)) / np.sqrt(len(terms) / 2)
    signal = signal * np.exp(np.tensordot(weights, terms, 1))
    sigma = rng.uniform(*look.noise) * look.signal[Tissue.CORTEX]
    real, imaginary = rng.normal(0, sigma, (2, *signal.shape))
    return np.hypot(signal + real, imaginary).astype(np.float32)


# --- labels -----------------------------------------------------------------------------------


def _subfields(anatomy: Anatomy) -> NDArray[np.uint8]:
    """The base's guideline: five subfields; the SRLM belongs to the sheet that it lines."""
    values = np.zeros(len(Tissue), np.uint8)
    for tissue in (Tissue.SUB, Tissue.CA1, Tissue.CA2, Tissue.CA3, Tissue.DG):
        values[tissue] = SUBFIELD_VALUES[tissue.name]
    return np.where(_white(anatomy), SUBFIELD_VALUES["fimbria"], values[anatomy.sheet])


def _regions(anatomy: Anatomy) -> NDArray[np.uint8]:
    """Another laboratory's: SRLM apart, CA2 and CA3 together, uncus and tail cut off as regions.

    Its CA1 reaches further medially below, its DG takes in the end of CA3 that dips into the hilum.
    """
    value, sheet = REGION_VALUES, anatomy.sheet
    labels = np.zeros(sheet.shape, np.uint8)
    labels[sheet == Tissue.SUB] = value["SUB"]
    labels[sheet == Tissue.CA1] = value["CA1"]
    labels[(sheet == Tissue.SUB) & (anatomy.across > -4) & (anatomy.along > 0.15)] = value["CA1"]
    labels[(sheet == Tissue.CA2) | (sheet == Tissue.CA3)] = value["CA2/3"]
    labels[(sheet == Tissue.CA3) & (anatomy.angle_deg > 132)] = value["DG"]
    labels[sheet == Tissue.DG] = value["DG"]
    labels[anatomy.tissue == Tissue.SRLM] = value["SRLM"]
    labels[(sheet > 0) & (anatomy.along < 0.20) & (anatomy.across < -1.5)] = value["UNCUS"]
    labels[(sheet > 0) & (anatomy.anterior_mm < _tail_plane_mm(anatomy))] = value["TAIL"]
    labels[_white(anatomy)] = value["fimbria"]
    return labels


_LABELLERS = {"subfields": _subfields, "regions": _regions}


def _tail_plane_mm(anatomy: Anatomy) -> float:
    """The coronal plane through the long axis at four fifths of its length."""
    near = (np.abs(anatomy.along - 0.80) < 0.02) & (np.abs(anatomy.across) < 2)
    return float(anatomy.anterior_mm[near & (anatomy.sheet > 0)].mean())


def _white(anatomy: Anatomy) -> NDArray[np.bool_]:
    return (anatomy.tissue == Tissue.ALVEUS) & (anatomy.along > 0) & (anatomy.along < 1)


# --- voxels -----------------------------------------------------------------------------------


def _blocks(fine: NDArray[Any], size: tuple[int, int, int]) -> NDArray[Any]:
    """(X, Y, Z, finer points of the voxel)"""
    x, y, z = size
    split = fine.reshape(x, _FINER, y, _FINER, z, _FINER)
    return split.transpose(0, 2, 4, 1, 3, 5).reshape(x, y, z, _FINER**3)


def _majority(fine: NDArray[np.uint8], size: tuple[int, int, int]) -> NDArray[np.uint8]:
    """The value that most points of a voxel have; of equals the smallest."""
    blocks = _blocks(fine, size)
    values = np.unique(fine)
    votes = [(blocks == value).sum(-1) for value in values]
    return values[np.argmax(votes, axis=0)]


def _on_disk(image: Array, labels: NDArray[np.uint8], side: Side, scan: _Scan) -> Crop:
    """Mirror a left side, place the crop in the subject's world, write it in the scan's order."""
    centre_mm = np.array(scan.centre_mm)
    if side == "left":
        image, labels, centre_mm = image[::-1], labels[::-1], centre_mm * [-1, 1, 1]
    affine = np.diag([*scan.spacing_mm, 1.0])
    affine[:3, 3] = centre_mm - (np.array(image.shape) - 1) / 2 * scan.spacing_mm
    turn = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(scan.orientation)
    )
    affine = affine @ nib.orientations.inv_ornt_aff(turn, image.shape)
    image = nib.orientations.apply_orientation(image, turn)
    labels = nib.orientations.apply_orientation(labels, turn)
    stored: NDArray[Any] = image if scan.floating else np.rint(image).astype(np.int16)
    return Crop(np.ascontiguousarray(stored), np.ascontiguousarray(labels), affine)
