"""How often the verdict is right, on simulated searches.   python scripts/simulate_verdict.py

Draws searches whose truth is known, lets an exploration pick the finalists by a race
over folds, confirms them on the same subjects with new folds and two seeds, and asks
the real code (`hsf_tune.verdict`) what it would claim. Prints Markdown tables.

A search: two arms of 12 strategies; a strategy's true Dice is its arm's plus a normal
deviation of SD `spread`. A subject's score adds the subject's own difficulty, an effect
of subject and arm, one of subject and strategy (equal variances; together they give two
strategies of different arms a paired SD of `sd`), and the luck of a training (SD 0.004,
shared by the subjects of its fold).
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hsf_tune.config import VerdictConfig
from hsf_tune.verdict.decision import Status, decide
from hsf_tune.verdict.difference import Floats, estimate

SUBJECTS, SDS, SPREADS = (6, 10, 14, 20, 40), (0.010, 0.014, 0.020, 0.030), (0.0, 0.010)
EFFECTS = (0.0, 0.010, 0.020)
STRATEGIES, KEPT, FINALISTS, SEEDS = 12, 6, 3, 2
TRAINING_SD = 0.004  # of a fold's mean Dice, from one seed to another
DIFFICULTY_SD = 0.03  # of subjects; it cancels in paired differences
MARGINS = VerdictConfig()


@dataclass(frozen=True)
class Cell:
    """One setting of the simulation; `effect` is by how much arm 0 is truly better."""

    n: int
    sd: float
    spread: float
    effect: float

    @property
    def folds(self) -> int:
        return self.n if self.n < 8 else 5

    @property
    def number(self) -> int:
        """Differs from cell to cell and is the same in every process."""
        parts = (self.n, self.sd * 1000, self.spread * 1000, self.effect * 1000)
        return sum(round(part) * 1000**i for i, part in enumerate(parts))


@dataclass(frozen=True)
class Searches:
    """Simulated searches: true means (searches, 2, finalists), the confirmation's scores
    (searches, 2, finalists, subjects, seeds), and the same of the documented default."""

    truth: Floats
    scores: Floats
    default_truth: Floats
    default_scores: Floats
    folds: np.ndarray


@dataclass(frozen=True)
class Rates:
    """Shares of searches. `false`: claimed though the truth does not reach 0.005 Dice."""

    arm_right: float
    arm_wrong: float
    arm_equivalent: float
    strategy: float
    strategy_false: float
    strategy_equivalent: float
    default_false: float


def simulate(cell: Cell, repetitions: int, rng: np.random.Generator) -> Searches:
    """Draw searches: the truth, the exploration's race, the confirmation."""
    truth = rng.normal(0.0, cell.spread, (repetitions, 2, STRATEGIES))
    truth[:, 0] += cell.effect
    finalists = np.take_along_axis(truth, _race(truth, cell, rng), axis=2)
    default = truth[:, 1, :1]  # the documented default is a decoder strategy like any other
    together = np.concatenate([finalists.reshape(repetitions, -1), default], axis=1)
    scores = _confirm(together, [0] * FINALISTS + [1] * FINALISTS + [1], cell, rng)
    return Searches(
        truth=finalists,
        scores=scores[:, :-1].reshape(repetitions, 2, FINALISTS, cell.n, SEEDS),
        default_truth=default[:, 0],
        default_scores=scores[:, -1:],
        folds=np.arange(cell.n) % cell.folds,
    )


def _race(truth: Floats, cell: Cell, rng: np.random.Generator) -> np.ndarray:
    """The finalists' indices: all strategies on fold 1, 6 on fold 2, 3 on folds 3 and 4."""
    noise_sd = np.hypot(cell.sd / 2 / np.sqrt(cell.n / 4), TRAINING_SD)
    fold = [truth + rng.normal(0.0, noise_sd, truth.shape) for _ in range(2)]
    kept = np.argsort(-fold[0], axis=2)[:, :, :KEPT]
    mean = np.take_along_axis(fold[0] + fold[1], kept, axis=2)
    return np.take_along_axis(kept, np.argsort(-mean, axis=2)[:, :, :FINALISTS], axis=2)


def _confirm(truth: Floats, arms: Sequence[int], cell: Cell, rng: np.random.Generator) -> Floats:
    """Scores (searches, strategies, subjects, seeds) of strategies with these true means."""
    many, k = truth.shape
    part = cell.sd / 2  # two effects in each of two strategies: 4 * part**2 = sd**2
    difficulty = rng.normal(0.8, DIFFICULTY_SD, (many, 1, cell.n, 1))
    with_arm = rng.normal(0.0, part, (many, 2, cell.n, 1))[:, arms]
    with_strategy = rng.normal(0.0, part, (many, k, cell.n, 1))
    training = rng.normal(0.0, TRAINING_SD, (many, k, cell.folds, SEEDS))
    fold_of = np.arange(cell.n) % cell.folds
    return truth[:, :, None, None] + difficulty + with_arm + with_strategy + training[:, :, fold_of]


