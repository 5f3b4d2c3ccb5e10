"""Scores of cases, and their means: labels within a case, cases within the subject, subjects."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np


class Score(NamedTuple):
    """One number: a metric of one label of one case. `value` may be nan (label in neither)."""

    subject: str
    case: str
    label: str
    metric: str
    value: float


def subject_means(scores: Iterable[Score], metric: str = "dice") -> dict[str, float]:
    """A metric for each subject: labels averaged within a case, cases within the subject.

    A label that is in neither volume (nan) is left out. Sides and contrasts are cases.
    """
    cases: dict[tuple[str, str], list[float]] = {}
    for score in scores:
        if score.metric == metric and not math.isnan(score.value):
            cases.setdefault((score.subject, score.case), []).append(score.value)
    subjects: dict[str, list[float]] = {}
    for (subject, _), values in cases.items():
        subjects.setdefault(subject, []).append(float(np.mean(values)))
    return {subject: float(np.mean(values)) for subject, values in sorted(subjects.items())}


def mean_dice(scores: Iterable[Score]) -> float:
    """Mean over subjects of `subject_means`; nan where there is no score."""
    means = list(subject_means(scores).values())
    return float(np.mean(means)) if means else math.nan


def label_means(scores: Iterable[Score], metric: str = "dice") -> dict[str, float]:
    """A metric for each label: mean over subjects of the mean over a subject's cases."""
    by_label: dict[str, list[Score]] = {}
    for score in scores:
        by_label.setdefault(score.label, []).append(score)
    found = {name: list(subject_means(rows, metric).values()) for name, rows in by_label.items()}
    return {name: float(np.mean(values)) for name, values in found.items() if values}
