"""Scores of the confirmation -> statistics -> what may be claimed."""

from hsf_tune.verdict.claims import Verdict
from hsf_tune.verdict.judge import judge
from hsf_tune.verdict.plain import level_fields, verdict_fields
from hsf_tune.verdict.scores import (
    Confirmation,
    gather,
    gather_exploration,
    subjects_of_fold_1,
)

__all__ = [
    "Confirmation",
    "Verdict",
    "gather",
    "gather_exploration",
    "judge",
    "level_fields",
    "subjects_of_fold_1",
    "verdict_fields",
]
