"""Strategies that an arm proposes, and what they are truly worth.

alike: drawn independently, so that any one could stand for any other. slope and uneven:
points in two dimensions (a rate and a depth, both in [0, 1]), proposed by a vectorised
Tree-structured Parzen Estimator that follows Optuna's defaults (Bergstra et al. 2011).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.random import Generator
from scipy.special import ndtr, ndtri

from hsf_tune.verdict.difference import Floats

if TYPE_CHECKING:
    from benchmarks.verdict.searches import Design, Setting

Proposer = Callable[["Setting", "Design", Floats, Generator], Floats]
STARTUP, CANDIDATES = 4, 24
DEFAULT_AT = (1 / 3, 1.0)  # 1e-3 in a range of 1e-4 to 1e-1; all blocks


def slope(x: Floats) -> Floats:
    """Rises with the rate up to 0.8 of its range and falls off steeply; deeper is a bit better."""
    rate, depth = x[..., 0] - 0.8, x[..., 1]
    return np.where(rate < 0, rate, -3 * rate) + 0.2 * depth


def peak(x: Floats) -> Floats:
    """Good only near a rate of 0.4, flat elsewhere: often missed."""
    rate, depth = (x[..., 0] - 0.4) / 0.2, x[..., 1]
    return np.exp(-0.5 * rate**2) + 0.2 * depth


def _unit(landscape: Callable[[Floats], Floats]) -> Callable[[Floats], Floats]:
    """The landscape at mean 0 and SD 1 over its square."""
    grid = np.stack(np.meshgrid(*[(np.arange(200) + 0.5) / 200] * 2), axis=-1)
    values = landscape(grid)
    mean, sd = values.mean(), values.std()
    return lambda x: (landscape(x) - mean) / sd


def alike(setting: Setting, design: Design, seen: Floats, rng: Generator) -> Floats:
    """(searches, 2, strategies) true Dice of strategies drawn independently."""
    return rng.normal(0.0, setting.spread, (len(seen), 2, design.strategies))


def _guided(*landscapes: Callable[[Floats], Floats]) -> Proposer:
    worth = [_unit(landscape) for landscape in landscapes]

    def propose(setting: Setting, design: Design, seen: Floats, rng: Generator) -> Floats:
        """The same, each strategy proposed from how those before it did on the first fold."""
        searches, n = len(seen), design.strategies
        x = np.empty((searches, 2, n, 2))
        x[:, :, :STARTUP] = rng.random((searches, 2, min(STARTUP, n), 2))
        x[:, 1, 0] = DEFAULT_AT
        truth = np.empty((searches, 2, n))
        for t in range(n):
            if t >= STARTUP:
                told = truth[:, :, :t] + seen[:, :, :t, 0]
                points = x[:, :, :t].reshape(2 * searches, t, 2)
                x[:, :, t] = tpe(points, told.reshape(2 * searches, t), rng).reshape(searches, 2, 2)
            for arm in range(2):
                truth[:, arm, t] = setting.spread * worth[arm](x[:, arm, t])
        return truth

    return propose


def tpe(x: Floats, told: Floats, rng: Generator) -> Floats:
    """(searches, dimensions) next points in [0, 1], from (searches, t, dimensions) points and
    (searches, t) scores."""
    t = told.shape[1]
    order = np.argsort(-told, axis=1)[..., None]
    ranked = np.take_along_axis(x, order, axis=1)
    good = min(int(np.ceil(0.1 * t)), 25)
    out = np.empty((len(x), x.shape[2]))
    for d in range(x.shape[2]):  # each dimension on its own, as Optuna's default does
        better, worse = _parzen(ranked[:, :good, d]), _parzen(ranked[:, good:, d])
        candidates = _sample(*better, rng)
        gain = _log_density(candidates, *better) - _log_density(candidates, *worse)
        out[:, d] = np.take_along_axis(candidates, gain.argmax(axis=1)[:, None], axis=1)[:, 0]
    return out


def _parzen(points: Floats) -> tuple[Floats, Floats]:
    """Means and widths (searches, kernels) of truncated normals, the prior's the last."""
    many = len(points)
    mu = np.concatenate([points, np.full((many, 1), 0.5)], axis=1)
    order = np.argsort(mu, axis=1)
    padded = np.concatenate(
        [np.zeros((many, 1)), np.take_along_axis(mu, order, 1), np.ones((many, 1))], axis=1
    )
    gaps = np.diff(padded, axis=1)
    widths = np.maximum(gaps[:, :-1], gaps[:, 1:])
    sigma = np.empty_like(mu)
    np.put_along_axis(sigma, order, widths, axis=1)
    sigma = np.clip(sigma, 1.0 / min(100.0, 1.0 + mu.shape[1]), 1.0)
    sigma[:, -1] = 1.0
    return mu, sigma


def _sample(mu: Floats, sigma: Floats, rng: Generator) -> Floats:
    which = rng.integers(mu.shape[1], size=(len(mu), CANDIDATES))
    m, s = np.take_along_axis(mu, which, 1), np.take_along_axis(sigma, which, 1)
    low, high = ndtr(-m / s), ndtr((1 - m) / s)
    return np.clip(m + s * ndtri(low + rng.random(m.shape) * (high - low)), 0.0, 1.0)


def _log_density(at: Floats, mu: Floats, sigma: Floats) -> Floats:
    m, s = mu[:, None], sigma[:, None]
    inside = ndtr((1 - m) / s) - ndtr(-m / s)
    return np.log(
        (np.exp(-0.5 * ((at[..., None] - m) / s) ** 2) / (s * inside)).mean(axis=2) + 1e-12
    )


PROPOSERS: dict[str, Proposer] = {
    "alike": alike,
    "slope": _guided(slope, slope),
    "uneven": _guided(slope, peak),
}
