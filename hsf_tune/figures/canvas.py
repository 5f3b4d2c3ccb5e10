"""An empty figure of our size, and its way to a file."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from hsf_tune.figures.palette import INK
from hsf_tune.files import replacing

WIDTH_IN, DPI = 11.0, 110  # 1210 pixels: a laptop's width


def blank(height_in: float, title: str, width_in: float = WIDTH_IN) -> Figure:
    """A figure, as wide as a laptop if not told otherwise; its title may hold any character."""
    figure = Figure(figsize=(width_in, height_in), dpi=DPI, layout="constrained")
    if title:
        figure.suptitle(title, fontsize=12, color=INK, parse_math=False)
    return figure


def save(figure: Figure, path: Path | str) -> Path:
    """Write a figure (PNG, SVG or PDF by suffix): readers see the whole file or none.

    Raises:
        OSError: the folder can't be written.
    """
    path = Path(path)
    with replacing(path) as temporary:
        figure.savefig(temporary, facecolor="white")
    return path
