"""How the report's Plotly figures look: one font, one palette, no clutter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from hsf_tune.figures.palette import FAINT, INK, MUTED, arm_colors

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
BASELINE_NAMES = {"base": "unchanged base", "documented_default": "documented default"}
PLOT_CONFIG = {
    "responsive": True,
    "displaylogo": False,
    "modeBarButtonsToRemove": ["lasso2d", "select2d"],
    "toImageButtonOptions": {"format": "png", "scale": 3},
}


def group_colors(arms: Sequence[str]) -> Mapping[str, str]:
    """A colour for each arm, greys for the baselines."""
    return {**arm_colors(arms), "documented_default": INK, "base": MUTED}


def dressed(figure: go.Figure, height_px: int, **layout: Any) -> go.Figure:
    """The figure with the report's look."""
    figure.update_layout(
        template="plotly_white",
        height=height_px,
        font={"family": FONT, "size": 13, "color": INK},
        margin={"l": 64, "r": 24, "t": 72, "b": 56},
        legend={"orientation": "h", "yanchor": "top", "y": 0.99, "yref": "container", "x": 0},
        hoverlabel={"font": {"family": FONT, "size": 12}},
    )
    figure.update_layout(**layout)
    figure.update_xaxes(gridcolor=FAINT, zeroline=False, automargin=True)
    figure.update_yaxes(gridcolor=FAINT, zeroline=False, automargin=True)
    return figure


def faded(color: str, opacity: float) -> str:
    """`#RRGGBB` as CSS with an opacity."""
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"


def shown_name(group: str) -> str:
    """An arm or a baseline as figures and tables write it."""
    return BASELINE_NAMES.get(group, group)
