"""Do the predicted volumes agree with the manual ones? Bland-Altman and ICC, by label.

Volumes are what users publish. The unit is the subject: its cases (sides, contrasts)
and seeds are averaged, out of fold.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.subplots import make_subplots
from scipy import stats

from hsf_tune.figures.palette import INK, MUTED, label_color
from hsf_tune.records import TrialRecord, subject_means
from hsf_tune.report.style import Marks, dressed

PREDICTED, MANUAL = "volume_mm3", "reference_volume_mm3"
COLUMNS = 4


@dataclass(frozen=True, eq=False)
class Agreement:
    """Predicted and manual volumes of one label.

    Attributes:
        predicted, manual: (subjects,) mm3, mean over a subject's cases.
        bias: mean of predicted - manual, mm3.
        limits: 95 % limits of agreement, mm3.
        icc: ICC(A,1), absolute agreement of single measures; nan below three subjects.
    """

    label: str
    subjects: tuple[str, ...]
    predicted: NDArray[np.float64]
    manual: NDArray[np.float64]
    bias: float
    limits: tuple[float, float]
    icc: float
    icc95: tuple[float, float]

    @property
    def bias_percent(self) -> float:
        return 100 * self.bias / float(self.manual.mean()) if self.manual.mean() else math.nan


def agreements(trials: Iterable[TrialRecord]) -> list[Agreement]:
    """One strategy's agreement, label by label, in the order the labels were scored.

    Source: Bland and Altman 1986, doi:10.1016/S0140-6736(86)90837-8.
    """
    scores = [s for t in trials if t.ended for s in t.ended.scores]
    labels = dict.fromkeys(s.label for s in scores if s.metric == PREDICTED)
    found = []
    for label in labels:
        rows = [s for s in scores if s.label == label]
        predicted, manual = subject_means(rows, PREDICTED), subject_means(rows, MANUAL)
        subjects = tuple(sorted(predicted.keys() & manual.keys()))
        if subjects:
            a = np.array([predicted[s] for s in subjects])
            b = np.array([manual[s] for s in subjects])
            found.append(_agreement(label, subjects, a, b))
    return found


def _agreement(
    label: str, subjects: tuple[str, ...], a: NDArray[np.float64], b: NDArray[np.float64]
) -> Agreement:
    difference = a - b
    bias = float(difference.mean())
    half = 1.96 * float(difference.std(ddof=1)) if len(a) > 1 else math.nan
    icc, icc95 = absolute_agreement(np.column_stack([a, b]))
    return Agreement(label, subjects, a, b, bias, (bias - half, bias + half), icc, icc95)


def absolute_agreement(ratings: NDArray[np.float64]) -> tuple[float, tuple[float, float]]:
    """ICC(A,1) with its 95 % interval: two-way, absolute agreement, single measures.

    Args:
        ratings: (subjects, raters).

    Returns:
        nan with fewer than three subjects, or where nothing varies.

    Source: McGraw and Wong 1996, doi:10.1037/1082-989X.1.1.30, tables 4 and 7.
    """
    n, k = ratings.shape
    nothing = math.nan, (math.nan, math.nan)
    if n < 3:
        return nothing
    grand = ratings.mean()
    rows, columns = ratings.mean(axis=1), ratings.mean(axis=0)
    residual = ratings - rows[:, None] - columns + grand
    ms_rows = k * float(((rows - grand) ** 2).sum()) / (n - 1)
    ms_columns = n * float(((columns - grand) ** 2).sum()) / (k - 1)
    ms_error = float((residual**2).sum()) / ((n - 1) * (k - 1))
    below = ms_rows + (k - 1) * ms_error + k / n * (ms_columns - ms_error)
    if below <= 0:
        return nothing
    icc = (ms_rows - ms_error) / below
    if ms_error == 0 or icc == 1:
        return icc, (math.nan, math.nan)
    a = k * icc / (n * (1 - icc))
    b = 1 + k * icc * (n - 1) / (n * (1 - icc))
    df = (a * ms_columns + b * ms_error) ** 2 / (
        (a * ms_columns) ** 2 / (k - 1) + (b * ms_error) ** 2 / ((n - 1) * (k - 1))
    )
    f_low, f_high = stats.f.ppf(0.975, n - 1, df), stats.f.ppf(0.975, df, n - 1)
    shared = k * ms_columns + (k * n - k - n) * ms_error
    low = n * (ms_rows - f_low * ms_error) / (f_low * shared + n * ms_rows)
    high = n * (f_high * ms_rows - ms_error) / (shared + n * f_high * ms_rows)
    return icc, (float(low), float(high))


def agreement_figure(found: list[Agreement]) -> go.Figure:
    """Bland-Altman: difference against mean of the two volumes, one panel a label."""
    columns = min(COLUMNS, len(found))
    rows = -(-len(found) // columns)
    figure = make_subplots(
        rows=rows,
        cols=columns,
        subplot_titles=[f.label for f in found],
        horizontal_spacing=0.07,
        vertical_spacing=0.24 / rows,
    )
    marks = Marks(figure)
    for i, one in enumerate(found):
        row, column = i // columns + 1, i % columns + 1
        figure.add_trace(
            go.Scatter(
                x=(one.predicted + one.manual) / 2,
                y=one.predicted - one.manual,
                mode="markers",
                marker={"color": label_color(i + 1), "size": 8, "line": {"width": 0.5}},
                text=one.subjects,
                showlegend=False,
                hovertemplate="%{text}<br>mean %{x:.0f} mm³, difference %{y:+.0f} mm³"
                "<extra></extra>",
            ),
            row=row,
            col=column,
        )
        limits = [limit for limit in one.limits if math.isfinite(limit)]
        marks.horizontal(0, row, column, color=MUTED, width=1)
        marks.horizontal(one.bias, row, column, color=INK, width=1.5)
        for limit in limits:
            marks.horizontal(limit, row, column, color=INK, width=1, dash="dash")
        shown = [0.0, *limits, *(one.predicted - one.manual)]
        margin = 0.08 * (max(shown) - min(shown)) or 1.0
        figure.update_yaxes(range=[min(shown) - margin, max(shown) + margin], row=row, col=column)
    marks.draw()
    figure.update_xaxes(title_text="mean volume, mm³", row=rows)
    figure.update_yaxes(title_text="predicted − manual, mm³", col=1)
    return dressed(figure, 70 + 250 * rows)
