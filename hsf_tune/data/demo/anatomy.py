"""Draw a hippocampus by formula: which tissue lies at each point of a crop.

The drawing is a sketch of a right medial temporal lobe. Inside the hull that `shape.py`
gives, the cortical sheet follows the surface from SUB over CA1 and CA2 to CA3, which rolls
inwards over the DG that fills the hull, with the SRLM between sheet and DG. Alveus, fimbria,
temporal horn, cistern, parahippocampal gyrus and amygdala surround it.

This file knows geometry only: what the tissues look like in an MRI and what a
labelling guideline calls them is decided in `crops.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from scipy.ndimage import distance_transform_edt, gaussian_filter

from hsf_tune.data.demo.shape import Array, Section, Shape, fade


class Tissue(IntEnum):
    """What a point is made of; it alone decides the signal."""

    WHITE_MATTER = 0
    CSF = 1
    CORTEX = 2
    NUCLEUS = 3
    ALVEUS = 4
    SUB = 5
    CA1 = 6
    CA2 = 7
    CA3 = 8
    DG = 9
    SRLM = 10


@dataclass(frozen=True)
class Anatomy:
    """A drawn crop, every array (X, Y, Z) in the right side's frame (lateral, anterior, superior).

    Attributes:
        tissue: `Tissue` of each point.
        sheet: the subfield (SUB, CA1, CA2, CA3, DG as `Tissue`) that owns the point, 0 outside
            the hippocampus; the SRLM belongs to the part of the sheet that it lines.
        along: position on the long axis, 0 at the head's tip and 1 at the tail's.
        across: mm lateral of the centre line.
        angle_deg: direction from the centre line: 0 lateral, 90 superior, -90 inferior.
        anterior_mm: distance in front of the crop's centre, along the scanner's y axis.
    """

    tissue: NDArray[np.uint8]
    sheet: NDArray[np.uint8]
    along: Array
    across: Array
    angle_deg: Array
    anterior_mm: Array


def draw_anatomy(
    shape: Shape,
    size: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
    subject_rng: np.random.Generator,
    side_rng: np.random.Generator,
) -> Anatomy:
    """Draw a right hippocampus and its surroundings on a grid centred on the crop.

    Args:
        shape: the subject's numbers.
        size: points from medial to lateral, posterior to anterior, inferior to superior.
        spacing_mm: distance of the points along the same axes.
        subject_rng: draws the smooth deformation that no formula has; both sides pass the same.
        side_rng: draws a weaker one of this side's own.
    """
    grid = _grid(size, spacing_mm)
    wobble_mm = 0.45 * _smooth_field(size, spacing_mm, subject_rng)
    wobble_mm += 0.25 * _smooth_field(size, spacing_mm, side_rng)
    section = Section.through(grid + wobble_mm, shape)
    outside = _signed_distance_mm(section.hull() < 1, spacing_mm)
    tissue = _surroundings(section, outside, shape)
    sheet = np.zeros(size, np.uint8)
    _paint_hippocampus(tissue, sheet, section, outside, shape)
    return Anatomy(tissue, sheet, section.t, section.u, section.angle_deg, grid[1])


def _grid(size: tuple[int, int, int], spacing_mm: tuple[float, float, float]) -> Array:
    """(3, X, Y, Z) mm from the grid's centre."""
    axes = [(np.arange(n) - (n - 1) / 2) * mm for n, mm in zip(size, spacing_mm, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij")).astype(np.float32)


def _smooth_field(
    size: tuple[int, int, int], spacing_mm: tuple[float, float, float], rng: np.random.Generator
) -> Array:
    """(3, X, Y, Z) smooth random vectors, of about unit length an axis and zero mean, over 7 mm."""
    spread = []
    for n, mm in zip(size, spacing_mm, strict=True):
        knots = np.linspace(0, n - 1, max(4, round(n * mm / 7) + 1))
        # One column a knot: the cubic spline that is 1 there and 0 at the others.
        spread.append(CubicSpline(knots, np.eye(len(knots)))(np.arange(n)).astype(np.float32))
    shape = tuple(weights.shape[1] for weights in spread)
    coarse = rng.standard_normal((3, *shape)).clip(-2, 2).astype(np.float32)
    coarse -= coarse.mean((1, 2, 3), keepdims=True)  # no shift of the whole
    return np.einsum("cijk,xi,yj,zk->cxyz", coarse, *spread, optimize=True)


def _signed_distance_mm(inside: NDArray[np.bool_], spacing_mm: tuple[float, float, float]) -> Array:
    """mm from the surface of a mask, positive outside, smoothed below the grid's step."""
    out = distance_transform_edt(~inside, sampling=spacing_mm)
    into = distance_transform_edt(inside, sampling=spacing_mm)
    return gaussian_filter((out - into).astype(np.float32), 0.7)


def _surroundings(s: Section, outside: Array, shape: Shape) -> NDArray[np.uint8]:
    """Everything that is not hippocampus: white matter with cortex, fluid and nuclei in it."""
    tissue = np.full(s.t.shape, Tissue.WHITE_MATTER, np.uint8)
    below = s.v + s.b  # mm above the hull's floor
    # Parahippocampal gyrus: a white core, a ribbon of cortex round it, fluid medially and below.
    gyrus = np.hypot((s.u + 2.0) / 9.2, (below + 3.6) / 6.2)
    lateral_of_gyrus = 5.0 + 0.25 * (below + 6)  # where the collateral sulcus cuts in
    here = (s.u < lateral_of_gyrus) & (below < 0.5)
    tissue[here & (gyrus > 1) & ((below < -4) | (s.u < -0.8 * s.a))] = Tissue.CSF
    tissue[here & (gyrus > 0.66) & (gyrus <= 1) & ((below < -3) | (s.u < -s.a))] = Tissue.CORTEX
    sulcus = np.abs(s.u - lateral_of_gyrus)
    tissue[(sulcus < 2.3) & (below < -3.5)] = Tissue.CORTEX
    tissue[(sulcus < 0.45) & (below < -4.5)] = Tissue.CSF
    # Medially the cistern, then peduncle and pulvinar; above, over the choroid fissure, thalamus.
    fissure = (s.u < -0.82 * s.a) & (below > 0) & (s.v < s.b + 0.8 - 0.15 * (s.u + s.a))
    tissue[fissure] = Tissue.CSF
    stem = np.hypot((s.u + s.a + 7.6) / 6.2, (s.v - 1.5) / 7.5) + fade(s.t, 0.16, 0.04)
    tissue[stem < 1] = Tissue.NUCLEUS
    tissue[stem < 0.62] = Tissue.WHITE_MATTER
    roof = s.v - s.b - 1.7 - 0.02 * (s.u + 4) ** 2
    tissue[(roof > 0) & (s.u < 3) & (s.t > 0.28)] = Tissue.NUCLEUS
    # Amygdala above and before the head.
    amygdala = np.hypot((s.u + 2.5) / 7.5, (s.v - s.b - 3.5) / 4.5)
    tissue[(amygdala < 1) & (s.t < 0.2)] = Tissue.NUCLEUS
    # Temporal horn: a crescent lateral and superior, wide at the head and opening into the atrium.
    width = shape.horn_mm * (0.6 + 0.8 * fade(s.t, 0.25, 0.05) + 1.0 * fade(s.t, 0.7, 1.0))
    reach = fade(s.angle_deg, -45, 0) * fade(s.angle_deg, 150, 95)
    lateral = np.exp(-(((s.angle_deg - 45) / 60) ** 2))
    tissue[(outside > 0) & (outside < 0.6 + width * reach * (0.45 + 0.55 * lateral))] = Tissue.CSF
    alveus = (outside > 0) & (outside < 0.75 * fade(s.angle_deg, -60, -20))
    tissue[alveus & (s.angle_deg < 165)] = Tissue.ALVEUS
    return tissue


def _paint_hippocampus(
    tissue: NDArray[np.uint8],
    sheet: NDArray[np.uint8],
    s: Section,
    outside: Array,
    shape: Shape,
) -> None:
    """Paint sheet, SRLM, DG and fimbria over the surroundings, in place."""
    inside = (outside < 0) & (s.rounding > 0)
    body = fade(s.t, 0.13, 0.26) * fade(s.t, 0.97, 0.86)  # where the roll is open medially
    floor = (s.u < -0.1 * s.a) & (s.v < 0)
    depth = np.where(floor, (1 - body) * -outside + body * (s.v + s.b), -outside)
    angle = np.where(s.angle_deg < -150, s.angle_deg + 360, s.angle_deg)
    owner = _sheet_by_angle(angle, s)
    # The roll: over CA3 the sheet leaves the surface and dips into the DG.
    curl = body * 2.3 * fade(angle, 112, 168)
    thickness = shape.sheet_mm * (1 - 0.15 * body * fade(angle, 90, 130))
    srlm = shape.srlm_mm * (1 - body * fade(angle, 95, 122))
    gap = (angle > 152) & (body > 0.5)
    in_sheet = inside & (depth >= curl) & (depth < curl + thickness) & ~gap
    in_srlm = inside & (depth >= curl + thickness) & (depth < curl + thickness + srlm) & ~gap
    fimbria = inside & (depth < curl) & (angle > 112) & (angle < 185) & (s.v > 0)
    in_dg = inside & ~in_sheet & ~in_srlm & ~fimbria
    tissue[in_sheet] = owner[in_sheet]
    sheet[in_sheet | in_srlm] = owner[in_sheet | in_srlm]
    tissue[in_dg] = sheet[in_dg] = Tissue.DG
    tissue[in_srlm] = Tissue.SRLM
    tissue[fimbria] = Tissue.ALVEUS
    _paint_subiculum(tissue, sheet, s, shape)


def _sheet_by_angle(angle: Array, s: Section) -> NDArray[np.uint8]:
    """The subfield of the sheet in each direction; all of the tail's tip is CA1."""
    t = s.t
    anterior, posterior = fade(t, 0.20, 0.10), fade(t, 0.88, 0.96)
    ca1_end = 66 + 84 * anterior + 70 * posterior
    ca2_end = 98 + 52 * anterior + 50 * posterior
    ca3_end = 180 - 30 * anterior - 30 * posterior
    owner = np.full(angle.shape, Tissue.SUB, np.uint8)
    owner[(angle > -102) & (angle <= ca1_end)] = Tissue.CA1
    owner[(angle > ca1_end) & (angle <= ca2_end)] = Tissue.CA2
    owner[(angle > ca2_end) & (angle <= ca3_end)] = Tissue.CA3
    return owner


def _paint_subiculum(
    tissue: NDArray[np.uint8], sheet: NDArray[np.uint8], s: Section, shape: Shape
) -> None:
    """The SUB beyond the hull: a slab that runs medially into the parahippocampal cortex."""
    reach = shape.subiculum_mm * fade(s.t, 0.06, 0.2) * fade(s.t, 1.0, 0.82)
    beyond = -s.a * s.rounding - s.u  # mm medial of the hull
    height = s.v + s.b * s.rounding + 0.07 * np.maximum(beyond, 0) ** 2  # above the slab's floor
    near = (s.u < -0.5 * s.a) & (reach > 1) & (tissue != Tissue.DG)
    near &= beyond < reach - 0.5 * height  # ends obliquely, where the presubiculum begins
    slab = near & (height >= 0) & (height < shape.sheet_mm)
    tissue[slab] = sheet[slab] = Tissue.SUB
    lining = near & (height >= shape.sheet_mm) & (height < shape.sheet_mm + 0.5 * shape.srlm_mm)
    lining &= (beyond > 0) & (sheet == 0)
    tissue[lining], sheet[lining] = Tissue.SRLM, Tissue.SUB
