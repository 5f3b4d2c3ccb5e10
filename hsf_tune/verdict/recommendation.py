"""Recommend a strategy, whatever the verdict.

A recommendation takes less evidence than a claim: someone has to start somewhere. It
falls back on the documented default, which nobody chose on these subjects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hsf_tune.records import DEFAULT
from hsf_tune.verdict.claims import Recommendation
from hsf_tune.verdict.difference import estimate
from hsf_tune.verdict.scores import Confirmation, Confirmed, Explored


def recommend(
    confirmation: Confirmation, best: Mapping[str, Confirmed], winner: Confirmed
) -> Recommendation:
    """The highest confirmed mean if its 80 % interval against the default is above 0."""
    default, shared = confirmation.default, confirmation.shared
    if default is None:
        reason = (
            f"It has the highest confirmed Dice ({winner.mean_on(shared):.3f}). The documented default was"
            " not confirmed, so nothing says whether it is better than that."
        )
        return Recommendation(winner.arm, winner.strategy, reason)
    if default.key == winner.key or default.mean_on(shared) >= winner.mean_on(shared):
        reason = (
            "The documented default has the highest confirmed Dice"
            f" ({default.mean_on(shared):.3f})."
        )
        return Recommendation(_arm_of(default, best), default.strategy, reason)
    pair = winner.dice[None], default.dice[None]
    found = estimate(*pair, confirmation.folds, arm_claim=False)
    low, high = found.interval(0.80)
    limits = f"{found.mean:+.3f} Dice, 80 % interval {low:+.3f} to {high:+.3f}"
    if low > 0:
        reason = (
            f"It has the highest confirmed Dice ({winner.mean_on(shared):.3f}) and is probably better than"
            f" the documented default ({limits})."
        )
        return Recommendation(winner.arm, winner.strategy, reason)
    reason = (
        "The documented default: the best strategy found is not reliably better than it"
        f" ({limits})."
    )
    return Recommendation(_arm_of(default, best), default.strategy, reason)


def _arm_of(default: Confirmed, best: Mapping[str, Confirmed]) -> str | None:
    """The arm that the documented default belongs to, by its mode."""
    if default.arm != DEFAULT:
        return default.arm
    mode = default.strategy.get("finetuning.mode")
    return mode if mode in best else None


def recommend_explored(explored: Sequence[Explored]) -> Recommendation:
    """Without a confirmation nothing is decided; the exploration's leader is recommended, unless
    the documented default, where it ran beside the arms, did as well on the folds of both."""
    if not explored:
        return Recommendation(None, {}, "No trial has finished yet.")
    most = max(len(e.dice_of_fold) for e in explored)
    leader = max((e for e in explored if len(e.dice_of_fold) == most), key=lambda e: e.dice)
    default = next((e for e in explored if e.arm == DEFAULT and e is not leader), None)
    if default is not None:
        theirs = [f for f in default.dice_of_fold if f in leader.dice_of_fold]
        known = sum(default.dice_of_fold[f] for f in theirs)
        if theirs and known >= sum(leader.dice_of_fold[f] for f in theirs):
            mode = default.strategy.get("finetuning.mode")
            reason = (
                f"No explored strategy was better: the documented default has a Dice of"
                f" {known / len(theirs):.3f} on the folds of both, the arms' best"
                f" {sum(leader.dice_of_fold[f] for f in theirs) / len(theirs):.3f}."
            )
            arm = mode if mode in {e.arm for e in explored} else None
            return Recommendation(arm, default.strategy, reason)
    reason = (
        f"It leads the exploration with a Dice of {leader.dice:.3f} over {most}"
        f" fold{'s' if most > 1 else ''}. That number is flattered by having been chosen; without"
        " a confirmation nothing says whether it is better than the documented default."
    )
    return Recommendation(leader.arm, leader.strategy, reason)
