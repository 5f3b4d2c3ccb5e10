"""The report's tables, as rows of text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hsf_tune.finetuning.strategy import describe
from hsf_tune.records import BASE, DEFAULT, TrialRecord, label_means
from hsf_tune.report.differences import title_of
from hsf_tune.report.run import Run
from hsf_tune.report.style import shown_name
from hsf_tune.report.volumes import MANUAL, PREDICTED, Agreement
from hsf_tune.verdict.claims import Difference
from hsf_tune.verdict.scores import Confirmed, mean_over_subjects

NOTHING, NARROW = "–", "\u00a0"  # a dash; a space that no line breaks at


@dataclass(frozen=True)
class Table:
    """Heads and rows; the first column is a name, the others are numbers."""

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    strong: frozenset[int] = frozenset()  # numbers of rows to stress


def number(value: float | None, digits: int = 3, sign: bool = False) -> str:
    """A number for people; a dash where there is none."""
    if value is None or not math.isfinite(value):
        return NOTHING
    value = round(value, digits) + 0.0  # never -0.00
    text = f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"
    return text.replace("-", "−")


def interval(limits: Sequence[float] | None, digits: int = 3, sign: bool = False) -> str:
    """`low to high`."""
    if limits is None or not all(math.isfinite(x) for x in limits):
        return NOTHING
    return " to ".join(number(x, digits, sign) for x in limits).replace(" ", NARROW)


def duration(seconds: float) -> str:
    """Seconds as people read time."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def arms_table(run: Run, summary: Mapping[str, Any]) -> Table:
    """Arms and baselines: what they cost and what they reached."""
    heads = ("", "best strategy", "trials", "epochs", "time", "weights that train",
             "Dice explored", "Dice confirmed", "95 % interval")  # fmt: skip
    groups = {**summary["arms"], **{k: v for k, v in summary["baselines"].items() if v}}
    rows = []
    for name, fields in groups.items():
        best = run.finalists.get(name, [None])[0]
        if name == DEFAULT:
            best = run.documented_default
        shown = describe(best) if best is not None else NOTHING
        rows.append(
            (
                shown_name(name),
                shown if name != BASE else NOTHING,
                str(fields["trials"]),
                str(fields["epochs"]),
                duration(fields["seconds"]),
                f"{fields['parameters_trained']:,}".replace(",", "\u202f"),
                number(fields["explored_dice"]),
                number(fields["confirmed_dice_mean"]),
                interval(fields["confirmed_dice_ci95"]),
            )
        )
    won = run.verdict.arm
    return Table(heads, rows, frozenset(i for i, name in enumerate(groups) if name == won))


def differences_table(differences: Sequence[Difference]) -> Table:
    """All tests, in their order."""
    heads = ("difference of Dice", "mean", "95 % interval", "90 % interval", "bootstrap 95 %",
             "p", "subjects", "result", "would decide")  # fmt: skip
    rows = [
        (
            title_of(d),
            number(d.mean, sign=True),
            interval(d.ci95, sign=True),
            interval(d.ci90, sign=True),
            interval(d.bootstrap95, sign=True),
            "<0.001" if d.p_value < 0.001 else number(d.p_value),
            str(d.n_subjects),
            (f"{shown_name(d.better)} better" if d.better else d.status)
            + (" (Holm)" if d.corrected else ""),
            _needed(d),
        )
        for d in differences
    ]
    decided = frozenset(i for i, d in enumerate(differences) if d.status == "superior")
    return Table(heads, rows, decided)


def _needed(d: Difference) -> str:
    if d.status != "undecided" or d.corrected:
        return NOTHING
    if d.needed is None:
        return "not reachable"
    low, high = d.needed
    if high is None:
        return f"{low} or more"
    return str(low) if low == high else f"{low} to {high}"


def labels_table(run: Run) -> Table | None:
    """Dice of each label: the best strategy of each arm, the baselines, winner - default."""
    found, confirmation = run.verdict, run.confirmation
    columns: dict[str, Confirmed] = dict(found.best)
    for name, one in ((DEFAULT, confirmation.default), (BASE, confirmation.base)):
        if one is not None:
            columns[name] = one
    if found.winner is None:
        return None
    labels = sorted({label for one in columns.values() for label in one.labels})
    flags = {flag.label: flag for flag in found.flags}
    default = confirmation.default
    rows = []
    for label in labels:
        cells = [_label_mean(one, label) for one in columns.values()]
        usual = _label_mean(default, label) if default else math.nan
        gain = _label_mean(found.winner, label) - usual
        flag = f"lower limit {flags[label].lower:+.3f}" if label in flags else ""
        rows.append((label, *map(number, cells), number(gain, 3, sign=True), flag))
    heads = (
        "label",
        *map(shown_name, columns),
        f"{shown_name(found.winner.arm)} − default",
        "flag",
    )
    return Table(heads, rows, frozenset(i for i, name in enumerate(labels) if name in flags))


def _label_mean(one: Confirmed, label: str) -> float:
    return mean_over_subjects(one.labels[label]) if label in one.labels else math.nan


def metrics_table(trials: Sequence[TrialRecord]) -> Table | None:
    """Every other metric of one strategy by label: mean over subjects, out of fold."""
    scores = [s for t in trials if t.ended for s in t.ended.scores]
    metrics = [m for m in dict.fromkeys(s.metric for s in scores) if m not in (PREDICTED, MANUAL)]
    labels = dict.fromkeys(s.label for s in scores)
    if not scores:
        return None
    means = {m: label_means([s for s in scores if s.metric == m], m) for m in metrics}
    rows = [(label, *(number(means[m].get(label)) for m in metrics)) for label in labels]
    return Table(("label", *(m.replace("_", " ") for m in metrics)), rows)


def volumes_table(found: Sequence[Agreement]) -> Table:
    """Agreement of volumes, label by label."""
    heads = ("label", "subjects", "manual, mm³", "predicted, mm³", "bias, mm³", "bias, %",
             "limits of agreement, mm³", "ICC", "95 % interval")  # fmt: skip
    rows = [
        (
            one.label,
            str(len(one.subjects)),
            number(float(one.manual.mean()), 1),
            number(float(one.predicted.mean()), 1),
            number(one.bias, 1, sign=True),
            number(one.bias_percent, 1, sign=True),
            interval(one.limits, 1, sign=True),
            number(one.icc, 2),
            interval(one.icc95, 2),
        )
        for one in found
    ]
    return Table(heads, rows)


def test_table(summary: Mapping[str, Any]) -> Table | None:
    """Scores on the locked test set, where there is one."""
    if summary["test"] is None:
        return None
    rows = [
        (
            shown_name(row["arm"]),
            describe(row["strategy"]),
            number(row["dice_mean"]),
            interval(row["dice_ci95"]),
        )
        for row in summary["test"]["strategies"]
    ]
    return Table(("", "strategy", "Dice", "95 % interval"), rows)
