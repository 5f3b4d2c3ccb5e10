"""Trials of an invented confirmation, so that a test states only the scores it is about."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest

from hsf_tune.records import Score, TrialEnded, TrialRecord, TrialStarted

DEFAULT_STRATEGY = {
    "finetuning.mode": "decoder",
    "finetuning.depth": 3,
    "finetuning.unfreeze_frequency": 4,
    "lightning.max_epochs": 20,
    "models.lr": 1e-3,
}


def trial(
    arm: str,
    strategy: Mapping[str, object],
    dice: Mapping[str, float],
    *,
    fold: int = 1,
    seed: int = 42,
    phase: str = "confirm",
    status: str = "finished",
    label: str = "CA1",
) -> TrialRecord:
    """A finished trial with one case a subject and one label."""
    name = f"{phase}-{arm}-{strategy.get('models.lr')}-f{fold}-s{seed}"
    scores = [Score(s, f"{s}--left", label, "dice", value) for s, value in dice.items()]
    started = TrialStarted(name, phase, arm, strategy, fold, seed, 20, (), tuple(dice))
    ended = TrialEnded(name, status, float(np.mean(list(dice.values()))), scores=scores)
    return TrialRecord(started, {}, ended)


@pytest.fixture
def make_trial() -> Callable[..., TrialRecord]:
    return trial


@pytest.fixture
def confirmation_trials() -> Callable[..., list[TrialRecord]]:
    """A whole search: arms with their true gains over the default, and both baselines; explored
    on one fold, where an arm's twelve strategies differ by up to `spread`, and confirmed."""

    def make(
        gains: Mapping[str, float],
        n: int = 20,
        sd: float = 0.01,
        finalists: int = 3,
        folds: int = 10,
        seeds: tuple[int, ...] = (42,),
        base: float | None = -0.05,
        default: bool = True,
        rng_seed: int = 0,
        spread: float = 0.005,
    ) -> list[TrialRecord]:
        rng, folds = np.random.default_rng(rng_seed), min(folds, n)
        subjects = [f"demo/s{i:02d}" for i in range(n)]
        difficulty = rng.normal(0.8, 0.03, n)
        roles = [
            (arm, {**DEFAULT_STRATEGY, "finetuning.mode": arm, "models.lr": (k + 2) / 1000}, gain)
            for arm, gain in gains.items()
            for k in range(1 if arm == "head" else finalists)
        ]
        roles += [("documented_default", DEFAULT_STRATEGY, 0.0)] if default else []
        roles += [("base", {}, base)] if base is not None else []
        trials = [
            trial(arm, {"models.lr": k / 1000}, {subjects[0]: level}, phase="explore")
            for arm, gain in gains.items()
            for k, level in enumerate(0.8 + gain - np.linspace(0, spread, 12), start=2)
        ]
        for arm, strategy, gain in roles:
            own = difficulty + gain + rng.normal(0, sd / np.sqrt(2), n)
            for fold in range(1, folds + 1):
                members = [i for i in range(n) if i % folds == fold - 1]
                for seed in seeds if strategy else seeds[:1]:
                    luck = rng.normal(0, 0.002) if strategy else 0.0
                    dice = {subjects[i]: float(own[i] + luck) for i in members}
                    trials.append(trial(arm, strategy, dice, fold=fold, seed=seed))
        return trials

    return make
