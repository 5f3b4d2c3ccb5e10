"""Figures of the search itself: the race, the strategies, what mattered, what it cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from hsf_tune.figures.palette import FAINT, INK, MUTED
from hsf_tune.records import BASE, DEFAULT
from hsf_tune.report.run import Run
from hsf_tune.report.style import CLEAR, dressed, group_colors, shown_name
from hsf_tune.strategy import LR, describe, strategy_key
from hsf_tune.verdict.scores import Explored, mean_over_subjects

MOST_TICKS = 8  # of an axis, that still can be read
RATES = [float(f"{digit}e{power}") for power in range(-6, 1) for digit in (1, 3)]


def strategies_figure(run: Run) -> go.Figure:
    """Parallel coordinates of all strategies on the exploration's fold 1, in their arms' colours."""
    explored = [e for e in run.explored if 1 in e.dice_of_fold and e.arm in run.arms]
    arms = [arm for arm in run.arms if any(e.arm == arm for e in explored)]
    dimensions = [
        _dimension(key, [e.strategy.get(key) for e in explored]) for key in varied_keys(explored)
    ]
    dimensions.append({"label": "Dice, fold 1", "values": [e.dice_of_fold[1] for e in explored]})
    colors = group_colors(run.arms)
    steps = [(i + end) / len(arms) for i in range(len(arms)) for end in (0, 1)]
    line = {
        "color": [arms.index(e.arm) for e in explored],
        "colorscale": [[at, colors[arms[i // 2]]] for i, at in enumerate(steps)],
        "cmin": -0.5,
        "cmax": len(arms) - 0.5,
        "colorbar": {"tickvals": list(range(len(arms))), "ticktext": arms, "thickness": 16,
                     "tickfont": {"size": 13}, "title": {"text": "arm"}},
        "showscale": True,
    }  # fmt: skip
    figure = go.Figure(
        go.Parcoords(
            dimensions=dimensions,
            line=line,
            labelfont={"size": 14, "color": INK},
            tickfont={"size": 13, "color": INK},
            rangefont={"size": 1, "color": CLEAR},
        )
    )
    return dressed(figure, 400, margin={"l": 60, "r": 30, "t": 60, "b": 30})


def varied_keys(explored: Sequence[Explored]) -> list[str]:
    """Keys that differ between strategies, but for the mode, which the arm names."""
    keys = sorted({key for e in explored for key in e.strategy})
    return [
        key
        for key in keys
        if key != "finetuning.mode" and len({repr(e.strategy.get(key)) for e in explored}) > 1
    ]


def _dimension(key: str, values: Sequence[Any]) -> dict[str, Any]:
    """An axis: logarithmic for rates, with the values as ticks where they are few or words."""
    numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    wide = len(numbers) > 1 and min(numbers) > 0 and max(numbers) / min(numbers) >= 100
    if len(numbers) == len(values) and (key == LR or wide):
        logs = np.log10(np.array(values, dtype=float))
        ticks = [t for t in RATES if logs.min() - 0.3 <= np.log10(t) <= logs.max() + 0.3]
        places = [float(np.log10(t)) for t in ticks]
        ends = min(float(logs.min()), *places), max(float(logs.max()), *places)
        axis = {"range": ends, "tickvals": places, "ticktext": [f"{t:g}" for t in ticks]}
        return {"label": _short(key), "values": logs, **axis}
    order = sorted(set(numbers)) + sorted({_text(v) for v in values if v not in numbers})
    if len(numbers) == len(values) and len(order) > MOST_TICKS:
        return {"label": _short(key), "values": values}
    numbered = {_text(v): i for i, v in enumerate(order)}
    return {
        "label": _short(key),
        "values": [numbered[_text(v)] for v in values],
        "tickvals": list(numbered.values()),
        "ticktext": list(numbered),
    }


def _short(key: str) -> str:
    return "learning rate" if key == LR else key.rsplit(".", 1)[-1]


def _text(value: Any) -> str:
    return "none" if value is None else str(value)


def importance_figure(run: Run, importance: Mapping[str, Mapping[str, float]]) -> go.Figure:
    """How much of the Dice's variation each searched key explains, arm by arm."""
    colors = group_colors(run.arms)
    figure = go.Figure()
    for arm in run.arms:
        ranked = sorted(importance.get(arm, {}).items(), key=lambda item: item[1])
        figure.add_trace(
            go.Bar(
                x=[share for _, share in ranked],
                y=[_short(key) for key, _ in ranked],
                orientation="h",
                marker_color=colors[arm],
                name=arm,
                hovertemplate=f"{arm}, %{{y}}: %{{x:.0%}}<extra></extra>",
            )
        )
    keys = {key for shares in importance.values() for key in shares}
    figure.update_xaxes(range=[0, 1], tickformat=".0%")
    return dressed(figure, 150 + 70 * len(keys), legend_traceorder="normal")


