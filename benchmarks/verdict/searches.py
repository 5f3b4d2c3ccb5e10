"""Draw searches whose truth is known: two arms, a race over folds, a confirmation.

A strategy's score on a subject adds the strategy's true Dice, the subject's difficulty, an
effect of subject and arm and one of subject and strategy (equal variances; together they
give two strategies of different arms a paired SD of `sd`), the same twice for folds (in
variance `fold` times the subjects'), and the luck of one training (SD 0.004). The effects
of subjects are the same in the exploration and in the confirmation; the folds are not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.verdict.landscapes import PROPOSERS
from hsf_tune.verdict.difference import Floats

TRAINING_SD = 0.004  # of a fold's mean Dice, from one seed to another
DIFFICULTY_SD = 0.03  # of subjects; it cancels in paired differences
FAILURE = 0.3  # Dice that a failed subject loses under arm 0


@dataclass(frozen=True)
class Design:
    """How many strategies an arm tries, how many go on to folds 2, 3, ..., how it is confirmed."""

    strategies: int = 12
    keep: tuple[int, ...] = (6, 3, 3)
    explore: int = 4
    confirm: int = 10
    seeds: int = 1

    @property
    def finalists(self) -> int:
        return self.keep[-1]


DESIGNS = {
    "shipped": Design(),
    "5x2": Design(confirm=5, seeds=2),
    "demo": Design(strategies=6, keep=(2,), explore=2, confirm=3),
}


@dataclass(frozen=True)
class Setting:
    """One setting of the simulation.

    Attributes:
        sd: of a subject's difference between two strategies of different arms.
        spread: SD of the true Dice of strategies that an arm might draw at random.
        fold: variance that the subjects of a fold share, in units of sd**2.
        effect: by how much arm 0 is truly better.
        landscape: of strategies, see `landscapes.py`.
        people: normal; heavy: every effect of a subject has heavy tails (t with 3 degrees of
            freedom); failed: one subject fails under all strategies of arm 0.
        base: true Dice of the unchanged base beyond that of each search's best strategy.
    """

    n: int
    sd: float = 0.014
    spread: float = 0.01
    fold: float = 0.3
    effect: float = 0.0
    landscape: str = "alike"
    design: str = "shipped"
    people: str = "normal"
    base: float | None = None

    def __str__(self) -> str:
        parts = [f"n {self.n}", f"SD {self.sd:g}", f"spread {self.spread:g}"]
        parts += [f"fold {self.fold:g}", f"true {self.effect:g}"]
        unusual = {self.landscape, self.people, self.design} - {"alike", "normal", "shipped"}
        parts += [*sorted(unusual), *([] if self.base is None else [f"base +{self.base:g}"])]
        return ", ".join(parts)


@dataclass(frozen=True)
class Searches:
    """Simulated searches.

    Attributes:
        truth: (searches, 2, finalists) true Dice.
        scores: (searches, 2, finalists, subjects, seeds) of the confirmation.
        default, base: the same of the documented default, a strategy of arm 1, and of the base:
            (searches,) and (searches, subjects, seeds).
        tried: (searches, 2, strategies) Dice of all strategies on the exploration's first fold.
        folds: (subjects,) of the confirmation.
        failed: (searches,) the subject that failed; -1 where none did.
    """

    truth: Floats
    scores: Floats
    default_truth: Floats
    default: Floats
    base_truth: Floats
    base: Floats
    tried: Floats
    folds: np.ndarray
    failed: np.ndarray


def draw(setting: Setting, searches: int, rng: np.random.Generator) -> Searches:
    """Draw the truth, run the exploration's race, draw the confirmation."""
    design = DESIGNS[setting.design]
    people = _People(setting, design, searches, rng)
    truth = PROPOSERS[setting.landscape](setting, design, people.seen, rng)
    explored = truth[..., None] + people.seen
    chosen = _race(explored, design)  # (searches, 2, finalists)
    finalists = np.take_along_axis(truth, chosen, axis=2)
    shift = setting.effect
    if setting.landscape != "alike":  # arms of different make: equal is what searches find equal
        shift -= finalists[:, 0].mean() - finalists[:, 1].mean()
    finalists[:, 0] += shift
    return people.confirm(finalists, truth[:, 1, 0], chosen, explored[..., 0])


