"""Fill the template of the page, which then needs nothing else, not even a network.

What stands where, and every word that does not depend on the run, is in `page.html`.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping
from typing import Any

import plotly.graph_objects as go
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure
from plotly.io import to_html
from plotly.offline import get_plotlyjs

from hsf_tune.report.style import PLOT_CONFIG


def render(contents: Mapping[str, Any]) -> str:
    """The whole page: plotly.js, styles and pictures inside."""
    page = Environment(
        loader=PackageLoader("hsf_tune", "report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    page.filters["anchor"] = lambda heading: re.sub(r"[^a-z]+", "-", heading.lower()).strip("-")
    page.globals.update(plot=_plot, drawing=_drawing, plotly_js=lambda: Markup(get_plotlyjs()))
    return page.get_template("page.html").render(contents)


def encoded(figure: Figure, kind: str = "png", dots_per_inch: float = 110) -> str:
    """A figure as the text of an image that stands in the page."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, dpi=dots_per_inch, transparent=kind == "svg")
    mime = "svg+xml" if kind == "svg" else kind
    return f"data:image/{mime};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _plot(name: str, figure: go.Figure) -> Markup:
    """An interactive figure; `name` becomes its element's id."""
    html = to_html(
        figure,
        full_html=False,
        include_plotlyjs=False,
        config=PLOT_CONFIG,
        div_id=f"plot-{name}",
        default_width="100%",
        default_height=f"{figure.layout.height}px",
    )
    return Markup('<div class="plot">{}</div>').format(Markup(html))


def _drawing(name: str, figure: Figure, text: str) -> Markup:
    """A figure that stands still, sharp at every size; `text` is for those who can't see it."""
    return Markup('<img class="drawing" id="plot-{}" alt="{}" src="{}">').format(
        name, text, encoded(figure, "svg")
    )