def rates(cell: Cell, repetitions: int, seed: int) -> Rates:
    """Ask the verdict's code about many simulated searches of one setting."""
    searches = simulate(cell, repetitions, np.random.default_rng([seed, cell.number]))
    counts = np.zeros(7)
    for i in range(repetitions):
        counts += _claims(searches, i)
    return Rates(*(counts / repetitions))


def _claims(searches: Searches, i: int) -> list[bool]:
    """What the verdict says of one search, in the order of the fields of `Rates`."""
    a, b = searches.scores[i]
    means = searches.scores[i].mean(axis=(2, 3))
    best = means.argmax(axis=1)
    arm, arm_sign = _ask(a, b, searches.folds, arm_claim=True)
    strategy, sign = _ask(a[best[:1]], b[best[1:]], searches.folds, arm_claim=False)
    gain = searches.truth[i, 0, best[0]] - searches.truth[i, 1, best[1]]
    side = int(means.max(axis=1).argmax())
    winner = searches.scores[i, side, best[side : side + 1]]
    default, up = _ask(winner, searches.default_scores[i], searches.folds, arm_claim=False)
    default_gain = searches.truth[i, side, best[side]] - searches.default_truth[i]
    return [
        arm == "superior" and arm_sign > 0,
        arm == "superior" and arm_sign < 0,
        arm == "equivalent",
        strategy == "superior",
        strategy == "superior" and sign * gain <= MARGINS.superior,
        strategy == "equivalent",
        default == "superior" and up * default_gain <= MARGINS.superior,
    ]


def _ask(a: Floats, b: Floats, folds: np.ndarray, *, arm_claim: bool) -> tuple[Status, float]:
    found = estimate(a, b, folds, arm_claim=arm_claim)
    return decide(found, MARGINS), float(np.sign(found.mean))


def null_table(found: dict[Cell, Rates]) -> str:
    """Arms equally good: false winners, and how often 'equivalent' is seen."""
    rows = [
        "No true difference between the arms (shares of searches in %)",
        "",
        "| subjects | SD | spread | arm: false winner | arm: equivalent | strategy: superior"
        " | strategy: falsely so | strategy: equivalent | default: falsely beaten |",
        "|" + "--:|" * 9,
    ]
    for cell, r in found.items():
        if cell.effect == 0:
            winners = r.arm_right + r.arm_wrong
            shares = [winners, r.arm_equivalent, r.strategy, r.strategy_false]
            rows.append(_row(cell, [*shares, r.strategy_equivalent, r.default_false]))
    return "\n".join(rows)


def power_table(found: dict[Cell, Rates]) -> str:
    """How often a true difference of the arms is found."""
    effects = [e for e in EFFECTS if e > 0]
    heads = "".join(f" arm, true {e:.2f} | strategy, true {e:.2f} |" for e in effects)
    rows = [
        "A true difference between the arms is found (shares of searches in %)",
        "",
        f"| subjects | SD | spread |{heads}",
        "|" + "--:|" * (3 + 2 * len(effects)),
    ]
    for cell in found:
        if cell.effect == 0:
            there = [found[Cell(cell.n, cell.sd, cell.spread, e)] for e in effects]
            rows.append(_row(cell, [x for r in there for x in (r.arm_right, r.strategy)]))
    return "\n".join(rows)


def _row(cell: Cell, shares: Sequence[float]) -> str:
    numbers = " | ".join(f"{100 * s:.1f}" for s in shares)
    return f"| {cell.n} | {cell.sd:.3f} | {cell.spread:.2f} | {numbers} |"


def main() -> None:
    parser = argparse.ArgumentParser(description="How often the verdict is right.")
    parser.add_argument("--repetitions", type=int, default=2000, help="searches per setting")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    started = time.perf_counter()
    cells = itertools.starmap(Cell, itertools.product(SUBJECTS, SDS, SPREADS, EFFECTS))
    found = {cell: rates(cell, options.repetitions, options.seed) for cell in cells}
    print(null_table(found), power_table(found), sep="\n\n")
    worst = max(r.arm_right + r.arm_wrong for c, r in found.items() if c.effect == 0)
    seconds = time.perf_counter() - started
    print(f"\n{options.repetitions} searches a row, {seconds:.0f} s.")
    print(f"False winners of the arm claim: at most {worst:.1%} in any row.")
    if worst > 0.05 + 3 * (0.05 * 0.95 / options.repetitions) ** 0.5:  # beyond chance
        raise SystemExit("Expected at most 5 %.")


if __name__ == "__main__":
    main()
