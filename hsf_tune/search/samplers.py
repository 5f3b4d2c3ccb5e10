"""The samplers that propose an arm's strategies: one row each, as `search.sampler` names it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import NamedTuple

import optuna
from optuna.samplers import BaseSampler, RandomSampler, TPESampler

from hsf_tune.config import SearchConfig
from hsf_tune.errors import ConfigError, did_you_mean


class Sampler(NamedTuple):
    """How suggestions are made.

    Attributes:
        build: (search, seed of the suggestion) -> Optuna's sampler for it.
        walks_grid: go through the points of a grid in random order, without asking Optuna's sampler.
    """

    build: Callable[[SearchConfig, int], BaseSampler]
    walks_grid: bool = False


def _tpe(search: SearchConfig, seed: int) -> BaseSampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return TPESampler(
            n_startup_trials=search.n_startup_trials,
            multivariate=True,
            constant_liar=True,
            seed=seed,
        )


def _random(search: SearchConfig, seed: int) -> BaseSampler:
    return RandomSampler(seed)


SAMPLERS = {"tpe": Sampler(_tpe), "random": Sampler(_random), "grid": Sampler(_random, True)}


def sampler_of(search: SearchConfig) -> Sampler:
    """The sampler that the configuration names.

    Raises:
        ConfigError: there is none of that name.
    """
    if search.sampler not in SAMPLERS:
        raise ConfigError(
            f"search.sampler is '{search.sampler}'; expected {' or '.join(SAMPLERS)}."
            + did_you_mean(search.sampler, SAMPLERS)
        )
    return SAMPLERS[search.sampler]
