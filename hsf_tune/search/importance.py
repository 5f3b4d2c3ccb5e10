"""Which searched parameters mattered within an arm, by Optuna's functional ANOVA.

Computed from the records' strategies and scores, not from the study's file, so that a
report can be made anywhere. With a dozen strategies it is a hint, no more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

FEWEST_STRATEGIES = 4  # below it nothing can be told apart


def parameter_importance(scored: Sequence[tuple[Mapping[str, Any], float]]) -> dict[str, float]:
    """Share of the Dice's variation that each parameter explains; shares sum to 1.

    Args:
        scored: strategies of one arm and their Dice on the same fold.

    Returns:
        {} with fewer than four strategies, or where parameters or scores don't vary.

    Source: Hutter et al. 2014 (functional ANOVA), as in `optuna.importance`.
    """
    shared = set.intersection(*(set(s) for s, _ in scored)) if scored else set()
    varied = sorted(k for k in shared if len({repr(s[k]) for s, _ in scored}) > 1)
    if len(scored) < FEWEST_STRATEGIES or not varied or len({dice for _, dice in scored}) < 2:
        return {}
    distributions = {key: _distribution([s[key] for s, _ in scored]) for key in varied}
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        study = optuna.create_study(direction="maximize")
        for strategy, dice in scored:
            params = {key: strategy[key] for key in varied}
            study.add_trial(
                optuna.create_trial(params=params, distributions=distributions, value=dice)
            )
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        return dict(optuna.importance.get_param_importances(study, evaluator=evaluator))
    finally:
        optuna.logging.set_verbosity(verbosity)


def _distribution(values: Sequence[Any]) -> BaseDistribution:
    """The range that these values span; logarithmic over more than a decade."""
    if any(isinstance(v, bool) or not isinstance(v, int | float) for v in values):
        return CategoricalDistribution(list(dict.fromkeys(values)))
    if all(isinstance(v, int) for v in values):
        return IntDistribution(min(values), max(values))
    low, high = float(min(values)), float(max(values))
    return FloatDistribution(low, high, log=low > 0 and high / low > 10)
