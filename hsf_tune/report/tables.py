"""The report's tables, as rows of text."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hsf_tune.records import DEFAULT, TrialRecord, label_means
from hsf_tune.report.differences import result_of, title_of
from hsf_tune.report.run import Run
from hsf_tune.report.style import shown_name
from hsf_tune.report.summary import compared_strategies
from hsf_tune.report.volumes import MANUAL, PREDICTED, Agreement
from hsf_tune.strategy import describe
from hsf_tune.verdict.claims import Difference
from hsf_tune.verdict.scores import Confirmed, mean_over_subjects
from hsf_tune.wording import duration

NOTHING, NARROW = "–", "\u00a0"  # a dash; a space that no line breaks at


@dataclass(frozen=True)
class Table:
    """Heads and rows of text; `strong` rows get the class `stress`."""

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    strong: frozenset[int] = frozenset()  # numbers of rows
    stress: str = "strong"
    words: bool = False  # no column holds numbers

    @property
    def kinds(self) -> list[str]:
        """Of each column: `text`, to be aligned to the left, or `` for numbers."""
        columns = list(zip(*self.rows, strict=True)) or [()] * len(self.heads)
        return [
            "text" if i == 0 or self.words or _is_words(c) else "" for i, c in enumerate(columns)
        ]


def _is_words(column: Sequence[str]) -> bool:
    return 2 * sum(bool(re.match("[A-Za-z✓✗]{2}", cell)) for cell in column) >= len(column)


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


def arms_table(run: Run, summary: Mapping[str, Any]) -> Table:
    """Arms and baselines: what they cost and what they reached."""
    heads = ("", "best strategy", "trials", "time", "weights that train", "Dice explored",
             "confirmed", "95 % interval", "mean of finalists", "95 % interval")  # fmt: skip
    arms = summary["arms"]
    groups = {**arms, **{name: b for name, b in summary["baselines"].items() if b}}
    rows = []
    for name, fields in groups.items():
        mean, limits = fields["confirmed_dice_mean"], fields["confirmed_dice_ci95"]
        strategy = run.documented_default if name == DEFAULT else fields.get("best_strategy")
        scores: tuple[Any, ...] = (fields["explored_dice"], mean, limits, None, None)
        if name in arms:
            best = (
                fields[f"best_{key}"]
                for key in ("explored_dice", "confirmed_dice", "confirmed_ci95")
            )
            scores = (*best, mean, limits)
        rows.append(
            (
                shown_name(name),
                describe(strategy) if strategy else NOTHING,
                str(fields["trials"]),
                duration(fields["seconds"]).replace(" ", NARROW),
                f"{fields['parameters_trained']:,}".replace(",", "\u202f"),
                *(interval(s) if isinstance(s, list) else number(s) for s in scores),
            )
        )
    chosen = summary["recommendation"]["arm"]
    return Table(heads, rows, frozenset(i for i, name in enumerate(groups) if name == chosen))


def checks_table(checks: Mapping[str, Sequence[Mapping[str, Any]]]) -> Table:
    """Whether each arm was searched well enough to be compared; a column a check."""
    heads = ("", *(check["check"] for check in next(iter(checks.values()))))
    marks = {True: "✓ ", False: "✗ ", None: "– "}
    rows = [
        (shown_name(arm), *(marks[check["passed"]] + check["text"] for check in found))
        for arm, found in checks.items()
    ]
    failed = (any(c["passed"] is False for c in found) for found in checks.values())
    return Table(heads, rows, frozenset(i for i, bad in enumerate(failed) if bad), "flagged", True)


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
            result_of(d),
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
    winner, default = run.verdict.winner, run.confirmation.default
    if winner is None:
        return None
    columns = compared_strategies(run)
    labels = sorted({label for confirmed in columns.values() for label in confirmed.labels})
    flags = {flag.label: flag for flag in run.verdict.flags}
    rows = []
    for label in labels:
        cells = [_label_mean(confirmed, label) for confirmed in columns.values()]
        usual = _label_mean(default, label) if default else math.nan
        gain = _label_mean(winner, label) - usual
        flag = f"lower limit {number(flags[label].lower, sign=True)}" if label in flags else ""
        rows.append((label, *map(number, cells), number(gain, sign=True), flag))
    heads = ("label", *map(shown_name, columns), f"{shown_name(winner.arm)} − default", "flag")
    flagged = frozenset(i for i, name in enumerate(labels) if name in flags)
    return Table(heads, rows, flagged, "flagged")


def _label_mean(confirmed: Confirmed, label: str) -> float:
    return mean_over_subjects(confirmed.labels[label]) if label in confirmed.labels else math.nan


def metrics_table(trials: Sequence[TrialRecord]) -> Table | None:
    """Every other metric of one strategy by label: mean over subjects, out of fold."""
    scores = [s for t in trials if t.ended for s in t.ended.scores]
    metrics = [m for m in dict.fromkeys(s.metric for s in scores) if m not in (PREDICTED, MANUAL)]
    labels = dict.fromkeys(s.label for s in scores)
    if not scores:
        return None
    means = {m: label_means([s for s in scores if s.metric == m], m) for m in metrics}
    digits = {m: 1 if m.endswith("mm3") else 2 if m.endswith("mm") else 3 for m in metrics}
    rows = [(label, *(number(means[m].get(label), digits[m]) for m in metrics)) for label in labels]
    heads = (m.replace("_mm", ", mm").replace("mm3", "mm³").replace("_", " ") for m in metrics)
    return Table(("label", *heads), rows)


def volumes_table(found: Sequence[Agreement]) -> Table:
    """Agreement of volumes, label by label."""
    heads = ("label", "subjects", "manual, mm³", "predicted, mm³", "bias, mm³", "bias, %",
             "limits of agreement, mm³", "ICC", "95 % interval")  # fmt: skip
    rows = [
        (
            one.label,
            str(len(one.subjects)),
            number(float(one.manual.mean()), 0),
            number(float(one.predicted.mean()), 0),
            number(one.bias, 1, sign=True),
            number(one.bias_percent, 1, sign=True),
            interval(one.limits, 0, sign=True),
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
