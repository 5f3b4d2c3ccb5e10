"""Draw a hippocampus by formula: which structure lies at each point of a crop.

The drawing is a sketch of a right medial temporal lobe. A centre line runs from the head (anterior,
hooked medially) through the body to the tail (climbing, medial). Around it lies a hull; the
cortical sheet follows the hull's surface from SUB over CA1 and CA2 to CA3, which rolls inwards over
the DG that fills the hull, with the SRLM between sheet and DG. Alveus, fimbria, temporal horn,
cistern, parahippocampal gyrus and amygdala surround it. A left side is the mirror image.

This file knows geometry only: what the structures look like in an MRI and what a
labelling guideline calls them is decided in `demo_crops.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline, PchipInterpolator
from scipy.ndimage import distance_transform_edt, gaussian_filter
from scipy.spatial import cKDTree

Array = NDArray[np.float32]


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
class Shape:
    """The numbers that make one hippocampus differ from another; lengths in mm, angles in degrees.

    The defaults are the mean subject.
    """

    length_mm: float = 38.0
    rise_mm: float = 7.0
    bow_mm: float = 2.2
    hook_mm: float = 3.0
    half_width_mm: float = 6.4
    half_height_mm: float = 4.5
    head_swelling: float = 1.0
    sheet_mm: float = 1.9
    srlm_mm: float = 1.0
    subiculum_mm: float = 4.2
    horn_mm: float = 1.7
    digitation_mm: float = 0.7
    roll_deg: float = 0.0
    pitch_deg: float = 0.0
    yaw_deg: float = 0.0
    left_right_mm: float = 0.0
    up_down_mm: float = 0.0

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Shape:
        """A random subject: every number around its mean, within two standard deviations."""
        normal = dict(zip(_SPREAD, rng.standard_normal(len(_SPREAD)).clip(-2, 2), strict=True))
        return cls().moved(normal)

    def side(self, rng: np.random.Generator) -> Shape:
        """One side of a subject: the same shape but for a third of the population's spread."""
        normal = dict(zip(_SPREAD, rng.standard_normal(len(_SPREAD)).clip(-2, 2) / 3, strict=True))
        return self.moved(normal)

    def moved(self, deviations: dict[str, float]) -> Shape:
        """This shape with each named number moved by so many standard deviations."""
        moved = {k: getattr(self, k) + _SPREAD[k] * float(v) for k, v in deviations.items()}
        return replace(self, **moved)


