"""Ask the product's own code what it says of simulated searches whose truth is known."""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from benchmarks.verdict.searches import DESIGNS, TRAINING_SD, Searches, Setting, draw
from hsf_tune.config import VerdictConfig
from hsf_tune.records import BASE, DEFAULT
from hsf_tune.verdict.comparisons import Evidence, estimate_test, planned_tests
from hsf_tune.verdict.decision import decide, subjects_needed
from hsf_tune.verdict.difference import Estimate, estimate
from hsf_tune.verdict.recommendation import recommend
from hsf_tune.verdict.scores import Confirmation, Confirmed

MARGINS = VerdictConfig()
ARMS = ("encoder", "decoder")
EVERY = 5  # searches, of which one is asked how many subjects would decide: that takes longest


@dataclass(frozen=True)
class Case:
    """One simulated search, as the product sees it, and what its strategies are truly worth."""

    evidence: Evidence
    best: dict[str, Confirmed]
    winner: Confirmed
    truth: dict[str, float]
    effect: float

    def tests(self) -> Iterator[tuple[str, Estimate, float]]:
        """(claim, estimate, true difference) of everything that is tested."""
        finalists = self.evidence.confirmation.finalists
        main, others = planned_tests(self.evidence, finalists, self.best, self.winner)
        for test in (*main, *others):
            rival = test.between[1]
            name = rival if rival in (BASE, DEFAULT) else test.claim
            truth = self.truth[test.first[0].key] - self.truth[test.second[0].key]
            if test.claim == "arm":
                truth = self.effect
            yield name, estimate_test(test, self.evidence), truth


def cases(setting: Setting, drawn: Searches) -> Iterator[Case]:
    names = tuple(f"s{i:02d}" for i in range(setting.n))
    seeds = tuple(range(drawn.default.shape[-1]))
    leaders = drawn.scores.mean(axis=(3, 4)).argmax(axis=2)
    for i, leader in enumerate(leaders):
        finalists = {
            arm: tuple(Confirmed(f"{arm}{j}", arm, {}, dice) for j, dice in enumerate(scores))
            for arm, scores in zip(ARMS, drawn.scores[i], strict=True)
        }
        keys = [c.key for members in finalists.values() for c in members]
        truth = dict(zip(keys, map(float, drawn.truth[i].ravel()), strict=True))
        truth |= {DEFAULT: float(drawn.default_truth[i]), BASE: float(drawn.base_truth[i])}
        default = Confirmed(DEFAULT, DEFAULT, {}, drawn.default[i])
        base = None if setting.base is None else Confirmed(BASE, BASE, {}, drawn.base[i])
        confirmation = Confirmation(names, seeds, drawn.folds, finalists, default, base)
        tried = dict(zip(ARMS, drawn.tried[i], strict=True))
        best = {arm: finalists[arm][j] for arm, j in zip(ARMS, leader, strict=True)}
        winner = max(best.values(), key=lambda c: float(c.dice.mean()))
        yield Case(Evidence(confirmation, tried, {}, MARGINS), best, winner, truth, setting.effect)


def rates(setting: Setting, searches: int, seed: int = 0) -> dict[str, float]:
    """Shares of searches (and mean Dice under "flattered" and "flattery said")."""
    rng = np.random.default_rng([seed, zlib.crc32(repr(setting).encode())])
    drawn = draw(setting, searches, rng)
    sums: defaultdict[str, float] = defaultdict(float)
    for i, case in enumerate(cases(setting, drawn)):
        seen: dict[str, float] = {}
        for claim, found, truth in case.tests():
            seen |= _outcome(claim, found, truth)
            if claim == "strategy":
                seen |= _outlier(found, truth, int(drawn.failed[i]))
                if i % EVERY == 0:
                    seen |= _more_subjects(setting, found, truth, rng)
        if setting.base is not None:
            seen |= _recommended(case)
        for name, value in seen.items():
            sums[name] += float(value)
    return {name: value / searches for name, value in sorted(sums.items())}


def _outcome(claim: str, found: Estimate, truth: float) -> dict[str, float]:
    """`false`: named a winner that is not better by more than the margin of superiority.
    `unlike`: called equivalent what differs by the margin of equivalence or more."""
    status = decide(found, MARGINS)
    low, high = found.interval(0.95)
    wrong = np.sign(found.mean) * truth <= MARGINS.superior
    return {
        f"{claim} superior": status == "superior" and not wrong,
        f"{claim} false": status == "superior" and wrong,
        f"{claim} equivalent": status == "equivalent",
        f"{claim} unlike": status == "equivalent" and abs(truth) >= MARGINS.equivalent,
        f"{claim} covered": low <= truth <= high,
        f"{claim} half width": (high - low) / 2,
    }


def _outlier(found: Estimate, truth: float, failed: int) -> dict[str, float]:
    """Whether one subject is named, whether rightly, and what is decided without it."""
    place = found.dominant()
    if place is None:
        return {}
    without = found.without(place)
    told = decide(without, MARGINS) == "superior" and np.sign(without.mean) * truth > 0.005
    return {"named": 1, "named rightly": place == failed, "superior without": told}


def _more_subjects(
    setting: Setting, found: Estimate, truth: float, rng: np.random.Generator
) -> dict[str, float]:
    """Of undecided strategy claims: are they decided with as many subjects as was said?"""
    if decide(found, MARGINS) != "undecided":
        return {}
    needed = subjects_needed(found, MARGINS)
    counts: dict[str, float] = {"open": 1, "open reachable": needed is not None}
    for name, n in () if needed is None else (("low", needed.low), ("high", needed.high)):
        if n is not None:
            again = _again(setting, truth, n, rng)
            counts |= {f"said {name}": 1, f"held {name}": decide(again, MARGINS) != "undecided"}
    return counts


def _again(setting: Setting, truth: float, n: int, rng: np.random.Generator) -> Estimate:
    """The same two strategies confirmed on n subjects."""
    folds = np.arange(n) % min(DESIGNS[setting.design].confirm, n)
    of_fold = np.hypot(setting.sd * setting.fold**0.5, TRAINING_SD * 2**0.5)
    values = truth + setting.sd * rng.standard_normal(n)
    values += of_fold * rng.standard_normal(folds.max() + 1)[folds]
    return estimate(values[None, :, None], np.zeros((1, 1, 1)), folds)


def _recommended(case: Case) -> dict[str, float]:
    confirmation = case.evidence.confirmation
    assert confirmation.base is not None
    advice, chosen = recommend(confirmation, confirmation.finalists, case.winner)
    best = max(case.truth.values())
    base = case.truth[BASE]
    rivals = (case.winner.mean, confirmation.default.mean if confirmation.default else -1.0)
    said_best = confirmation.base.mean > max(rivals)
    return {
        "base is best": base >= best,
        "base is best, tune": base >= best and advice.arm != BASE,
        "base scores best, tune": said_best and advice.arm != BASE,
        "regret": best - case.truth[chosen.key],
        "flattered": case.winner.mean - 0.8 - case.truth[case.winner.key],
        "flattery said": advice.flattered_by if advice.candidates > 1 else 0.0,
        "picked": advice.candidates > 1,
    }
