"""Volumes in three planes: a prediction against its reference, and sheets of cases.

Volumes are (X, Y, Z) in RAS+: the first axis runs to the right, the second to the front,
the third upwards. They are drawn in millimetres with right on the right, the sagittal
plane above the coronal one and the axial plane beside them: a hippocampus is long from
back to front, so that this fills a picture best.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from contourpy import contour_generator
from matplotlib import patheffects
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray

from hsf_tune.figures.canvas import WIDTH_IN, blank
from hsf_tune.figures.palette import INK, label_color

PLANES = {"sagittal": (1, 2), "coronal": (0, 2), "axial": (0, 1)}  # array axes: across, up
ENDS = (("L", "R"), ("P", "A"), ("I", "S"))  # what the ends of each array axis point at
GAP_MM = 1.5
SNAPSHOT_IN = 3.4

Volume = NDArray[Any]


class Cell(NamedTuple):
    """One case of a contact sheet."""

    title: str
    image: Volume  # (X, Y, Z)
    labels: Volume  # (X, Y, Z) label indices, 0 background
    spacing_mm: Sequence[float]  # (3,)


def overlay(
    image: Volume,
    prediction: Volume,
    reference: Volume,
    spacing_mm: Sequence[float],
    labels_names: Mapping[int, str],
    title: str = "",
) -> Figure:
    """Prediction against reference in three planes through the reference's centre of mass.

    Left: the image with the reference's borders. Right: the prediction filled in under the
    same borders, so that a fill outside its border, or a border without fill, is an error.

    Args:
        image: (X, Y, Z) intensities, any scale.
        prediction, reference: (X, Y, Z) label indices, 0 background.
        spacing_mm: (3,) voxel sides.
        labels_names: label index -> name, for the legend.

    Raises:
        ValueError: the shapes differ.
    """
    _same_shape(image=image, prediction=prediction, reference=reference)
    shown = (reference > 0) | (prediction > 0)
    borders, fills = _views(image, prediction, reference, spacing_mm, shown)
    width, height, _ = _layout(borders)
    figure = blank(min(8.0, WIDTH_IN / 2 * height / width + 1.1), title)
    left, right = figure.subplots(1, 2)
    _block(left, borders, outlines=borders, names=True, scale=True)
    _block(right, borders, outlines=borders, fills=fills, names=True, scale=True)
    left.set_title("reference", fontsize=11, color=INK)
    right.set_title("prediction (filled) against reference (lines)", fontsize=11, color=INK)
    _legend(figure, np.union1d(prediction, reference), labels_names)
    return figure


def snapshot(
    image: Volume,
    prediction: Volume,
    reference: Volume,
    spacing_mm: Sequence[float],
    through: tuple[int, int] | None = None,
) -> Figure:
    """The prediction filled in under the reference's borders, without a word around it.

    A sagittal and a coronal plane through the reference's middle, cut by the reference alone, so
    that several predictions of a case are cut alike. Other arguments as for `overlay`.

    Args:
        through: (array axis, index) of a single plane to show instead.
    """
    _same_shape(image=image, prediction=prediction, reference=reference)
    shown = (reference > 0) | ((prediction > 0) & (through is not None))
    views = _views(image, prediction, reference, spacing_mm, shown, through)
    chosen = slice(0, 2) if through is None else slice(through[0], through[0] + 1)
    borders, fills = (planes[chosen] for planes in views)
    width, height, _ = _layout(borders)
    figure = Figure(figsize=(SNAPSHOT_IN, SNAPSHOT_IN * height / width), facecolor="black")
    axes = figure.add_axes((0, 0, 1, 1))
    _block(axes, borders, outlines=borders, fills=fills, names=True, scale=True)
    return figure


def contact_sheet(
    cells: Iterable[Cell | tuple[str, Volume, Volume, Sequence[float]]],
    *,
    title: str = "",
    labels_names: Mapping[int, str] | None = None,
    columns: int = 4,
) -> Figure:
    """Every case in three planes with the borders of its labels, in a grid.

    A generator is read one cell at a time, so that the volumes need not be in memory at
    once. Some 60 cases make a legible sheet; callers with more draw several.

    Args:
        cells: title, image (X, Y, Z), labels (X, Y, Z) and spacing_mm (3,) of each case.
        labels_names: label index -> name; with it the sheet gets a legend.
        columns: cases side by side.

    Raises:
        ValueError: no cells, or image and labels of one differ in shape.
    """
    drawn = [(cell[0], _planes_of(Cell(*cell))) for cell in cells]
    if not drawn:
        raise ValueError("A contact sheet needs at least one case; got none.")
    columns = min(columns, len(drawn))
    rows = math.ceil(len(drawn) / columns)
    sizes = [_layout(planes) for _, planes in drawn]
    ratio = float(np.median([size.height / size.width for size in sizes]))
    figure = blank(rows * min(6.0, WIDTH_IN / columns * ratio + 0.25) + 0.7, title)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes, (name, planes) in zip(grid.flat, drawn, strict=False):
        _block(axes, planes, outlines=planes, names=False, scale=False)
        axes.set_title(name, fontsize=7.5, color=INK, pad=2, parse_math=False)
    for axes in grid.flat[len(drawn) :]:
        axes.set_axis_off()
    if labels_names:
        present = np.unique(np.concatenate([p.labels.ravel() for _, ps in drawn for p in ps]))
        _legend(figure, present, labels_names, line=False)
    return figure


class _Plane(NamedTuple):
    """One plane cut out of a case."""

    name: str
    grey: NDArray[Any]  # (up, across) in [0, 1], the first row lowest
    labels: NDArray[Any]  # (up, across)
    step: tuple[float, float]  # mm: across, up

    @property
    def width(self) -> float:
        return self.grey.shape[1] * self.step[0]

    @property
    def height(self) -> float:
        return self.grey.shape[0] * self.step[1]


def _planes_of(cell: Cell) -> list[_Plane]:
    _same_shape(image=cell.image, labels=cell.labels)
    return _cut(cell.image, cell.labels, cell.spacing_mm, _centre(cell.labels))


def _views(
    image: Volume,
    prediction: Volume,
    reference: Volume,
    spacing_mm: Sequence[float],
    shown: Volume,
    through: tuple[int, int] | None = None,
) -> tuple[list[_Plane], list[_Plane]]:
    """Planes with the reference's and with the prediction's labels, around what is to be shown."""
    centre = _centre(reference if np.any(reference) else prediction)
    if through is not None:
        centre[through[0]] = through[1]
    box = _box_around(shown, spacing_mm, margin_mm=6.0)
    image, prediction, reference = (v[box] for v in (image, prediction, reference))
    centre = [c - part.start for c, part in zip(centre, box, strict=True)]
    borders = _cut(image, reference, spacing_mm, centre)
    return borders, _cut(image, prediction, spacing_mm, centre)


def _cut(
    image: Volume, labels: Volume, spacing_mm: Sequence[float], centre: Sequence[int]
) -> list[_Plane]:
    """The three planes through a voxel, copied so that the volume can be let go."""
    low, high = _grey_limits(image)
    planes = []
    for name, (across, up) in PLANES.items():
        through = 3 - across - up
        flat = np.take(image, centre[through], axis=through).T.astype(np.float32)
        grey = np.clip((flat - low) / (high - low), 0, 1)
        step = (float(spacing_mm[across]), float(spacing_mm[up]))
        planes.append(_Plane(name, grey, np.take(labels, centre[through], through).T.copy(), step))
    return planes


class _Layout(NamedTuple):
    """Where planes go, in mm: the whole, and the lower left corner of each."""

    width: float
    height: float
    corners: Sequence[tuple[float, float]]


def _layout(planes: Sequence[_Plane]) -> _Layout:
    """Sagittal above coronal, the axial plane beside them; fewer planes side by side."""
    if len(planes) < 3:
        height = max(plane.height for plane in planes)
        starts = np.cumsum([0.0, *(plane.width + GAP_MM for plane in planes)])
        lows = [(height - plane.height) / 2 for plane in planes]
        return _Layout(starts[-1] - GAP_MM, height, list(zip(starts[:-1], lows, strict=True)))
    sagittal, coronal, axial = planes
    width = max(sagittal.width, coronal.width) + GAP_MM + axial.width
    height = max(sagittal.height + GAP_MM + coronal.height, axial.height)
    top, right = height - sagittal.height, width - axial.width
    corners = [(0.0, top), (0.0, top - GAP_MM - coronal.height), (right, height - axial.height)]
    return _Layout(width, height, corners)


def _block(
    axes: Any,
    planes: Sequence[_Plane],
    *,
    outlines: Sequence[_Plane] = (),
    fills: Sequence[_Plane] = (),
    names: bool,
    scale: bool,
) -> None:
    """Planes in one set of axes whose data units are millimetres."""
    width, height, corners = _layout(planes)
    axes.set(xlim=(0, width), ylim=(0, height), aspect="equal", xticks=[], yticks=[])
    axes.set_facecolor("black")
    axes.spines[:].set_visible(False)
    for i, (plane, corner) in enumerate(zip(planes, corners, strict=True)):
        where = (corner[0], corner[0] + plane.width, corner[1], corner[1] + plane.height)
        look: dict[str, Any] = {"origin": "lower", "interpolation": "nearest", "extent": where}
        axes.imshow(plane.grey, cmap="gray", vmin=0, vmax=1, **look)
        if fills:
            axes.imshow(_tinted(fills[i].labels), **look)
        if outlines:
            _borders(axes, outlines[i], corner, 1.3 if names else 0.9)
        _orient(axes, plane, where, names)
    if scale:
        _scale_bar(axes, planes[-1], width, corners[-1][1])


def _tinted(labels: NDArray[Any], alpha: float = 0.55) -> NDArray[Any]:
    """(up, across, 4) colours of label indices, clear where there is none."""
    picture = np.zeros((*labels.shape, 4))
    for value in np.unique(labels[labels > 0]):
        picture[labels == value] = (*to_rgb(label_color(int(value))), alpha)
    return picture


def _borders(axes: Any, plane: _Plane, corner: tuple[float, float], width: float) -> None:
    """Lines a quarter voxel inside each label, so that neighbours do not cover each other."""
    padded = np.pad(plane.labels, 1)
    across = (np.arange(padded.shape[1]) - 0.5) * plane.step[0] + corner[0]
    up = (np.arange(padded.shape[0]) - 0.5) * plane.step[1] + corner[1]
    lines: list[Any] = []
    colors: list[str] = []
    for value in np.unique(plane.labels[plane.labels > 0]):
        inside = contour_generator(across, up, (padded == value).astype(float))
        found = inside.lines(0.75)
        lines += found
        colors += [label_color(int(value))] * len(found)
    # one collection instead of `axes.contour` for each label: a third of the time
    axes.add_collection(LineCollection(lines, colors=colors, linewidths=width), autolim=False)


def _orient(axes: Any, plane: _Plane, where: Sequence[float], names: bool) -> None:
    """Letters at a plane's edges (which way the patient lies), and the plane's name."""
    left, right, bottom, top = where
    (low_x, high_x), (low_y, high_y) = (ENDS[axis] for axis in PLANES[plane.name])
    middle_x, middle_y, inset = (left + right) / 2, (bottom + top) / 2, 0.012 * axes.get_xlim()[1]
    size = 10 if names else 5.5
    for letter, x, y, ha, va in (
        (low_x, left + inset, middle_y, "left", "center"),
        (high_x, right - inset, middle_y, "right", "center"),
        (low_y, middle_x, bottom + inset, "center", "bottom"),
        (high_y, middle_x, top - inset, "center", "top"),
    ):
        _on_image(axes, x, y, letter, ha=ha, va=va, fontsize=size)
    if names:
        _on_image(axes, left + inset, top - inset, plane.name, ha="left", va="top", fontsize=8)


def _scale_bar(axes: Any, plane: _Plane, width: float, bottom: float) -> None:
    """10 mm, or 5 where that leaves no room, in the lower right corner of the last plane."""
    length = 10.0 if plane.width > 30 else 5.0
    right, y = width * 0.98, bottom + width * 0.02
    axes.plot([right - length, right], [y, y], color="white", lw=3, solid_capstyle="butt")
    look = {"ha": "center", "va": "bottom", "fontsize": 8}
    _on_image(axes, right - length / 2, y + width * 0.01, f"{length:g} mm", **look)


def _on_image(axes: Any, x: float, y: float, text: str, **look: Any) -> None:
    halo = [patheffects.withStroke(linewidth=2.0, foreground="black")]
    axes.text(x, y, text, color="white", path_effects=halo, **look)


def _legend(
    figure: Figure, labels: NDArray[Any], names: Mapping[int, str], line: bool = True
) -> None:
    present = [int(v) for v in np.unique(labels) if v > 0]
    handles: list[Any] = [Patch(color=label_color(v), label=names.get(v, str(v))) for v in present]
    if line:
        handles.append(Line2D([], [], color=INK, lw=1.3, label="line: border in the reference"))
    if handles:
        look = {"ncols": min(len(handles), 9), "fontsize": 9, "frameon": False}
        legend = figure.legend(handles=handles, loc="outside lower center", **look)
        for text in legend.get_texts():
            text.set_parse_math(False)


def _centre(labels: Volume) -> list[int]:
    """The voxel at the foreground's centre of mass, each plane moved to where labels are."""
    if not np.any(labels):
        return [n // 2 for n in labels.shape]
    voxels = np.argwhere(labels > 0)
    nearest = []
    for axis, mean in enumerate(voxels.mean(axis=0)):
        used = np.unique(voxels[:, axis])
        nearest.append(int(used[np.abs(used - mean).argmin()]))
    return nearest


def _box_around(mask: Volume, spacing_mm: Sequence[float], margin_mm: float) -> tuple[slice, ...]:
    """The mask's bounding box with a margin; the whole volume where the mask is empty."""
    voxels = np.argwhere(mask)
    if not len(voxels):
        return tuple(slice(0, n) for n in mask.shape)
    low, high = voxels.min(axis=0), voxels.max(axis=0) + 1
    margins = [math.ceil(margin_mm / s) for s in spacing_mm]
    return tuple(
        slice(max(0, int(a) - m), min(n, int(b) + m))
        for a, b, m, n in zip(low, high, margins, mask.shape, strict=True)
    )


def _grey_limits(image: Volume) -> tuple[float, float]:
    """Intensities of black and white that a few bright voxels do not decide."""
    finite = image[np.isfinite(image)]
    low, high = np.percentile(finite, [1, 99.5]) if finite.size else (0.0, 1.0)
    return float(low), float(high if high > low else low + 1)


def _same_shape(**volumes: Volume) -> None:
    shapes = {name: volume.shape for name, volume in volumes.items()}
    if len(set(shapes.values())) > 1 or any(len(shape) != 3 for shape in shapes.values()):
        found = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise ValueError(f"Expected volumes of one shape (X, Y, Z); found {found}.")
