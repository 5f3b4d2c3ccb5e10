"""Several searches side by side: another base model, another dataset."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from hsf_tune.report.run import Run
from hsf_tune.report.style import dressed, group_colors, shown_name
from hsf_tune.report.tables import NOTHING, Table, number
from hsf_tune.strategy import describe


def comparison_table(runs: Sequence[Run]) -> Table:
    """A row a search: what it started from, what it found."""
    heads = ("search", "base model", "subjects", "verdict", "recommended", "Dice of its arms")
    rows = []
    for run in runs:
        found = run.verdict
        levels = [f"{arm} {number(level.mean)}" for arm, level in found.arms.items()]
        subjects = {c["subject"] for c in run.dataset.get("cases", [])}
        chosen = found.recommendation.strategy
        rows.append(
            (
                run.name,
                str(run.dataset.get("base", {}).get("name", run.config.models.checkpoint)),
                str(len(subjects)) if subjects else NOTHING,
                found.status.replace("_", " ") + (f": {found.arm}" if found.arm else ""),
                describe(chosen) if chosen else NOTHING,
                ", ".join(levels) or NOTHING,
            )
        )
    return Table(heads, rows)


def comparison_figure(runs: Sequence[Run]) -> go.Figure:
    """Confirmed Dice of each arm and baseline of each search, with 95 % intervals."""
    figure = go.Figure()
    arms = list(dict.fromkeys(arm for run in runs for arm in run.arms))
    colors = group_colors(arms)
    for group, color in colors.items():
        levels = [(r.name, {**r.verdict.arms, **r.verdict.baselines}.get(group)) for r in runs]
        known = [(name, level) for name, level in levels if level is not None]
        if not known:
            continue
        figure.add_trace(
            go.Scatter(
                x=[name for name, _ in known],
                y=[level.mean for _, level in known],
                error_y={
                    "type": "data",
                    "symmetric": True,
                    "array": [level.ci95[1] - level.mean for _, level in known],
                },
                mode="markers",
                marker={"color": color, "size": 10},
                name=shown_name(group),
            )
        )
    figure.update_layout(scattermode="group", scattergap=0.6)
    ends = [
        limit
        for run in runs
        for level in (*run.verdict.arms.values(), *run.verdict.baselines.values())
        for limit in level.ci95
    ]
    room = 0.05 * (max(ends) - min(ends))
    figure.update_yaxes(title_text="confirmed Dice", range=[min(ends) - room, max(ends) + room])
    return dressed(figure, 380)
