"""What the report shows, part by part, from the verdict down to the commands.

A part whose numbers are not there yet says so in a sentence instead of vanishing.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from hsf_tune.finetuning.strategy import describe
from hsf_tune.report import curves, differences, exploration, tables, volumes
from hsf_tune.report.comparison import comparison_figure, comparison_table
from hsf_tune.report.page import Page
from hsf_tune.report.review import review
from hsf_tune.report.run import Run
from hsf_tune.search.importance import parameter_importance
from hsf_tune.verdict import sentences


def fill(page: Page, run: Run, summary: Mapping[str, Any], others: Sequence[Run]) -> None:
    """Write all parts into the page."""
    _top(page, run)
    _arms(page, run, summary)
    if others:
        _comparison(page, [run, *others])
    _differences(page, run)
    _curves(page, run)
    _search(page, run)
    _labels(page, run)
    _volumes(page, run)
    _review(page, run)
    _data(page, run)
    _repeat(page, run)


def _top(page: Page, run: Run) -> None:
    found = run.verdict
    chosen = found.recommendation
    strategy = f"<b>{escape(describe(chosen.strategy))}.</b> " if chosen.strategy else ""
    flags = [
        f"{f.label}: {f.mean:+.3f} Dice, and perhaps {f.lower:+.3f} (lower 95 % limit)."
        for f in found.flags
    ]
    strategies = next(
        (d for d in found.differences if d.claim == "strategy" and d.between[1] in run.arms), None
    )
    page.head.append(f"<h1>{escape(run.name)} · {_facts(run)}</h1>")
    if flags:
        text = "".join(f"<br>{escape(flag)}" for flag in flags)
        best = describe(found.winner.strategy) if found.winner else ""
        page.head.append(
            f'<div class="flags"><b>Labels that may be worse with {escape(best)} than with the'
            f" documented default</b>{text}</div>"
        )
    page.head.append(
        f'<div class="verdict {found.status}"><p class="sentence" id="verdict">'
        f'{escape(found.sentence)}</p><p class="recommendation" id="recommendation">'
        f"Recommended: {strategy}{escape(chosen.reason)}</p></div>"
    )
    if strategies is not None:
        page.head.append(f'<p class="muted">{escape(sentences.difference(strategies))}</p>')
    if found.warnings:
        items = "".join(f"<li>{escape(w)}</li>" for w in found.warnings)
        page.head.append(f"<ul>{items}</ul>")


def _facts(run: Run) -> str:
    subjects = {c["subject"] for c in run.dataset.get("cases", [])}
    parts = [
        f"{len(subjects)} subjects" if subjects else "",
        f"{sum(t.ended is not None for t in run.trials)} trials",
        f"base {run.dataset.get('base', {}).get('name', run.config.models.checkpoint)}",
    ]
    return escape(" · ".join(p for p in parts if p))


def _arms(page: Page, run: Run, summary: Mapping[str, Any]) -> None:
    page.section("Arms and baselines")
    page.table(tables.arms_table(run, summary))
    page.text(
        "Dice of an arm is the mean over its finalists, of a subject the mean over sides,"
        " contrasts and foreground labels. Explored scores are flattered by having been chosen"
        " from; only confirmed ones, on new folds, should be quoted.",
        "muted",
    )
    test = tables.test_table(summary)
    locked = run.dataset.get("splits", {}).get("test", [])
    if test is None and locked:
        page.text(
            f"{len(locked)} subjects are locked away as a test set and have not been scored.",
            "muted",
        )
    elif test is None:
        page.text("There is no locked test set: it is set apart from 60 subjects on.", "muted")
    else:
        page.heading(f"Locked test set ({summary['test']['n_subjects']} subjects)")
        page.table(test)


def _comparison(page: Page, runs: Sequence[Run]) -> None:
    page.section("Compared with other searches")
    page.table(comparison_table(runs))
    if any(run.verdict.arms for run in runs):
        page.plot("comparison", comparison_figure(runs))
    page.text(
        "Searches on other subjects or labels are not paired: their levels differ for more"
        " reasons than the strategy.",
        "muted",
    )


def _differences(page: Page, run: Run) -> None:
    page.section("How sure")
    found = run.verdict
    margins = run.config.verdict
    if not found.differences:
        page.text("Nothing was tested: the confirmation has no results to compare yet.")
        return
    page.plot("intervals", differences.intervals_figure(found.differences, margins))
    page.text(
        f"Superior: the 95 % interval (thin) lies beyond ±{margins.superior:g}, the darker band."
        f" Equivalent: the 90 % interval (thick) lies inside ±{margins.equivalent:g}, the lighter"
        " band. Arms: the mean over all finalists of one arm against the other's, with the luck"
        " of the search in its error. Strategies: the best of each. In the rows marked Holm"
        " superiority is corrected for their number, so that it takes more than the 95 % interval"
        " shows.",
        "muted",
    )
    page.table(tables.differences_table(found.differences))
    page.heading("Subject by subject")
    page.plot("subjects", differences.subjects_figure(run))
    if found.without_fold_1:
        page.heading("Without the subjects that ranked the strategies first")
        page.text(
            "The exploration's subjects return in the confirmation, with other folds; simulated,"
            " that flatters by at most 0.002 Dice. The same tests without those of its fold 1:",
            "muted",
        )
        page.table(tables.differences_table(found.without_fold_1))


def _curves(page: Page, run: Run) -> None:
    page.section("How the finalists learned")
    found = curves.finalists_curves(run)
    if not found:
        page.text("No finalist has a learning curve yet.")
        return
    judged = [said for one in found if (said := curves.unsettled(one)) is not None]
    advice = [sentence for said in judged for sentence in said]
    if advice:
        page.items(advice)
    elif judged:
        page.text("Where it could be judged, the training loss had settled before each opening.")
    if len(judged) < len(found):
        page.text(
            f"{len(found) - len(judged)} of {len(found)} finalists have no stage of two epochs or"
            " more before an opening: whether their loss had settled can't be told.",
            "muted",
        )
    page.plot("curves", curves.curves_figure(run, found))
    page.text(
        "Mean over the trainings of a strategy. Dashed lines: a block opens. Every score that"
        " ranks is the last epoch's.",
        "muted",
    )


def _search(page: Page, run: Run) -> None:
    page.section("The search")
    if not any(e.arm in run.arms for e in run.explored):
        page.text("No strategy has been explored yet.")
        return
    page.heading("The race over folds")
    page.plot("race", exploration.race_figure(run))
    page.heading("All strategies, on fold 1")
    page.plot("strategies", exploration.strategies_figure(run))
    importance = {
        arm: parameter_importance(
            [
                (e.strategy, e.dice_of_fold[1])
                for e in run.explored
                if e.arm == arm and 1 in e.dice_of_fold
            ]
        )
        for arm in run.arms
    }
    page.heading("What mattered")
    if any(importance.values()):
        page.plot("importance", exploration.importance_figure(run, importance))
        page.text("Share of the variation of Dice on fold 1 (functional ANOVA): a hint.", "muted")
    else:
        page.text("Too few strategies were explored to tell which parameter mattered.")
    page.heading("What it cost")
    page.plot("cost", exploration.cost_figure(run))
    page.text("Filled: confirmed. Hollow: explored only.", "muted")


def _labels(page: Page, run: Run) -> None:
    page.section("Label by label")
    table = tables.labels_table(run)
    strategy = run.verdict.recommendation.strategy
    trials = run.trials_of(strategy, "confirm") or run.trials_of(strategy, "explore")
    if table is not None:
        page.table(table, stress="flagged")
    metrics = tables.metrics_table(trials)
    if metrics is None:
        page.text("No scores by label yet.")
        return
    page.heading(f"All metrics of the recommended strategy ({describe(strategy)})")
    page.table(metrics)


def _volumes(page: Page, run: Run) -> None:
    page.section("Volumes")
    strategy = run.verdict.recommendation.strategy
    trials = run.trials_of(strategy, "confirm") or run.trials_of(strategy, "explore")
    found = volumes.agreements(trials)
    if not found:
        page.text("No volumes were measured yet.")
        return
    page.text(
        "Predicted against manual volume of each subject, out of fold, for the recommended"
        " strategy. Solid: mean difference; dashed: 95 % limits of agreement.",
        "muted",
    )
    page.plot("volumes", volumes.agreement_figure(found))
    page.table(tables.volumes_table(found))


def _review(page: Page, run: Run) -> None:
    page.section("Labels to look at again")
    found = review(run)
    if found.missing:
        page.text(found.missing)
        return
    if found.places:
        page.text(
            "Here all finalists agree with each other and not with the manual label, further than"
            " a voxel from its border. Either they all err, or the label does.",
            "muted",
        )
        page.pictures(found.place_pictures)
    else:
        page.text("Nowhere do all finalists agree on a label further than a voxel from its border.")
    if len(found.places) > len(found.place_pictures):
        page.items(
            [
                f"{p.case}: {p.agreed} where {p.manual} was drawn, {p.volume_mm3:.0f} mm³"
                for p in found.places[len(found.place_pictures) :]
            ]
        )
    if found.case_pictures:
        page.heading("Best and worst case")
        page.pictures(found.case_pictures)


def _data(page: Page, run: Run) -> None:
    page.section("Data")
    cases = run.dataset.get("cases", [])
    rows = []
    for dataset in run.config.datasets.datasets:
        chosen = [c for c in cases if c.get("dataset") == dataset]
        patterns = sorted({c.get("pattern", "") for c in chosen})
        subjects = {c["subject"] for c in chosen}
        rows.append((dataset, str(len(subjects)), str(len(chosen)), ", ".join(patterns)))
    page.table(tables.Table(("dataset", "subjects", "cases", "contrasts"), rows), words=True)
    warned = [*run.dataset.get("warnings", []), *run.dataset.get("splits", {}).get("notes", [])]
    if warned:
        page.heading("Warnings")
        page.items([str(w) for w in warned])
    else:
        page.text("The checks of the images and labels found nothing to warn about.")
    failed = [t for t in run.trials if t.ended and t.ended.status != "finished"]
    if failed:
        page.heading("Trials that did not finish")
        page.items([f"{t.id}: {t.ended.status}, {t.ended.reason}" for t in failed if t.ended])


def _repeat(page: Page, run: Run) -> None:
    page.section("To repeat it")
    folder = shlex.quote(str(run.folder))
    lines = [
        f"python {run.command}" if run.command else "",
        f"python finetune.py strategy={shlex.quote(str(run.files.strategy))}",
        f"python scripts/export.py {folder}",
        f"python scripts/report.py {folder}",
    ]
    page.text("The search, finetuning with the winner, its export to HSF, and this report:")
    page.code("\n".join(line for line in lines if line))
    base = run.dataset.get("base", {})
    rows = [
        ("seed", str(run.config.seed)),
        ("base model", f"{base.get('name', '?')}, sha256 {base.get('sha256', '?')}"),
        ("dataset", str(run.dataset.get("key", "?"))),
        *((name, version) for name, version in _versions(run).items()),
        ("devices", ", ".join(sorted({t.started.device for t in run.trials if t.started.device}))),
    ]
    page.table(tables.Table(("", ""), rows), words=True)


def _versions(run: Run) -> dict[str, str]:
    """Versions of Python and of the packages, as the run noted them."""
    for note in reversed(run.records.notes):
        found = note.data.get("versions", note.data if note.about == "versions" else None)
        if isinstance(found, Mapping):
            return {str(k): str(v) for k, v in found.items()}
    return {}
