"""Figures of what was tested: intervals against the margins, and each subject's difference."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from hsf_tune.config import VerdictConfig
from hsf_tune.figures.palette import INK, MUTED
from hsf_tune.records import BASE, DEFAULT
from hsf_tune.report.run import Run
from hsf_tune.report.style import Marks, dressed, faded, group_colors, shown_name
from hsf_tune.verdict.claims import Difference

MOST_NAMED = 24  # subjects whose names fit under a panel


def title_of(difference: Difference) -> str:
    """What is compared with what, and as what."""
    a, b = (shown_name(name) for name in difference.between)
    claim = "arms" if difference.claim == "arm" else "best strategies"
    if difference.between[1] in (BASE, DEFAULT):
        claim = "strategy"
    return f"{a} − {b} ({claim})"


def intervals_figure(differences: Sequence[Difference], margins: VerdictConfig) -> go.Figure:
    """95 % intervals (thin) and 90 % intervals (thick) of all tests, first test on top."""
    figure = go.Figure()
    names = [title_of(d) for d in differences]
    for limit, opacity in ((margins.equivalent, 0.10), (margins.superior, 0.14)):
        figure.add_vrect(x0=-limit, x1=limit, fillcolor=faded(MUTED, opacity), line_width=0)
    looks = {"superior": "#009E73", "equivalent": "#0072B2", "undecided": MUTED}
    for status, color in looks.items():
        chosen = [(n, d) for n, d in zip(names, differences, strict=True) if d.status == status]
        for which, width in (("ci95", 2), ("ci90", 6)):
            x: list[float | None] = []
            y: list[str | None] = []
            for name, d in chosen:
                x += [*getattr(d, which), None]
                y += [name, name, None]
            figure.add_trace(
                go.Scatter(
                    x=x, y=y, mode="lines", line={"color": color, "width": width},
                    showlegend=False, hoverinfo="skip",
                )
            )  # fmt: skip
        figure.add_trace(
            go.Scatter(
                x=[d.mean for _, d in chosen],
                y=[n for n, _ in chosen],
                mode="markers",
                marker={"color": "white", "size": 9, "line": {"color": color, "width": 2.5}},
                name=status,
                showlegend=bool(chosen),
                customdata=[[*d.ci95, d.p_value, d.n_subjects] for _, d in chosen],
                hovertemplate="%{y}<br>%{x:+.4f}, 95 % interval %{customdata[0]:+.4f} to "
                "%{customdata[1]:+.4f}<br>p %{customdata[2]:.3g}, %{customdata[3]} subjects"
                "<extra></extra>",
            )
        )
    figure.add_vline(x=0, line={"color": INK, "width": 1})
    figure.update_yaxes(categoryorder="array", categoryarray=names[::-1])
    figure.update_xaxes(title_text="difference of Dice", tickformat="+.3f")
    return dressed(figure, 130 + 34 * len(differences))


def subjects_figure(run: Run) -> go.Figure:
    """Each subject's difference in the main tests, sorted, with mean and 95 % interval."""
    tested = run.verdict.differences
    chosen = ([d for d in tested if d.between[1] != BASE] or tested)[:3]
    figure = make_subplots(
        cols=len(chosen), subplot_titles=[title_of(d) for d in chosen], horizontal_spacing=0.06
    )
    colors, marks = group_colors(run.arms), Marks(figure)
    for column, d in enumerate(chosen, start=1):
        ranked = sorted(d.of_subject.items(), key=lambda item: item[1])
        values = np.array([value for _, value in ranked])
        signs = [colors.get(d.between[0 if v > 0 else 1], MUTED) for v in values]
        figure.add_trace(
            go.Bar(
                x=[subject for subject, _ in ranked],
                y=values,
                marker={"color": signs},
                showlegend=False,
                hovertemplate="%{x}: %{y:+.4f}<extra></extra>",
            ),
            row=1,
            col=column,
        )
        marks.band(*d.ci95, row=1, column=column, color=faded(MUTED, 0.28))
        marks.horizontal(d.mean, 1, column, color=INK, width=1.5)
        marks.horizontal(0, 1, column, color=INK, width=1, dash="dot")
        few = len(ranked) <= MOST_NAMED
        figure.update_xaxes(showticklabels=few, tickangle=-90, tickfont_size=10, col=column)
        if not few:
            figure.update_xaxes(title_text=f"{len(ranked)} subjects", col=column)
    marks.draw()
    figure.update_yaxes(tickformat="+.3f")
    figure.update_yaxes(title_text="difference of Dice", col=1)
    figure.update_annotations(font_size=13)
    return dressed(figure, 400)
