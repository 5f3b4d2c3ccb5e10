"""The figures that people paste into papers and slides, as PNG in the run's `figures/`.

The page shows the same ones, drawn without their titles.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from hsf_tune import figures
from hsf_tune.figures.canvas import WIDTH_IN, blank
from hsf_tune.figures.palette import FAINT, INK, MUTED
from hsf_tune.report.differences import result_of, title_of
from hsf_tune.report.run import Run
from hsf_tune.report.style import ARM_GLOSSES, group_colors, shown_name
from hsf_tune.report.summary import compared_strategies, level_of
from hsf_tune.strategy import strategy_key

GOLDEN = 0.618034  # multiples of it, modulo 1, spread evenly: subjects of equal Dice stay apart
WIDEST_LINEAR = 15  # margins beside 0 that an axis may span before they become too thin to see
LOOKS = {"superior": "#009E73", "equivalent": "#0072B2"}
TICKS = np.array([0.01, 0.03, 0.1, 0.3, 1.0])


def write_pictures(run: Run) -> list[Path]:
    """Draw what the records allow; the paths of what was written."""
    drawn: dict[str, Figure] = {}
    if run.verdict.differences:
        drawn["differences"] = differences_picture(run, "Confirmed differences of Dice")
        title = "Confirmed Dice: mean with 95 % interval, and each subject"
        drawn["confirmed_dice"] = levels_picture(run, title)
    if run.explored:
        drawn["race"] = race_picture(run, "The race over folds")
    folder = run.files.inside(run.files.pictures.name)
    return [figures.save(figure, folder / f"{name}.png") for name, figure in drawn.items()]


def differences_picture(run: Run, title: str = "") -> Figure:
    """95 % (thin) and 90 % (thick) intervals of all tests over the margins' bands."""
    tests, margins = run.verdict.differences, run.config.verdict
    figure = blank(1.5 + 0.36 * len(tests), title)
    axes = figure.subplots()
    bands = []
    for limit, shade, text in (
        (margins.equivalent, 0.16, "90 % interval (thick) inside: no difference that matters"),
        (margins.superior, 0.24, "95 % interval (thin) beyond: better"),
    ):
        axes.axvspan(-limit, limit, color=MUTED, alpha=shade, lw=0)
        bands.append(Patch(color=MUTED, alpha=shade, label=f"±{limit:g}, {text}"))
    axes.axvline(0, color=INK, lw=1)
    for y, d in enumerate(tests):
        color = LOOKS.get(d.status, MUTED)
        axes.plot(d.ci95, [y, y], color=color, lw=1.5)
        axes.plot(d.ci90, [y, y], color=color, lw=4, solid_capstyle="butt")
        axes.plot([d.mean], [y], "o", color="white", mec=color, mew=2, ms=7)
        _beside(axes, y, result_of(d))
    axes.set_yticks(range(len(tests)), [title_of(d) for d in tests], fontsize=10, parse_math=False)
    axes.invert_yaxis()
    widest = max(max(map(abs, (*d.ci95, *d.ci90))) for d in tests)
    unit = f"difference of Dice ({tests[0].n_subjects} subjects)"
    if widest > WIDEST_LINEAR * margins.equivalent:
        unit += f"; beyond ±{margins.equivalent:g} the scale is logarithmic"
        axes.set_xscale("symlog", linthresh=margins.equivalent, linscale=0.6)
        ends = axes.get_xlim()
        ticks = [t for t in (*-TICKS[::-1], 0.0, *TICKS) if ends[0] <= t <= ends[1]]
        axes.set_xticks(ticks, [f"{t:+g}".replace("-", "−") if t else "0" for t in ticks])
        axes.minorticks_off()
    axes.set_xlabel(unit, color=INK, fontsize=10)
    figure.legend(handles=bands, loc="outside lower center", ncols=2, fontsize=9.5, frameon=False)
    _dress(axes, "x")
    return figure


def levels_picture(run: Run, title: str = "", width_in: float = WIDTH_IN) -> Figure:
    """Confirmed Dice of the best strategy of each arm and of the baselines, and each subject's."""
    rows = compared_strategies(run)
    colors = group_colors(run.arms)
    figure = blank(0.75 + 0.41 * len(rows), title, width_in)
    axes = figure.subplots()
    for y, (name, confirmed) in enumerate(rows.items()):
        values = np.array([np.nanmean(row) for row in confirmed.dice if not np.isnan(row).all()])
        level, color = level_of(confirmed.dice, run.confirmation), colors.get(name, MUTED)
        shifts = (np.arange(len(values)) * GOLDEN % 1 - 0.5) * 0.5
        axes.plot(np.sort(values), y + shifts, "o", color=color, ms=4.5, alpha=0.45, mew=0)
        axes.plot(level.ci95, [y, y], color=color, lw=2.5, solid_capstyle="butt")
        axes.plot([level.mean], [y], "o", color="white", mec=color, mew=2.5, ms=9)
        _beside(axes, y, f"{level.mean:.3f}", fontsize=10.5, color=INK)
    names = [shown_name(name) + ARM_GLOSSES.get(name, "") for name in rows]
    axes.set_yticks(range(len(rows)), names, fontsize=10.5, parse_math=False)
    for text, name in zip(axes.get_yticklabels(), rows, strict=True):
        text.set_color(colors.get(name, INK) if name in run.arms else INK)
    axes.set_ylim(len(rows) - 0.45, -0.55)
    axes.set_xlabel("Dice, on subjects that the training has not seen", color=INK, fontsize=10)
    _dress(axes, "x")
    return figure


def race_picture(run: Run, title: str = "") -> Figure:
    """Mean Dice of each strategy over the folds it has run; finalists are drawn strongly."""
    arms = [a for a in run.arms if any(e.arm == a for e in run.explored)]
    colors = group_colors(run.arms)
    figure = blank(3.8, title)
    panels = figure.subplots(1, max(1, len(arms)), sharey=True, squeeze=False)[0]
    for axes, arm in zip(panels, arms, strict=False):
        chosen = {strategy_key(s) for s in run.finalists.get(arm, [])}
        for explored in (e for e in run.explored if e.arm == arm):
            folds = sorted(explored.dice_of_fold)
            scores = [explored.dice_of_fold[f] for f in folds]
            running = np.cumsum(scores) / np.arange(1, len(folds) + 1)
            strong = explored.key in chosen
            look = {"lw": 2.2, "ms": 5} if strong else {"lw": 0.9, "ms": 3, "alpha": 0.4}
            axes.plot(folds, running, "o-", color=colors[arm], **look)
        axes.set_title(arm, fontsize=11, color=INK, parse_math=False)
        axes.set_xlabel("fold", color=INK, fontsize=10)
        axes.set_xticks(range(1, 1 + max(max(e.dice_of_fold) for e in run.explored)))
        _dress(axes, "y")
    panels[0].set_ylabel("mean Dice so far", color=INK, fontsize=10)
    return figure


def _beside(axes: Any, y: float, text: str, **look: Any) -> None:
    """A text to the right of the axes, at a row's height."""
    place = {"xycoords": ("axes fraction", "data"), "va": "center", "annotation_clip": False}
    axes.annotate(
        text, (1.01, y), **place, **{"fontsize": 9.5, "color": MUTED, "parse_math": False, **look}
    )


def _dress(axes: Any, grid: str) -> None:
    axes.grid(axis=grid, color=FAINT, lw=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