def _race(explored: Floats, design: Design) -> np.ndarray:
    """The finalists' indices, from (searches, 2, strategies, folds) scores."""
    kept = np.broadcast_to(np.arange(design.strategies), explored.shape[:3])
    for fold, many in enumerate(design.keep):
        mean = np.take_along_axis(explored[..., : fold + 1].mean(axis=3), kept, axis=2)
        kept = np.take_along_axis(kept, np.argsort(-mean, axis=2)[:, :, :many], axis=2)
    return kept


class _People:
    """The subjects of each search, and how strategies fare on them."""

    def __init__(
        self, setting: Setting, design: Design, searches: int, rng: np.random.Generator
    ) -> None:
        n, self._setting, self._design, self._rng = setting.n, setting, design, rng
        part = setting.sd / 2  # two effects in each of two strategies: 4 * part**2 = sd**2
        self.with_arm = part * self._standard((searches, 2, n))
        self.with_strategy = part * self._standard((searches, 2, design.strategies, n))
        self.failed = np.full(searches, -1)
        if setting.people == "failed":
            self.failed = rng.integers(n, size=searches)
            self.with_arm[np.arange(searches), 0, self.failed] -= FAILURE
        fold_of = rng.permutation(n) % design.explore
        of_fold = (
            np.array([fold_of == f for f in range(design.explore)]) / np.bincount(fold_of)[:, None]
        )
        own = np.hypot(part * setting.fold**0.5, TRAINING_SD)
        shape = (searches, 2, design.strategies, design.explore)
        self.seen = (self.with_arm[:, :, None] + self.with_strategy) @ of_fold.T
        self.seen += rng.normal(0.0, own, shape)  # what the exploration's scores add to the truth

    def _standard(self, shape: tuple[int, ...]) -> Floats:
        if self._setting.people == "heavy":
            return self._rng.standard_t(3, shape) / 3**0.5
        return self._rng.standard_normal(shape)

    def confirm(
        self, truth: Floats, default_truth: Floats, chosen: np.ndarray, tried: Floats
    ) -> Searches:
        s, design, rng, n = self._setting, self._design, self._rng, self._setting.n
        many, part = len(truth), self._setting.sd / 2
        k = design.finalists
        n_folds = min(design.confirm, n)
        folds = np.arange(n) % n_folds
        difficulty = rng.normal(0.8, DIFFICULTY_SD, (many, 1, 1, n, 1))
        own = np.take_along_axis(self.with_strategy, chosen[..., None], axis=2)
        own = np.concatenate([own, np.repeat(self.with_strategy[:, :, :1], 1, axis=2)], axis=2)
        shared = self.with_arm[:, :, None]
        sd = part * s.fold**0.5
        of_arm = rng.normal(0.0, sd, (many, 2, 1, n_folds))
        of_strategy = rng.normal(0.0, sd, (many, 2, k + 1, n_folds))
        luck = rng.normal(0.0, TRAINING_SD, (many, 2, k + 1, n_folds, design.seeds))
        trained = ((of_arm + of_strategy)[..., None] + luck)[:, :, :, folds]
        both = np.concatenate([truth, np.stack([default_truth] * 2, 1)[..., None]], axis=2)
        scores = both[..., None, None] + difficulty + (shared + own)[..., None] + trained
        # the default is a strategy of arm 1: where it is a finalist, its trials serve as both
        default = scores[:, 1, k].copy()
        same = chosen[:, 1] == 0
        for j in range(k):
            default[same[:, j]] = scores[same[:, j], 1, j]
        base_truth = truth.max(axis=(1, 2)) + (s.base or 0.0)
        base = base_truth[:, None, None] + difficulty[:, 0, 0]
        base = base + (part * 2**0.5 * rng.standard_normal((many, n)))[..., None]
        return Searches(truth, scores[:, :, :k], default_truth, default, base_truth,
                        np.repeat(base, design.seeds, axis=2), tried, folds, self.failed)  # fmt: skip
