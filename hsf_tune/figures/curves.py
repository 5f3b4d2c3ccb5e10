"""The learning curve of one trial: losses and Dice, with the openings of blocks marked."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from hsf_tune.figures.canvas import blank
from hsf_tune.figures.palette import ARM_COLORS, FAINT, INK, MUTED, label_color


def learning_curve(
    epochs: Sequence[int],
    *,
    train_loss: Sequence[float],
    val_loss: Sequence[float],
    val_dice: Sequence[float],
    openings: Mapping[str, int],
    title: str = "",
    dice_by_label: Mapping[str, Sequence[float]] | None = None,
    best_epoch: int | None = None,
) -> Figure:
    """Losses and validation Dice over the epochs, with each opening of a block marked.

    Args:
        epochs: (E,) epoch numbers, from 0; may be empty.
        train_loss, val_loss, val_dice: (E,) values; nan where there is none.
        openings: block name -> epoch at which it starts to train. Openings after the last
            epoch drawn (a trial that ended early) are left out.
        dice_by_label: label name -> (E,) values, in the order of the label indices.
        best_epoch: gets a ring on the Dice curve; the last epoch's value is written there.

    Raises:
        ValueError: a series is not as long as `epochs`.
    """
    by_label = dict(dice_by_label or {})
    _same_length(epochs, train_loss=train_loss, val_loss=val_loss, val_dice=val_dice, **by_label)
    figure = blank(5.0, title)
    left, right = figure.subplots(1, 2, sharex=True)
    _curve(left, epochs, train_loss, "training", MUTED, style="--")
    _curve(left, epochs, val_loss, "validation", ARM_COLORS["encoder"])
    for number, (name, values) in enumerate(by_label.items(), start=1):
        _curve(right, epochs, values, name, label_color(number), width=1.2, marker="")
    _curve(right, epochs, val_dice, "mean" if by_label else "validation", INK, width=2.2)
    _mark_best_and_last(right, epochs, val_dice, best_epoch)
    for axes, name in ((left, "loss"), (right, "validation Dice")):
        _dress(axes, epochs, name)
        _mark_openings(axes, epochs, openings)
    return figure


def _same_length(epochs: Sequence[int], **series: Sequence[float]) -> None:
    for name, values in series.items():
        if len(values) != len(epochs):
            raise ValueError(f"{name} has {len(values)} values for {len(epochs)} epochs.")


def _curve(
    axes: Any, epochs: Sequence[int], values: Sequence[float], name: str, color: str,
    *, width: float = 1.8, style: str = "-", marker: str = "o",
) -> None:  # fmt: skip
    numbers = np.asarray(values, dtype=float)
    if np.isfinite(numbers).any():
        look = {"color": color, "lw": width, "marker": marker, "ms": 3.5}
        axes.plot(epochs, numbers, style, label=name, **look)


def _mark_best_and_last(
    axes: Any, epochs: Sequence[int], dice: Sequence[float], best_epoch: int | None
) -> None:
    """The last epoch ranks, so its value is written; the best one gets a ring."""
    known = {e: v for e, v in zip(epochs, dice, strict=True) if math.isfinite(v)}
    if not known:
        return
    last = max(known)
    place = {"xytext": (9, 0), "textcoords": "offset points", "va": "center"}
    axes.annotate(f"{known[last]:.3f}", (last, known[last]), fontsize=9, color=INK, **place)
    if best_epoch in known:
        best = known[best_epoch]
        text = f"best: {best:.3f} (epoch {best_epoch})"
        axes.plot([best_epoch], [best], "o", ms=10, mfc="none", mec=INK, label=text)


def _mark_openings(axes: Any, epochs: Sequence[int], openings: Mapping[str, int]) -> None:
    """A dotted line where a block starts to train, its name above the curves."""
    last = max(epochs, default=-1)
    for name, epoch in openings.items():
        if epoch > last:
            continue
        axes.axvline(epoch, color=MUTED, lw=1.0, ls=":", zorder=0, label="_opening")
        axes.annotate(
            f"{name} opens", (epoch, 1), xycoords=("data", "axes fraction"), xytext=(-3, 3),
            textcoords="offset points", rotation=40, rotation_mode="anchor", ha="left",
            va="bottom", fontsize=8, color=MUTED,
        )  # fmt: skip


def _dress(axes: Any, epochs: Sequence[int], name: str) -> None:
    axes.set_xlabel("epoch", color=INK)
    axes.set_ylabel(name, color=INK)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color=FAINT, lw=0.6)
    axes.set_axisbelow(True)
    if len(epochs):
        first, last = min(epochs), max(epochs)
        axes.set_xlim(first - 0.5, last + max(0.5, 0.1 * (last - first)))
    if axes.lines:
        axes.legend(fontsize=8.5, frameon=False, loc="best")
    else:
        middle = {"transform": axes.transAxes, "ha": "center", "va": "center"}
        axes.text(0.5, 0.5, "no epoch was recorded", color=MUTED, **middle)
        axes.set(xticks=[], yticks=[])
