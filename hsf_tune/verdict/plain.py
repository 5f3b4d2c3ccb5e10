"""The verdict as plain values, the way `report.json` holds it."""

from __future__ import annotations

import math
from typing import Any

from hsf_tune.verdict.claims import Difference, Level, Verdict
from hsf_tune.verdict.coverage import ArmChecks


def verdict_fields(found: Verdict) -> dict[str, Any]:
    """The fields of `report.json` that the verdict decides; nan becomes None."""
    chosen = found.recommendation
    return {
        "verdict": {
            "status": found.status,
            "claim": found.claim,
            "arm": found.arm,
            "sentence": found.sentence,
        },
        "recommendation": {
            "strategy": dict(chosen.strategy),
            "arm": chosen.arm,
            "reason": chosen.reason,
            **level_fields(chosen.level),
            "labels": label_fields(chosen.level),
            "candidates": chosen.candidates,
            "flattered_by": chosen.flattered_by,
        },
        "checks": {arm: _checks(c) for arm, c in found.checks.items()},
        "differences": [_difference(d) for d in found.differences],
        "without_exploration_fold_1": [_difference(d) for d in found.without_fold_1],
        "label_flags": [
            {"label": f.label, "mean": _number(f.mean), "lower95": _number(f.lower)}
            for f in found.flags
        ],
        "warnings": list(found.warnings),
    }


def level_fields(level: Level | None) -> dict[str, Any]:
    """The confirmed part of an arm's or a baseline's fields; None where not confirmed."""
    if level is None:
        return {"confirmed_dice_mean": None, "confirmed_dice_ci95": None, "n_subjects": 0}
    return {
        "confirmed_dice_mean": _number(level.mean),
        "confirmed_dice_ci95": _interval(level.ci95),
        "n_subjects": level.n_subjects,
    }


def label_fields(level: Level | None) -> dict[str, float | None]:
    """Label -> confirmed Dice."""
    return {} if level is None else {name: _number(v) for name, v in level.labels.items()}


def _checks(found: ArmChecks) -> list[dict[str, Any]]:
    """The three checks of an arm: passed is None where it could not be looked at."""
    low = min(found.overlap, key=lambda other: found.overlap[other], default="")
    spans = [f"{key} {s.low:.2g} to {s.high:.2g}" for key, s in found.ranges.items()]
    shared = f"; {100 * found.overlap[low]:.0f} % shared with {low}" if low else ""
    edges = [
        f"{e.key} {e.value:.2g} of {e.range.low:.2g} to {e.range.high:.2g}" for e in found.at_edge
    ]
    return [
        {
            "check": "tried at the rates of the other arms",
            "passed": found.overlaps(low) if low else None,
            "text": f"{', '.join(spans)}{shared}" if spans else "not known",
            "overlap": dict(found.overlap),
        },
        {
            "check": "finalists inside their ranges",
            "passed": not edges if spans else None,
            "text": "; ".join(edges) or ("no finalist at an edge" if spans else "not known"),
        },
        {
            "check": "finalists done learning",
            "passed": None if found.improving is None else not found.improving,
            "text": "not known"
            if found.improving is None
            else f"{found.improving} of {found.finalists} still improving",
        },
    ]


def _difference(d: Difference) -> dict[str, Any]:
    return {
        "between": list(d.between),
        "claim": d.claim,
        "mean": _number(d.mean),
        "ci95": _interval(d.ci95),
        "ci90": _interval(d.ci90),
        "bootstrap95": _interval(d.bootstrap95),
        "p_value": _number(d.p_value),
        "n_subjects": d.n_subjects,
        "status": d.status,
        "better": d.better,
        "subjects_that_would_decide": list(d.needed) if d.needed else None,
        "reachable": d.reachable,
        "outlier": d.outlier
        and {
            "subject": d.outlier.subject,
            "mean_without": _number(d.outlier.mean),
            "ci95_without": _interval(d.outlier.ci95),
        },
    }


def _interval(limits: tuple[float, float]) -> list[float] | None:
    return None if any(math.isnan(x) for x in limits) else [float(x) for x in limits]


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
