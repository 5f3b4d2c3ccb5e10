"""The figures that people paste into papers and slides, as PNG in the run's `figures/`.

The page has the same ones to explore; these stand alone, with their units and numbers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from hsf_tune import figures
from hsf_tune.figures.canvas import blank
from hsf_tune.figures.palette import FAINT, INK, MUTED
from hsf_tune.finetuning.strategy import strategy_key
from hsf_tune.records import BASE, DEFAULT
from hsf_tune.report.differences import title_of
from hsf_tune.report.run import Run
from hsf_tune.report.style import group_colors, shown_name
from hsf_tune.verdict.scores import Confirmed

JITTER = 0.12  # sideways, so that subjects of equal Dice stay apart


def write_pictures(run: Run) -> list[Path]:
    """Draw what the records allow; the paths of what was written."""
    drawn: dict[str, Figure] = {}
    if run.verdict.differences:
        drawn["differences"] = differences_picture(run)
        drawn["confirmed_dice"] = levels_picture(run)
    if run.explored:
        drawn["race"] = race_picture(run)
    folder = run.files.pictures
    return [figures.save(figure, folder / f"{name}.png") for name, figure in drawn.items()]


def differences_picture(run: Run) -> Figure:
    """95 % (thin) and 90 % (thick) intervals of all tests over the margins' bands."""
    tests, margins = run.verdict.differences, run.config.verdict
    figure = blank(1.3 + 0.36 * len(tests), "Confirmed differences of Dice")
    axes = figure.subplots()
    axes.axvspan(-margins.equivalent, margins.equivalent, color="#EEEEEE", lw=0)
    axes.axvspan(-margins.superior, margins.superior, color=FAINT, lw=0)
    axes.axvline(0, color=INK, lw=1)
    looks = {"superior": "#009E73", "equivalent": "#0072B2", "undecided": MUTED}
    for y, d in enumerate(tests):
        axes.plot(d.ci95, [y, y], color=looks[d.status], lw=1.5)
        axes.plot(d.ci90, [y, y], color=looks[d.status], lw=4, solid_capstyle="butt")
        axes.plot([d.mean], [y], "o", color="white", mec=looks[d.status], mew=2, ms=7)
        axes.annotate(f" {d.status}", (d.ci95[1], y), fontsize=8, color=MUTED, va="center")
    axes.set_yticks(range(len(tests)), [title_of(d) for d in tests], fontsize=9)
    axes.invert_yaxis()
    axes.set_xlabel(f"difference of Dice ({tests[0].n_subjects} subjects)", color=INK)
    _dress(axes, "x")
    return figure


def levels_picture(run: Run) -> Figure:
    """Confirmed Dice of each subject: the best strategy of each arm, and the baselines."""
    columns: dict[str, Confirmed] = dict(run.verdict.best)
    for name, one in ((DEFAULT, run.confirmation.default), (BASE, run.confirmation.base)):
        if one is not None:
            columns[name] = one
    colors = group_colors(run.arms)
    figure = blank(4.6, "Confirmed Dice of each subject (best strategy of each arm)")
    axes = figure.subplots()
    for x, (name, one) in enumerate(columns.items()):
        values = np.array([np.nanmean(row) for row in one.dice if not np.isnan(row).all()])
        shifts = np.linspace(-JITTER, JITTER, len(values)) if len(values) > 1 else np.zeros(1)
        axes.plot(x + shifts, np.sort(values), "o", color=colors[name], ms=5, alpha=0.6, mew=0)
        axes.plot([x - 0.25, x + 0.25], [values.mean()] * 2, color=INK, lw=2)
        axes.annotate(f"{values.mean():.3f}", (x + 0.28, values.mean()), fontsize=9, va="center")
    axes.set_xticks(range(len(columns)), [shown_name(name) for name in columns])
    axes.set_xlim(-0.5, len(columns) - 0.3)
    axes.set_ylabel("Dice", color=INK)
    _dress(axes, "y")
    return figure


def race_picture(run: Run) -> Figure:
    """Mean Dice of each strategy over the folds it has run; finalists are drawn strongly."""
    arms = [a for a in run.arms if any(e.arm == a for e in run.explored)]
    colors = group_colors(run.arms)
    figure = blank(3.8, "The race over folds")
    panels = figure.subplots(1, max(1, len(arms)), sharey=True, squeeze=False)[0]
    for axes, arm in zip(panels, arms, strict=False):
        chosen = {strategy_key(s) for s in run.finalists.get(arm, [])}
        for one in (e for e in run.explored if e.arm == arm):
            folds = sorted(one.dice_of_fold)
            running = np.cumsum([one.dice_of_fold[f] for f in folds]) / np.arange(1, len(folds) + 1)
            strong = one.key in chosen
            look = {"lw": 2.2, "ms": 5} if strong else {"lw": 0.9, "ms": 3, "alpha": 0.4}
            axes.plot(folds, running, "o-", color=colors[arm], **look)
        axes.set_title(arm, fontsize=10, color=INK, parse_math=False)
        axes.set_xlabel("fold", color=INK)
        axes.set_xticks(range(1, 1 + max(max(e.dice_of_fold) for e in run.explored)))
        _dress(axes, "y")
    panels[0].set_ylabel("mean Dice so far", color=INK)
    return figure


def _dress(axes: Any, grid: str) -> None:
    axes.grid(axis=grid, color=FAINT, lw=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
