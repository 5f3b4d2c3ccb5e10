"""A run as `report.json`: the verdict and the numbers that it stands on, for programs.

The schema is `hsf_tune/report_schema.json`; what is written is validated against it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

import jsonschema
import numpy as np

from hsf_tune.records import BASE, DEFAULT, TrialRecord, mean_dice
from hsf_tune.report.run import Run
from hsf_tune.strategy import strategy_key
from hsf_tune.verdict.claims import Level
from hsf_tune.verdict.difference import estimate
from hsf_tune.verdict.plain import label_fields, level_fields, verdict_fields
from hsf_tune.verdict.scores import Confirmation, Confirmed, Explored


def summarise(run: Run) -> dict[str, Any]:
    """The content of `report.json`.

    Raises:
        jsonschema.ValidationError: a defect of ours; the schema is a promise to users.
    """
    found = run.verdict
    decided = verdict_fields(found)
    summary = {
        "verdict": decided.pop("verdict"),
        "recommendation": decided.pop("recommendation"),
        "arms": {arm: _arm_fields(run, arm) for arm in run.arms},
        "differences": decided.pop("differences"),
        "baselines": {BASE: _baseline(run, {}, BASE), DEFAULT: _documented(run)},
        "test": _test_fields(run.tested),
        "labels": {
            name: label_fields(level) for name, level in {**found.arms, **found.baselines}.items()
        },
        **decided,
        "run": _run_fields(run),
    }
    jsonschema.validate(summary, schema())
    return summary


def schema() -> dict[str, Any]:
    """The JSON schema of `report.json`."""
    return json.loads(files("hsf_tune").joinpath("report_schema.json").read_text("utf-8"))


def total_seconds(trials: Sequence[TrialRecord]) -> float:
    """Time of training and validation of ended trials."""
    return float(sum(t.ended.seconds for t in trials if t.ended))


def _arm_fields(run: Run, arm: str) -> dict[str, Any]:
    """Costs of all the arm's trials; Dice of its finalists, and the best one of them."""
    trials = [t for t in run.trials if t.started.arm == arm]
    keys = {strategy_key(s) for s in run.finalists.get(arm, [])}
    explored = [e for e in run.explored if e.arm == arm and e.key in keys]
    confirmed = run.verdict.best.get(arm)
    best = confirmed.strategy if confirmed else run.finalists.get(arm, [None])[0]
    level = level_fields(level_of(confirmed.dice, run.confirmation) if confirmed else None)
    return {
        **_costs(trials, _parameters(run.trials_of(best)) if best is not None else 0),
        "explored_dice": _explored_dice(explored),
        "best_strategy": None if best is None else dict(best),
        "best_explored_dice": _explored_dice(
            [e for e in explored if best is not None and e.key == strategy_key(best)]
        ),
        "best_confirmed_dice": level["confirmed_dice_mean"],
        "best_confirmed_ci95": level["confirmed_dice_ci95"],
        **level_fields(run.verdict.arms.get(arm)),
    }


def _documented(run: Run) -> dict[str, Any] | None:
    strategy = run.documented_default
    return None if strategy is None else _baseline(run, strategy, DEFAULT)


def _baseline(run: Run, strategy: Mapping[str, Any], name: str) -> dict[str, Any] | None:
    """A strategy's fields, whatever the arms its trials counted for; None if it never ran."""
    trials = run.trials_of(strategy)
    if not trials:
        return None
    explored = [e for e in run.explored if e.key == strategy_key(strategy)]
    dice = _explored_dice(explored)
    if dice is None:
        scored = [t for t in trials if t.started.phase in ("explore", "base") and t.finished]
        dice = _finite(np.mean([_dice(t) for t in scored])) if scored else None
    return {
        **_costs(trials, _parameters(trials)),
        "explored_dice": dice,
        **level_fields(run.verdict.baselines.get(name)),
    }


def _dice(trial: TrialRecord) -> float:
    assert trial.ended is not None
    return mean_dice(trial.ended.scores) if trial.ended.dice is None else trial.ended.dice


def _explored_dice(explored: Sequence[Explored]) -> float | None:
    """Mean over strategies of the mean over the folds of those that went furthest."""
    if not explored:
        return None
    most = max(len(e.dice_of_fold) for e in explored)
    return _finite(np.mean([e.dice for e in explored if len(e.dice_of_fold) == most]))


def _costs(trials: Sequence[TrialRecord], parameters: int) -> dict[str, Any]:
    ended = [t.ended for t in trials if t.ended]
    return {
        "trials": len(trials),
        "epochs": int(sum(e.epochs for e in ended)),
        "seconds": round(total_seconds(trials), 3),
        "parameters_trained": parameters,
    }


def _parameters(trials: Sequence[TrialRecord]) -> int:
    return max((t.started.parameters_trained for t in trials), default=0)


def _test_fields(tested: Confirmation) -> dict[str, Any] | None:
    everyone = [c for members in tested.finalists.values() for c in members]
    baselines = [c for c in (tested.default, tested.base) if c]
    everyone += [c for c in baselines if all(c is not other for other in everyone)]
    if not everyone:
        return None
    rows = []
    for one in everyone:
        level = level_of(one.dice, tested)
        fields = level_fields(level)
        rows.append(
            {
                "arm": one.arm,
                "strategy": dict(one.strategy),
                "dice_mean": fields["confirmed_dice_mean"],
                "dice_ci95": fields["confirmed_dice_ci95"],
            }
        )
    return {"n_subjects": len(tested.subjects), "strategies": rows}


def compared_strategies(run: Run) -> dict[str, Confirmed]:
    """The best strategy of each arm, and the baselines, as they were confirmed."""
    baselines = {DEFAULT: run.confirmation.default, BASE: run.confirmation.base}
    return {**run.verdict.best, **{name: c for name, c in baselines.items() if c is not None}}


def level_of(dice: Any, scored: Confirmation) -> Level:
    """Mean and interval of one strategy over subjects."""
    cells = np.asarray(dice)[None]
    found = estimate(cells, np.zeros_like(cells), scored.folds)
    return Level(found.mean, found.interval(0.95), found.n_subjects)


def _run_fields(run: Run) -> dict[str, Any]:
    return {
        "name": run.name,
        "command": run.command,
        "seed": run.config.seed,
        "dataset_key": run.dataset.get("key"),
        "base": run.dataset.get("base"),
        "subjects_confirmed": list(run.confirmation.subjects),
    }


def _finite(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None
