"""Recommend a strategy, whatever the verdict.

A recommendation takes less evidence than a claim: someone has to start somewhere. It
falls back on what nobody chose on these subjects: the documented default, or not to
finetune at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hsf_tune.records import BASE, DEFAULT
from hsf_tune.verdict.claims import Recommendation
from hsf_tune.verdict.comparisons import picked, stack
from hsf_tune.verdict.difference import Estimate, estimate
from hsf_tune.verdict.luck import flattery
from hsf_tune.verdict.scores import Confirmation, Confirmed, Explored

LEVEL = 0.80  # of the interval whose lower limit has to be above 0


def recommend(
    confirmation: Confirmation,
    finalists: Mapping[str, tuple[Confirmed, ...]],
    winner: Confirmed,
) -> tuple[Recommendation, Confirmed]:
    """The highest confirmed mean if its 80 % lower limits against the documented default and the
    unchanged base are above 0, else the better of these two; and the scores of what it is."""
    everyone = tuple({c.key: c for members in finalists.values() for c in members}.values())
    pool, shared = stack(everyone), confirmation.shared
    rivals = [c for c in (confirmation.default, confirmation.base) if c and c.key != winner.key]
    extra = picked(pool, pool[:1], confirmation.folds)
    against = [estimate(stack((winner,)), stack((c,)), confirmation.folds, extra) for c in rivals]
    if all(found.interval(LEVEL)[0] > 0 for found in against):
        reason = f"It has the highest confirmed Dice ({winner.mean_on(shared):.3f})"
        limits = [f"{_the(c)} ({_limits(f)})" for c, f in zip(rivals, against, strict=True)]
        reason += f" and is probably better than {' and '.join(limits)}." if rivals else "."
        if confirmation.default is None:
            reason += " The documented default was not confirmed."
        flattered = flattery(pool, confirmation.folds)
        if len(everyone) > 1:
            reason += (
                f" Being the best of {len(everyone)} on these subjects flatters it, by about"
                f" {flattered:.3f}."
            )
        advice = Recommendation(winner.arm, winner.strategy, reason, None, len(everyone), flattered)
        return advice, winner
    default = confirmation.default
    fallbacks = [*rivals, winner] if default and default.key == winner.key else rivals
    chosen = max(fallbacks, key=lambda c: c.mean_on(shared))
    name = _the(chosen)
    if chosen.mean_on(shared) >= winner.mean_on(shared):
        reason = f"{name[0].upper()}{name[1:]} has the highest confirmed Dice ({chosen.mean_on(shared):.3f})."
    else:
        found = min(against, key=lambda f: f.interval(LEVEL)[0])
        rival = rivals[against.index(found)]
        reason = (
            f"{name[0].upper()}{name[1:]}: the best strategy found is not reliably better than"
            f" {_the(rival)} ({_limits(found)})."
        )
    if chosen.arm == BASE:
        return Recommendation(BASE, {}, f"Don't finetune. {reason}"), chosen
    return Recommendation(_arm_of(chosen, finalists), chosen.strategy, reason), chosen


def _the(rival: Confirmed) -> str:
    return "the unchanged base model" if rival.arm == BASE else "the documented default"


def _limits(found: Estimate) -> str:
    low, high = found.interval(LEVEL)
    return f"{found.mean:+.3f} Dice, 80 % interval {low:+.3f} to {high:+.3f}"


def _arm_of(default: Confirmed, arms: Mapping[str, object]) -> str | None:
    """The arm that the documented default belongs to, by its mode."""
    if default.arm != DEFAULT:
        return default.arm
    mode = default.strategy.get("finetuning.mode")
    return mode if mode in arms else None


def recommend_explored(explored: Sequence[Explored]) -> Recommendation:
    """Without a confirmation nothing is decided; the exploration's leader is recommended, unless
    the documented default, where it ran beside the arms, did as well on the folds of both."""
    if not explored:
        return Recommendation(None, {}, "No trial has finished yet.")
    leader = _leader(explored)
    most = len(leader.dice_of_fold)
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


def _leader(explored: Sequence[Explored]) -> Explored:
    """The best of the arms' own leaders, on the folds that all of these were trained on.

    A search that was cut short has taken one arm to more folds than another; within an arm who
    went further is ahead.
    """
    of_arms = [e for e in explored if e.arm != DEFAULT] or explored
    by_progress = sorted(of_arms, key=lambda e: (len(e.dice_of_fold), e.dice))
    leaders = {e.arm: e for e in by_progress}.values()
    shared = set.intersection(*(set(e.dice_of_fold) for e in leaders))

    def on_shared(e: Explored) -> float:
        return sum(e.dice_of_fold[fold] for fold in shared)

    return max(leaders, key=on_shared if shared else lambda e: e.dice)