def cost_figure(run: Run) -> go.Figure:
    """Dice against weights that train and against the time of one training; Pareto front."""
    points = _cost_points(run)
    settled = [p for p in points if p["confirmed"]] or points
    titles = ("weights that train", "seconds of one training")
    figure = make_subplots(cols=2, shared_yaxes=True, horizontal_spacing=0.05)
    colors = group_colors(run.arms)
    for column, cost in enumerate(("parameters", "seconds"), start=1):
        front = pareto_front([(p[cost], p["dice"]) for p in settled])
        figure.add_trace(
            go.Scatter(
                x=[p[0] for p in front],
                y=[p[1] for p in front],
                mode="lines",
                line={"color": MUTED, "width": 1.5, "dash": "dash", "shape": "hv"},
                name="nothing cheaper is better",
                showlegend=column == 1,
                hoverinfo="skip",
            ),
            row=1,
            col=column,
        )
        for group, color in colors.items():
            chosen = [p for p in points if p["group"] == group]
            figure.add_trace(
                go.Scatter(
                    x=[p[cost] for p in chosen],
                    y=[p["dice"] for p in chosen],
                    mode="markers",
                    marker={
                        "color": color,
                        "size": [11 if p["confirmed"] else 7 for p in chosen],
                        "symbol": ["circle" if p["confirmed"] else "circle-open" for p in chosen],
                        "line": {"width": 1.2},
                    },
                    name=shown_name(group),
                    legendgroup=group,
                    showlegend=column == 1 and bool(chosen),
                    text=[p["text"] for p in chosen],
                    hovertemplate="%{text}<br>Dice %{y:.4f}, " + titles[column - 1]
                    + " %{x:,.4~g}<extra></extra>",
                ),
                row=1,
                col=column,
            )  # fmt: skip
        figure.update_xaxes(title_text=titles[column - 1], row=1, col=column)
    figure.update_yaxes(title_text="Dice", col=1)
    figure.update_xaxes(linecolor=FAINT)
    return dressed(figure, 420)


def pareto_front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Points (cost, Dice) that no cheaper or equally cheap one reaches, cheapest first."""
    front: list[tuple[float, float]] = []
    for cost, dice in sorted(points, key=lambda p: (p[0], -p[1])):
        if not front or dice > front[-1][1]:
            front.append((cost, dice))
    return front


def _cost_points(run: Run) -> list[dict[str, Any]]:
    """Each strategy once: confirmed Dice where there is one, else the exploration's."""
    everyone = [c for members in run.confirmation.finalists.values() for c in members]
    everyone += [c for c in (run.confirmation.default, run.confirmation.base) if c]
    confirmed = {c.key: mean_over_subjects(c.dice) for c in everyone}
    named = {c.key: c.arm for c in everyone if c.arm in (BASE, DEFAULT)}
    if run.documented_default is not None:
        named[strategy_key(run.documented_default)] = DEFAULT
    groups = {e.key: e.arm for e in reversed(run.explored)} | named
    points = []
    for key in {**confirmed, **groups}:
        trials = [t for t in run.trials if strategy_key(t.started.strategy) == key and t.finished]
        explored = [e for e in run.explored if e.key == key]
        dice = confirmed.get(key) or (explored[0].dice if explored else None)
        if not trials or dice is None or not np.isfinite(dice):
            continue
        points.append(
            {
                "group": groups.get(key) or trials[0].started.arm,
                "parameters": max(t.started.parameters_trained for t in trials),
                "seconds": float(np.mean([t.ended.seconds for t in trials if t.ended])),
                "dice": float(dice),
                "confirmed": key in confirmed,
                "text": describe(trials[0].started.strategy),
            }
        )
    return points
