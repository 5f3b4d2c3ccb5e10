"""Give the demo's hippocampus its shape, and every point of a crop its place in it.

A centre line runs from the head (anterior, hooked medially) through the body to the tail
(climbing, medial); round it lies a hull with the outline of a hippocampus. Points get curved
coordinates: how far along the line, and where in the cross-section. What is painted there
is decided in `anatomy.py`. All is a right side, (lateral, anterior, superior) in mm.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator
from scipy.spatial import cKDTree

Array = NDArray[np.float32]


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
    "length_mm": 1.5, "rise_mm": 0.7, "bow_mm": 0.5, "hook_mm": 0.6,
    "half_width_mm": 0.35, "half_height_mm": 0.25, "head_swelling": 0.05,
    "sheet_mm": 0.08, "srlm_mm": 0.06, "subiculum_mm": 0.4, "horn_mm": 0.45,
    "digitation_mm": 0.12, "roll_deg": 4.0, "pitch_deg": 2.0, "yaw_deg": 2.0,
    "left_right_mm": 0.35, "up_down_mm": 0.4,
}  # fmt: skip
assert set(_SPREAD) == {f.name for f in fields(Shape)}


@dataclass(frozen=True)
class Section:
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
    def through(cls, points: Array, shape: Shape) -> Section:
        """The cross-sections of the points, (3, X, Y, Z) mm."""
        line = _centre_line(shape)
        step = np.gradient(line, _FINE, axis=0)
        speed = np.linalg.norm(step, axis=1)
        tangent = step / speed[:, None]
        lateral, superior = _frame(tangent, _roll_deg(shape))
        nearest = cKDTree(line).query(points.reshape(3, -1).T)[1]
        offset = points.reshape(3, -1).T - line[nearest]
        t = _FINE[nearest] + (offset * tangent[nearest]).sum(1) / speed[nearest]
        u = (offset * lateral[nearest]).sum(1)
        v = (offset * superior[nearest]).sum(1)
        t, u, v = (x.reshape(points.shape[1:]).astype(np.float32) for x in (t, u, v))
        head = 1 + (shape.head_swelling - 1) * fade(t, 0.35, 0.20)
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

        An ellipse; along the body flat below and medially, where the SUB leaves it.
        """
        x, y = np.abs(self.u / self.a), np.abs(self.v / self.b)
        flat = (self.u < 0) & (self.v < 0)
        power = 2.2 + 2.8 * fade(self.t, 0.06, 0.22) * fade(self.t, 1.0, 0.85)
        ellipse, box = np.hypot(x, y), (x**power + y**power) ** (1 / power)
        return np.where(flat, box, ellipse) / np.maximum(self.rounding, 0.02)


_FINE = np.linspace(0, 1, 241)  # positions on the axis at which it is sampled
_MAIN = (_FINE > 0.06) & (_FINE < 0.92)
_KNOTS = np.array([0.0, 0.12, 0.3, 0.5, 0.7, 0.85, 1.0])
_WIDTH = np.array([1.05, 1.14, 1.10, 1.0, 0.95, 0.92, 0.85])
_HEIGHT = np.array([1.10, 1.16, 1.06, 0.98, 0.95, 0.97, 0.95])


def _along(t: Array, values: NDArray[np.float64]) -> Array:
    """A smooth function of the position on the long axis, given at the knots."""
    return PchipInterpolator(_KNOTS, values)(t.clip(0, 1)).astype(np.float32)


def fade(x: Array, zero: float, one: float) -> Array:
    """0 at `zero`, 1 at `one`, smooth between (`zero` may be the larger)."""
    s = ((x - zero) / (one - zero)).clip(0, 1)
    return s * s * (3 - 2 * s)


def _centre_line(shape: Shape) -> NDArray[np.float64]:
    """(T, 3) mm, lateral, anterior and superior, at the fine positions."""
    bow = shape.bow_mm * np.array([0.1, 0.3, 0.8, 1.0, 0.5, -0.6, -2.2])
    hook = shape.hook_mm * np.array([-1.0, -0.45, 0, 0, 0, 0, 0])
    rise = shape.rise_mm * np.array([-0.36, -0.38, -0.33, -0.18, 0.10, 0.42, 0.72])
    line = PchipInterpolator(_KNOTS, np.stack([bow + hook, 0 * bow, rise], 1))(_FINE)
    line[:, 1] = shape.length_mm * (0.5 - _FINE)
    pitch, yaw = np.radians([shape.pitch_deg, shape.yaw_deg])
    x, y, z = line.T
    x, y = x * np.cos(yaw) - y * np.sin(yaw), x * np.sin(yaw) + y * np.cos(yaw)
    y, z = y * np.cos(pitch) - z * np.sin(pitch), y * np.sin(pitch) + z * np.cos(pitch)
    # The crop is cut round the hippocampus: its middle lies at the crop's centre, nearly.
    middle = [(w[_MAIN].min() + w[_MAIN].max()) / 2 for w in (x, z)]
    x, z = x - middle[0] + 0.2 + shape.left_right_mm, z - middle[1] + 1.4 + shape.up_down_mm
    return np.stack([x, y, z], 1)


def _roll_deg(shape: Shape) -> NDArray[np.float64]:
    return shape.roll_deg + PchipInterpolator(_KNOTS, [0, 2, 6, 10, 10, 2, -10])(_FINE)


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
    return shape.digitation_mm * np.cos(across * 8.0) * fade(t, 0.30, 0.2) * (v > 0)
