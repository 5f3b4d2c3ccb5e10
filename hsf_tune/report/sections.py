"""Gather what the page shows below its first screen; `page.html` puts it into words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import plotly.graph_objects as go

from hsf_tune.installed import typed, typed_again
from hsf_tune.records import TrialRecord, Versions
from hsf_tune.report import curves, differences, exploration, pictures, tables, volumes
from hsf_tune.report.comparison import comparison_figure, comparison_table
from hsf_tune.report.first import first_screen
from hsf_tune.report.review import review
from hsf_tune.report.run import Run
from hsf_tune.search.importance import parameter_importance

ENOUGH_FOR_IMPORTANCE = 10  # strategies of an arm; from fewer it is folded away
FIRST_SCREEN_IN = 6.9  # width of the picture beside the three rows: 660 pixels of a page


class Part(NamedTuple):
    """A part of the page that needs no words of its own in the template."""

    heading: str
    words: str
    plot: go.Figure | None = None
    table: tables.Table | None = None


def contents(run: Run, summary: Mapping[str, Any], others: Sequence[Run]) -> dict[str, Any]:
    """Everything that the template asks for; None or [] where there is nothing yet."""
    verdict, recommended = run.verdict, run.verdict.recommendation.strategy
    trials = run.trials_of(recommended, "confirm") or run.trials_of(recommended, "explore")
    subjects = {c["subject"] for c in run.dataset.get("cases", [])}
    return {
        "run": run,
        "summary": summary,
        "verdict": verdict,
        "margins": run.config.verdict,
        "base": run.dataset.get("base", {}),
        "subjects": len(subjects),
        "ended": sum(t.ended is not None for t in run.trials),
        "first": first_screen(summary, run.files.strategy),
        "levels": pictures.levels_picture(run, width_in=FIRST_SCREEN_IN) if verdict.best else None,
        "review": review(run),
        "checks": tables.checks_table(summary["checks"]) if summary["checks"] else None,
        "arms": tables.arms_table(run, summary),
        "test": tables.test_table(summary),
        "locked": len(run.dataset.get("splits", {}).get("test", [])),
        "compared": _comparison([run, *others]) if others else None,
        "tests": _tests(run) if verdict.differences else None,
        "curves": _curves(run),
        "search": _search(run) if any(e.arm in run.arms for e in run.explored) else None,
        "labels": tables.labels_table(run),
        "metrics": tables.metrics_table(trials),
        "parts": [build(trials) for build in PARTS],
        "datasets": _datasets(run),
        "warned": [
            *run.dataset.get("warnings", []),
            *run.dataset.get("splits", {}).get("notes", []),
        ],
        "failed": [t for t in run.trials if t.ended and t.ended.status != "finished"],
        "commands": [
            *([typed_again(run.command)] if run.command else []),
            typed("finetune", f"strategy={run.files.strategy}"),
            typed("export", str(run.folder)),
            typed("report", str(run.folder)),
        ],
        "origin": _origin(run),
        "number": tables.number,
        "interval": tables.interval,
    }


def _comparison(runs: Sequence[Run]) -> dict[str, Any]:
    known = any(run.verdict.arms for run in runs)
    return {"table": comparison_table(runs), "plot": comparison_figure(runs) if known else None}


def _tests(run: Run) -> dict[str, Any]:
    found = run.verdict
    return {
        "picture": pictures.differences_picture(run),
        "table": tables.differences_table(found.differences),
        "subjects": differences.subjects_figure(run),
        "without_fold_1": found.without_fold_1 and tables.differences_table(found.without_fold_1),
    }


def _curves(run: Run) -> dict[str, Any] | None:
    """Curves of the arm that is recommended and of the pair in question; others are folded."""
    found = curves.finalists_curves(run)
    if not found:
        return None
    first = {run.verdict.recommendation.arm, "encoder", "decoder"}
    shown = [c for c in found if c.arm in first] or found
    folded = [c for c in found if c not in shown]
    judged = [said for c in found if (said := curves.unsettled(c)) is not None]
    return {
        "advice": [sentence for said in judged for sentence in said],
        "judged": len(judged),
        "finalists": len(found),
        "plot": curves.curves_figure(run, shown),
        "folded": curves.curves_figure(run, folded) if folded else None,
        "folded_arms": list(dict.fromkeys(c.arm for c in folded)),
    }


def _search(run: Run) -> dict[str, Any]:
    scored = {
        arm: [
            (e.strategy, e.dice_of_fold[1])
            for e in run.explored
            if e.arm == arm and 1 in e.dice_of_fold
        ]
        for arm in run.arms
    }
    importance = {arm: parameter_importance(points) for arm, points in scored.items()}
    counts = [len(scored[arm]) for arm, shares in importance.items() if shares]
    return {
        "race": pictures.race_picture(run),
        "strategies": exploration.strategies_figure(run),
        "importance": exploration.importance_figure(run, importance) if counts else None,
        "fewest": min(counts, default=0),
        "enough": min(counts, default=0) >= ENOUGH_FOR_IMPORTANCE,
        "cost": exploration.cost_figure(run),
    }


def _volumes(trials: Sequence[TrialRecord]) -> Part:
    agreements = volumes.agreements(trials)
    if not agreements:
        return Part("Volumes", "No volumes were measured yet.")
    words = (
        "Predicted against manual volume of each subject, out of fold, for the recommended strategy."
        " Solid: mean difference; dashed: 95 % limits of agreement."
    )
    figure, table = volumes.agreement_figure(agreements), tables.volumes_table(agreements)
    return Part("Volumes", words, figure, table)


# what the trainings of the recommended strategy show: another part is a function and its name here
PARTS = (_volumes,)


def _datasets(run: Run) -> tables.Table:
    cases = run.dataset.get("cases", [])
    rows = []
    for dataset in run.config.datasets.datasets:
        chosen = [c for c in cases if c.get("dataset") == dataset]
        patterns = sorted({c.get("pattern", "") for c in chosen})
        subjects = {c["subject"] for c in chosen}
        rows.append((dataset, str(len(subjects)), str(len(chosen)), ", ".join(patterns)))
    return tables.Table(("dataset", "subjects", "cases", "contrasts"), rows, words=True)


def _origin(run: Run) -> tables.Table:
    """Seed, fingerprints, and the versions of Python and of the packages, as the run noted them."""
    base = run.dataset.get("base", {})
    rows = [
        ("seed", str(run.config.seed)),
        ("base model", f"{base.get('name', '?')}, sha256 {base.get('sha256', '?')}"),
        ("dataset", str(run.dataset.get("key", "?"))),
        *_versions(run).items(),
        ("devices", ", ".join(sorted({t.started.device for t in run.trials if t.started.device}))),
    ]
    return tables.Table(("", ""), rows, words=True)


def _versions(run: Run) -> dict[str, str]:
    last = run.records.noted(Versions)[-1:]
    return {str(k): str(v) for note in last for k, v in note.versions.items()}
