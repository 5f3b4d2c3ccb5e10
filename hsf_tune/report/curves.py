"""Learning curves of the finalists, and whether the loss had settled before each opening."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.subplots import make_subplots

from hsf_tune.figures.palette import MUTED
from hsf_tune.records import TrialRecord
from hsf_tune.report.run import Run
from hsf_tune.report.style import Marks, dressed, faded, group_colors
from hsf_tune.strategy import FREQUENCY, describe

SETTLED = 0.02  # a loss that falls by less than this share an epoch has settled
PANEL_HEIGHT_PX = 270

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Curves:
    """A strategy's curves, averaged over its trainings (folds and seeds).

    Attributes:
        epochs: (E,) counted from 0.
        openings: block -> epoch at which it opens; without the final convolution.
        metrics: name -> (E,); nan where no training has it.
    """

    arm: str
    strategy: Mapping[str, Any]
    epochs: NDArray[np.int64]
    openings: Mapping[str, int]
    metrics: Mapping[str, Floats]
    n_trainings: int


def mean_curves(arm: str, strategy: Mapping[str, Any], trials: Sequence[TrialRecord]) -> Curves:
    """Average a strategy's trainings epoch by epoch."""
    last = max((max(t.epochs) for t in trials if t.epochs), default=-1)
    epochs = np.arange(last + 1)
    metrics = {}
    for name in ("train_loss", "val_loss", "val_dice"):
        rows = np.full((len(trials), last + 1), np.nan)
        for row, trial in zip(rows, trials, strict=True):
            steps, values = trial.curve(name)
            row[steps] = values
        metrics[name] = _mean_over_rows(rows)
    openings = {b: e for b, e in trials[0].started.opening_epochs.items() if e > 0}
    return Curves(arm, strategy, epochs, openings, metrics, len(trials))


def _mean_over_rows(rows: Floats) -> Floats:
    known = ~np.isnan(rows)
    counts = known.sum(axis=0)
    sums = np.where(known, rows, 0.0).sum(axis=0)
    return np.divide(sums, counts, out=np.full(rows.shape[1], np.nan), where=counts > 0)


def unsettled(curves: Curves) -> list[str] | None:
    """A sentence for a strategy whose loss was still falling before a block opened.

    None where no stage could be judged.

    The loss has settled where it fell by less than 2 % an epoch over the second half of
    the stage before the opening. A stage of one epoch can't be judged.
    """
    loss = curves.metrics["train_loss"]
    starts = [0, *sorted(curves.openings.values())]
    early, judged = [], 0
    for number, (start, end) in enumerate(itertools.pairwise(starts), start=1):
        if end - start < 2 or end > len(loss):
            continue
        middle = min((start + end) // 2, end - 2)
        first, final = loss[middle], loss[end - 1]
        judged += bool(np.isfinite([first, final]).all())
        if first > 0 and (first - final) / first / (end - 1 - middle) > SETTLED:
            early.append(str(number))
    if not early:
        return [] if judged else None
    blocks = f"block {early[0]}" if len(early) == 1 else f"blocks {', '.join(early)}"
    return [
        f"{describe(curves.strategy)}: the loss had not settled before {blocks} opened; try an"
        f" unfreeze_frequency larger than {curves.strategy.get(FREQUENCY)}."
    ]


def finalists_curves(run: Run) -> list[Curves]:
    """Curves of all finalists that have any, arm by arm."""
    return [
        mean_curves(arm, strategy, trials)
        for arm, strategies in run.finalists.items()
        for strategy in strategies
        if (trials := run.curves_of(strategy))
    ]


def curves_figure(run: Run, curves: Sequence[Curves]) -> go.Figure:
    """One panel a finalist: losses on the left axis, validation Dice on the right one."""
    arms = list(dict.fromkeys(c.arm for c in curves))
    by_arm = {arm: [c for c in curves if c.arm == arm] for arm in arms}
    columns = max(len(members) for members in by_arm.values())
    titles = [
        _in_two_lines(by_arm[arm][i].strategy) if i < len(by_arm[arm]) else ""
        for arm in arms
        for i in range(columns)
    ]
    figure = make_subplots(
        rows=len(arms),
        cols=columns,
        subplot_titles=titles,
        specs=[[{"secondary_y": True}] * columns] * len(arms),
        horizontal_spacing=0.07,
        vertical_spacing=0.28 / len(arms),
    )
    colors, marks = group_colors(run.arms), Marks(figure)
    for row, arm in enumerate(arms, start=1):
        for column, one in enumerate(by_arm[arm], start=1):
            _draw_panel(figure, marks, one, colors.get(arm, MUTED), row, column)
        figure.update_yaxes(title_text="loss", row=row, col=1, secondary_y=False)
        figure.update_yaxes(title_text="Dice", row=row, col=len(by_arm[arm]), secondary_y=True)
    figure.update_annotations(font_size=12)  # the panels' titles
    marks.draw()
    figure.update_xaxes(title_text="epoch", row=len(arms))
    figure.update_yaxes(
        secondary_y=True, showgrid=False, tickformat=".2f", tickmode="auto", nticks=5
    )
    return dressed(figure, 90 + PANEL_HEIGHT_PX * len(arms), margin={"t": 96})


def _in_two_lines(strategy: Mapping[str, Any]) -> str:
    first, _, rest = describe(strategy).partition(", a block")
    return f"{first},<br>a block{rest}" if rest else first


def _draw_panel(
    figure: go.Figure, marks: Marks, one: Curves, color: str, row: int, column: int
) -> None:
    looks = {
        "train_loss": ("training loss", {"color": color, "width": 2.5}, False),
        "val_loss": ("validation loss", {"color": faded(color, 0.55), "width": 2}, False),
        "val_dice": ("validation Dice", {"color": MUTED, "width": 2, "dash": "dot"}, True),
    }
    for metric, (name, line, right) in looks.items():
        figure.add_trace(
            go.Scatter(
                x=one.epochs,
                y=one.metrics[metric],
                name=name,
                line=line,
                legendgroup=name,
                showlegend=row == 1 and column == 1,
                hovertemplate=f"{name} %{{y:.4f}}, epoch %{{x}}<extra></extra>",
            ),
            row=row,
            col=column,
            secondary_y=right,
        )
    for block, epoch in one.openings.items():
        if epoch < len(one.epochs):
            marks.vertical(epoch, row, column, block, color=MUTED, width=1, dash="dash")