_SPREAD = {
    "length_mm": 1.5, "rise_mm": 0.9, "bow_mm": 0.5, "hook_mm": 0.6,
    "half_width_mm": 0.35, "half_height_mm": 0.25, "head_swelling": 0.05,
    "sheet_mm": 0.08, "srlm_mm": 0.06, "subiculum_mm": 0.4, "horn_mm": 0.45,
    "digitation_mm": 0.12, "roll_deg": 5.0, "pitch_deg": 3.0, "yaw_deg": 3.0,
    "left_right_mm": 0.6, "up_down_mm": 0.6,
}  # fmt: skip
assert set(_SPREAD) == {f.name for f in fields(Shape)}


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
        size: points of the grid from medial to lateral, posterior to anterior, inferior to superior.
        spacing_mm: distance of the points along the same axes.
        subject_rng: draws the smooth deformation that no formula has; both sides pass the same.
        side_rng: draws a weaker one of this side's own.
    """
    grid = _grid(size, spacing_mm)
    wobble_mm = 0.45 * _smooth_field(size, spacing_mm, subject_rng)
    wobble_mm += 0.25 * _smooth_field(size, spacing_mm, side_rng)
    section = _Section.through(grid + wobble_mm, shape)
    outside = _signed_distance_mm(section.hull() < 1, spacing_mm)
    tissue = _surroundings(section, outside, shape)
    sheet = np.zeros(size, np.uint8)
    _paint_hippocampus(tissue, sheet, section, outside, shape)
    return Anatomy(tissue, sheet, section.t, section.u, section.angle_deg, grid[1])


# --- coordinates ------------------------------------------------------------------------------


def _grid(size: tuple[int, int, int], spacing_mm: tuple[float, float, float]) -> Array:
    """(3, X, Y, Z) mm from the grid's centre."""
    axes = [(np.arange(n) - (n - 1) / 2) * mm for n, mm in zip(size, spacing_mm, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij")).astype(np.float32)


def _smooth_field(
    size: tuple[int, int, int], spacing_mm: tuple[float, float, float], rng: np.random.Generator
) -> Array:
    """(3, X, Y, Z) smooth random vectors of about unit length an axis, changing over 7 mm."""
    spread = []
    for n, mm in zip(size, spacing_mm, strict=True):
        knots = np.linspace(0, n - 1, max(4, round(n * mm / 7) + 1))
        # One column a knot: the cubic spline that is 1 there and 0 at the others.
        spread.append(CubicSpline(knots, np.eye(len(knots)))(np.arange(n)).astype(np.float32))
    shape = tuple(weights.shape[1] for weights in spread)
    coarse = rng.standard_normal((3, *shape)).clip(-2, 2).astype(np.float32)
    return np.einsum("cijk,xi,yj,zk->cxyz", coarse, *spread, optimize=True)


@dataclass(frozen=True)
class _Section:
    """Where each point lies in the cross-section of the long axis that passes through it.

    Attributes:
        t: position along the axis, 0 (head) to 1 (tail); slightly beyond at points past the ends.
        u, v: mm lateral and superior of the centre line.
        a, b: half width and half height of the hull there, in mm, without the rounding of its ends.
        rounding: 1 along the body, falling to 0 at the tips of head and tail.
    """

    t: Array
    u: Array
    v: Array
    a: Array
    b: Array
    rounding: Array

    @classmethod
    def through(cls, points: Array, shape: Shape) -> _Section:
        """The cross-sections of the points, (3, X, Y, Z) mm."""
        fine = np.linspace(0, 1, 241)
        line = _centre_line(shape, fine)
        step = np.gradient(line, fine, axis=0)
        speed = np.linalg.norm(step, axis=1)
        tangent = step / speed[:, None]
        lateral, superior = _frame(tangent, _roll_deg(shape, fine))
        nearest = cKDTree(line).query(points.reshape(3, -1).T)[1]
        offset = points.reshape(3, -1).T - line[nearest]
        t = fine[nearest] + (offset * tangent[nearest]).sum(1) / speed[nearest]
        u = (offset * lateral[nearest]).sum(1)
        v = (offset * superior[nearest]).sum(1)
        t, u, v = (x.reshape(points.shape[1:]).astype(np.float32) for x in (t, u, v))
        head = 1 + (shape.head_swelling - 1) * _fade(t, 0.35, 0.20)
        a = shape.half_width_mm * head * _along(t, _WIDTH)
        b = shape.half_height_mm * head * _along(t, _HEIGHT)
        b = b + _digitations_mm(shape, t, u / a, v)
        return cls(t, u, v, a, b, _rounding(t))

    @property
    def angle_deg(self) -> Array:
        """Direction from the centre line, 0 lateral, 90 superior, in (-180, 180]."""
        return np.degrees(np.arctan2(self.v / self.b, self.u / self.a))

    def hull(self) -> Array:
        """Size of the hull that passes through each point; 1 on the surface of the hippocampus.

        An ellipse, but flat below and medially, where the SUB leaves it.
        """
        x, y = np.abs(self.u / self.a), np.abs(self.v / self.b)
        flat = (self.u < 0) & (self.v < 0)
        ellipse, box = np.hypot(x, y), (x**5 + y**5) ** 0.2
        return np.where(flat, box, ellipse) / np.maximum(self.rounding, 0.02)


_KNOTS = np.array([0.0, 0.12, 0.3, 0.5, 0.7, 0.85, 1.0])
_WIDTH = np.array([1.05, 1.14, 1.10, 1.0, 0.95, 0.92, 0.85])
_HEIGHT = np.array([1.10, 1.16, 1.06, 0.98, 0.95, 0.97, 0.95])


def _along(t: Array, values: NDArray[np.float64]) -> Array:
    """A smooth function of the position on the long axis, given at the knots."""
    return PchipInterpolator(_KNOTS, values)(t.clip(0, 1)).astype(np.float32)


def _fade(x: Array, zero: float, one: float) -> Array:
    """0 at `zero`, 1 at `one`, smooth between (`zero` may be the larger)."""
    s = ((x - zero) / (one - zero)).clip(0, 1)
    return s * s * (3 - 2 * s)


def _centre_line(shape: Shape, t: NDArray[np.float64]) -> NDArray[np.float64]:
    """(T, 3) mm: lateral, anterior, superior."""
    bow = shape.bow_mm * np.array([0.1, 0.3, 0.8, 1.0, 0.5, -0.6, -2.2])
    hook = shape.hook_mm * np.array([-1.0, -0.45, 0, 0, 0, 0, 0])
    rise = shape.rise_mm * np.array([-0.36, -0.38, -0.33, -0.18, 0.10, 0.42, 0.72])
    line = PchipInterpolator(_KNOTS, np.stack([bow + hook, 0 * bow, rise], 1))(t)
    line[:, 1] = shape.length_mm * (0.5 - t)
    pitch, yaw = np.radians([shape.pitch_deg, shape.yaw_deg])
    x, y, z = line.T
    x, y = x * np.cos(yaw) - y * np.sin(yaw), x * np.sin(yaw) + y * np.cos(yaw)
    y, z = y * np.cos(pitch) - z * np.sin(pitch), y * np.sin(pitch) + z * np.cos(pitch)
    return np.stack([x + 0.4 + shape.left_right_mm, y, z + 0.8 + shape.up_down_mm], 1)


def _roll_deg(shape: Shape, t: NDArray[np.float64]) -> NDArray[np.float64]:
    return shape.roll_deg + PchipInterpolator(_KNOTS, [0, 2, 6, 10, 10, 2, -10])(t)


def _frame(
    tangent: NDArray[np.float64], roll_deg: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lateral and superior directions of each cross-section, at right angles to the axis."""
    x = np.array([1.0, 0, 0])
    lateral = x - tangent * tangent[:, :1]
    lateral /= np.linalg.norm(lateral, axis=1, keepdims=True)
    superior = np.cross(tangent, lateral)
    cos, sin = np.cos(np.radians(roll_deg))[:, None], np.sin(np.radians(roll_deg))[:, None]
    return cos * lateral + sin * superior, cos * superior - sin * lateral


def _rounding(t: Array) -> Array:
    """The hull's ends: a half ellipse at the head, a blunter one at the tail."""
    head = ((0.15 - t) / 0.15).clip(0, 1)
    tail = ((t - 0.80) / 0.20).clip(0, 1)
    return np.sqrt((1 - head**2) * (1 - tail**2))


def _digitations_mm(shape: Shape, t: Array, across: Array, v: Array) -> Array:
    """The bumps on the head's upper surface."""
    return shape.digitation_mm * np.cos(across * 8.0) * _fade(t, 0.30, 0.2) * (v > 0)


# --- painting ---------------------------------------------------------------------------------


def _signed_distance_mm(inside: NDArray[np.bool_], spacing_mm: tuple[float, float, float]) -> Array:
    """mm from the surface of a mask, positive outside, smoothed below the grid's step."""
    out = distance_transform_edt(~inside, sampling=spacing_mm)
    into = distance_transform_edt(inside, sampling=spacing_mm)
    return gaussian_filter((out - into).astype(np.float32), 0.7)


def _surroundings(s: _Section, outside: Array, shape: Shape) -> NDArray[np.uint8]:
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
    stem = np.hypot((s.u + s.a + 7.6) / 6.2, (s.v - 1.5) / 7.5) + _fade(s.t, 0.16, 0.04)
    tissue[stem < 1] = Tissue.NUCLEUS
    tissue[stem < 0.62] = Tissue.WHITE_MATTER
    roof = s.v - s.b - 1.7 - 0.02 * (s.u + 4) ** 2
    tissue[(roof > 0) & (s.u < 3) & (s.t > 0.28)] = Tissue.NUCLEUS
    # Amygdala above and before the head.
    amygdala = np.hypot((s.u + 2.5) / 7.5, (s.v - s.b - 3.5) / 4.5)
    tissue[(amygdala < 1) & (s.t < 0.2)] = Tissue.NUCLEUS
    # Temporal horn: a crescent lateral and superior, wide at the head and opening into the atrium.
    width = shape.horn_mm * (0.6 + 0.8 * _fade(s.t, 0.25, 0.05) + 1.0 * _fade(s.t, 0.7, 1.0))
    reach = _fade(s.angle_deg, -45, 0) * _fade(s.angle_deg, 150, 95)
    lateral = np.exp(-(((s.angle_deg - 45) / 60) ** 2))
    tissue[(outside > 0) & (outside < 0.6 + width * reach * (0.45 + 0.55 * lateral))] = Tissue.CSF
    alveus = (outside > 0) & (outside < 0.75 * _fade(s.angle_deg, -60, -20))
    tissue[alveus & (s.angle_deg < 165)] = Tissue.ALVEUS
    return tissue


def _paint_hippocampus(
    tissue: NDArray[np.uint8],
    sheet: NDArray[np.uint8],
    s: _Section,
    outside: Array,
    shape: Shape,
) -> None:
    """Paint sheet, SRLM, DG and fimbria over the surroundings, in place."""
    inside = (outside < 0) & (s.rounding > 0)
    body = _fade(s.t, 0.13, 0.26) * _fade(s.t, 0.97, 0.86)  # where the roll is open medially
    floor = (s.u < -0.1 * s.a) & (s.v < 0)
    depth = np.where(floor, (1 - body) * -outside + body * (s.v + s.b), -outside)
    angle = np.where(s.angle_deg < -150, s.angle_deg + 360, s.angle_deg)
    owner = _sheet_by_angle(angle, s)
    # The roll: over CA3 the sheet leaves the surface and dips into the DG.
    curl = body * 2.3 * _fade(angle, 112, 168)
    thickness = shape.sheet_mm * (1 - 0.15 * body * _fade(angle, 90, 130))
    srlm = shape.srlm_mm * (1 - body * _fade(angle, 95, 122))
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


def _sheet_by_angle(angle: Array, s: _Section) -> NDArray[np.uint8]:
    """The subfield of the sheet in each direction; all of the tail's tip is CA1."""
    t = s.t
    anterior, posterior = _fade(t, 0.20, 0.10), _fade(t, 0.88, 0.96)
    ca1_end = 66 + 84 * anterior + 70 * posterior
    ca2_end = 98 + 52 * anterior + 50 * posterior
    ca3_end = 180 - 30 * anterior - 30 * posterior
    owner = np.full(angle.shape, Tissue.SUB, np.uint8)
    owner[(angle > -102) & (angle <= ca1_end)] = Tissue.CA1
    owner[(angle > ca1_end) & (angle <= ca2_end)] = Tissue.CA2
    owner[(angle > ca2_end) & (angle <= ca3_end)] = Tissue.CA3
    return owner


def _paint_subiculum(
    tissue: NDArray[np.uint8], sheet: NDArray[np.uint8], s: _Section, shape: Shape
) -> None:
    """The SUB beyond the hull: a slab that runs medially into the parahippocampal cortex."""
    reach = shape.subiculum_mm * _fade(s.t, 0.02, 0.16) * _fade(s.t, 1.0, 0.82)
    beyond = -s.a * s.rounding - s.u  # mm medial of the hull
    height = s.v + s.b * s.rounding + 0.07 * np.maximum(beyond, 0) ** 2  # above the slab's floor
    near = (s.u < -0.5 * s.a) & (s.t > 0.02) & (s.t < 0.98) & (tissue != Tissue.DG)
    near &= beyond < reach - 0.5 * height  # its end is cut obliquely, as where the presubiculum starts
    slab = near & (height >= 0) & (height < shape.sheet_mm)
    tissue[slab] = sheet[slab] = Tissue.SUB
    lining = near & (height >= shape.sheet_mm) & (height < shape.sheet_mm + 0.5 * shape.srlm_mm)
    tissue[lining & (beyond > 0)] = Tissue.SRLM
