"""What was tested: its name, its result, and each subject's difference."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

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


def result_of(difference: Difference) -> str:
    """What a test says, in a word or two; a star where several tests were corrected for."""
    star = " *" if difference.corrected else ""
    if difference.better:
        return f"{shown_name(difference.better)} better{star}"
    words = {"equivalent": "no difference"}.get(difference.status, difference.status)
    return words.replace("_", " ") + star


def subjects_figure(run: Run) -> go.Figure:
    """Each subject's difference in the main tests, sorted, with mean and 95 % interval."""
    tested = run.verdict.differences
    chosen = ([d for d in tested if d.between[1] != BASE] or tested)[:3]
    figure = make_subplots(
        cols=len(chosen),
        subplot_titles=[title_of(d).replace(" (", "<br>(") for d in chosen],
        horizontal_spacing=0.06,
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
        figure.update_xaxes(showticklabels=few, tickangle=-90, tickfont_size=11, col=column)
        if not few:
            figure.update_xaxes(title_text=f"{len(ranked)} subjects", col=column)
    marks.draw()
    figure.update_yaxes(tickformat="+.3f")
    figure.update_yaxes(title_text="difference of Dice", col=1)
    figure.update_annotations(font_size=13)
    return dressed(figure, 400)
