"""How the report's Plotly figures look: one font, one palette, no clutter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from hsf_tune.figures.palette import FAINT, INK, MUTED, arm_colors
from hsf_tune.records import BASE, DEFAULT

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
HAZE = "rgba(255,255,255,0.7)"  # behind a text that crosses a curve
BASELINE_NAMES = {BASE: "unchanged base", DEFAULT: "documented default"}
CLEAR = "rgba(0,0,0,0)"  # figures stand on the page's own ground, light or dark
ARM_GLOSSES = {"full": " (whole network)", "head": " (last layer)"}
PLOT_CONFIG = {
    "responsive": True,
    "displaylogo": False,
    "modeBarButtonsToRemove": ["lasso2d", "select2d"],
    "toImageButtonOptions": {"format": "png", "scale": 3},
}


def group_colors(arms: Sequence[str]) -> Mapping[str, str]:
    """A colour for each arm, greys for the baselines."""
    return {**arm_colors(arms), DEFAULT: INK, BASE: MUTED}


def dressed(figure: go.Figure, height_px: int, **layout: Any) -> go.Figure:
    """The figure with the report's look."""
    figure.update_layout(
        template="plotly_white",
        paper_bgcolor=CLEAR,
        plot_bgcolor=CLEAR,
        height=height_px,
        font={"family": FONT, "size": 13, "color": INK},
        margin={"l": 64, "r": 24, "t": 72, "b": 56},
        legend={"orientation": "h", "yanchor": "top", "y": 0.99, "yref": "container", "x": 0},
        hoverlabel={"font": {"family": FONT, "size": 12}},
        modebar={"bgcolor": CLEAR, "color": MUTED, "activecolor": INK},
    )
    figure.update_layout(**layout)
    figure.update_xaxes(gridcolor=FAINT, zeroline=False, automargin=True)
    figure.update_yaxes(gridcolor=FAINT, zeroline=False, automargin=True)
    return figure


class Marks:
    """Straight lines and bands over a figure's panels, drawn all at once.

    Plotly's own `add_hline` and friends check every trace at each call, which takes seconds.
    """

    def __init__(self, figure: go.Figure) -> None:
        self._figure = figure
        self._shapes: list[dict[str, Any]] = []
        self._notes: list[dict[str, Any]] = []

    def horizontal(self, y: float, row: int, column: int, **line: Any) -> None:
        x_axis, y_axis = self._axes(row, column)
        ends = {"x0": 0, "x1": 1, "xref": f"{x_axis} domain", "y0": y, "y1": y, "yref": y_axis}
        self._shapes.append({"type": "line", **ends, "line": line})

    def vertical(self, x: float, row: int, column: int, text: str = "", **line: Any) -> None:
        """A line with a text along its upper end."""
        x_axis, y_axis = self._axes(row, column)
        ends = {"x0": x, "x1": x, "xref": x_axis, "y0": 0, "y1": 1, "yref": f"{y_axis} domain"}
        self._shapes.append({"type": "line", **ends, "line": line})
        place = {"x": x, "xref": x_axis, "y": 1, "yref": f"{y_axis} domain"}
        anchor = {"xanchor": "left", "yanchor": "top", "textangle": -90, "showarrow": False}
        font = {"size": 11, "color": MUTED}
        self._notes.append({"text": text, **place, **anchor, "font": font, "bgcolor": HAZE})

    def band(self, low: float, high: float, row: int, column: int, color: str) -> None:
        """A horizontal band."""
        x_axis, y_axis = self._axes(row, column)
        ends = {"x0": 0, "x1": 1, "xref": f"{x_axis} domain", "y0": low, "y1": high}
        look = {"yref": y_axis, "fillcolor": color, "line": {"width": 0}}
        self._shapes.append({"type": "rect", **ends, **look})

    def draw(self) -> None:
        known = [note.to_plotly_json() for note in self._figure.layout.annotations]
        self._figure.update_layout(shapes=self._shapes, annotations=[*known, *self._notes])

    def _axes(self, row: int, column: int) -> tuple[str, str]:
        """Names of a panel's axes, of the left one where it has two."""
        panel = self._figure.get_subplot(row, column)
        panel = panel[0] if isinstance(panel[0], tuple) else panel
        names = (axis.plotly_name.replace("axis", "") for axis in panel)
        return next(names), next(names)


def faded(color: str, opacity: float) -> str:
    """`#RRGGBB` as CSS with an opacity."""
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"


def shown_name(group: str) -> str:
    """An arm or a baseline as figures and tables write it."""
    return BASELINE_NAMES.get(group, group.replace("_", " "))
