"""Put a verdict into words that a researcher can quote.

Numbers come ready; nothing is decided here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from hsf_tune.modes import MODES
from hsf_tune.records import BASE, DEFAULT
from hsf_tune.verdict.claims import Difference, Verdict

NOT_CONFIRMED = (
    "Not confirmed: the strategies were explored but not confirmed on new folds, so which arm is"
    " better is not known."
)
_NAMES = {
    **{name: mode.phrase for name, mode in MODES.items()},
    "head": "the final convolution alone",
    DEFAULT: "the documented default",
    BASE: "the unchanged base model",
}
_KINDS = {"full": "whole-network", "head": "final-convolution"}
_BASELINES = (DEFAULT, BASE)


def name_of(arm: str) -> str:
    """An arm or baseline as a researcher calls it."""
    return _NAMES.get(arm, f"'{arm}'")


def recipe_of(arm: str) -> str:
    """The best strategy of an arm, or a baseline."""
    if arm in _BASELINES:
        return _NAMES[arm]
    kind = _KINDS.get(arm, arm if arm in _NAMES else f"'{arm}'")
    return f"the best {kind} recipe found"


def verdict(found: Verdict, n_subjects: int) -> str:
    """The verdict in a sentence or two."""
    chosen, best = found.recommendation, found.winner
    start = ""
    if chosen.arm == BASE and chosen.level and best:
        base = f"{chosen.level.mean:.3f} Dice"
        start = (
            f"Don't finetune: nothing tried is reliably better than the unchanged base ({base}). "
        )
    return start + _of_arms(found, n_subjects)


def _of_arms(found: Verdict, n_subjects: int) -> str:
    if found.status == "single_arm":
        return _single_arm(found)
    of_pair = [d for d in found.differences if d.between[1] not in _BASELINES]
    tested = next((d for d in of_pair if d.claim == "strategy"), None)
    if tested is None:
        arm = name_of(next(iter(found.arms)))
        return f"Undecided: no other arm than {arm} has confirmed strategies to compare it with."
    general = next((d for d in of_pair if d.claim == "arm"), None)
    a, b = (recipe_of(arm) for arm in tested.between)
    others = _beaten_by_others(of_pair)
    if found.status == "winner":
        better, worse = _ordered(tested)
        text = (
            f"{_capital(recipe_of(better))} beats {recipe_of(worse)} by {abs(tested.mean):.3f} Dice"
            f" (95 % interval {_from_the_better(tested)}, {_n(tested)}{_tried(found, tested)})"
        )
        return f"{text}{_in_general(general, better)}{others}"
    if found.status == "equivalent":
        text = f"Equivalent: between {a} and {b} there is no difference that matters"
        return f"{text} ({_limits(tested, 90)}{_tried(found, tested)}).{others}"
    if found.status == "not_comparable":
        return f"Not comparable yet: {_why_not(found, tested)}{others}"
    text = f"Undecided: the data can't tell whether {a} or {b} is better"
    text += f" ({_limits(tested)}{_tried(found, tested)})."
    return f"{text} {_needed(tested, n_subjects)}{others}"


def difference(found: Difference) -> str:
    """One tested difference as a sentence."""
    first, second = found.between
    if found.claim == "strategy":
        start = f"{_capital(recipe_of(first))} against {recipe_of(second)}"
    else:
        start = f"{_capital(name_of(first))} against {name_of(second)}, mean of finalists"
    if found.status == "superior":
        word = "better" if found.better == first else "worse"
        return f"{start}: {word} ({_limits(found)})."
    level = 90 if found.status == "equivalent" else 95
    return f"{start}: {found.status.replace('_', ' ')} ({_limits(found, level)})."


def outliers(tested: Iterable[Difference]) -> Iterator[str]:
    """A sentence on each difference between arms or against the default that one subject rules."""
    for d in tested:
        if d.outlier and not d.corrected:
            low, high = d.outlier.ci95
            yield (
                f"{d.outlier.subject} makes up more than half of what varies in"
                f" '{difference(d).split(':')[0]}'. Look at it; without it the difference is"
                f" {d.outlier.mean:+.3f} (95 % interval {low:+.3f} to {high:+.3f})."
            )


def _single_arm(found: Verdict) -> str:
    arm = next(iter(found.arms))
    text = f"The search had one arm ({name_of(arm)}), so there is no other to compare it with."
    tests = [difference(d) for d in found.differences if d.between[1] == DEFAULT]
    return " ".join([text, *tests])


def _in_general(general: Difference | None, better: str) -> str:
    """The arm claim, after the strategy claim."""
    if general is None:
        return ". Of the arms in general nothing can be said."
    limits = f"mean of finalists {_from_the_better(general, better)}"
    if general.better == better:
        return f"; so does {name_of(better)} in general ({limits})."
    return (
        f". Whether {name_of(better)} is better in general is not shown ({limits}): another search"
        " may end elsewhere."
    )


def _tried(found: Verdict, tested: Difference) -> str:
    """How many strategies stand behind either side; "" where that is not known."""
    a, b = (found.checks[arm].tried if arm in found.checks else 0 for arm in tested.between)
    if not (a and b):
        return ""
    return f"; {a} tried in each" if a == b else f"; {a} and {b} tried"


def _why_not(found: Verdict, tested: Difference) -> str:
    a, b = tested.between
    checks, other = found.checks[a], found.checks[b]
    if not checks.overlaps(b):
        shared = [k for k in checks.ranges if k in other.ranges]
        spans = [
            f"{key} {checks.ranges[key].low:.2g} to {checks.ranges[key].high:.2g} and"
            f" {other.ranges[key].low:.2g} to {other.ranges[key].high:.2g}"
            for key in shared
        ]
        return (
            f"{name_of(a)} and {name_of(b)} were hardly tried at the same rates ({'; '.join(spans)})."
            " Search on with more strategies, or with the same range for both."
        )
    return (
        f"strategies of {name_of(a)} or {name_of(b)} are at the edge of their range or were still"
        " improving when their training ended. Search on with wider ranges or longer trainings."
    )


def _beaten_by_others(of_pair: list[Difference]) -> str:
    """What is better than another beyond the first pair."""
    better = [_ordered(d) for d in of_pair if d.corrected and d.status == "superior"]
    return "".join(f" {_capital(recipe_of(a))} beats {recipe_of(b)}." for a, b in better)


def _needed(found: Difference, n_subjects: int) -> str:
    if found.n_subjects < 2:
        return "How many subjects would is not known."
    if found.needed is None:
        return (
            "More subjects would not decide it (not reachable): what the trainings of as many folds"
            " add to the error does not shrink with their number, or the difference is too close to"
            " what matters."
        )
    low, high = found.needed
    if high is None:
        return f"At least {low} subjects would decide it, and perhaps no number would."
    span = f"About {low}" if low == high else f"Between {low} and {high}"
    return f"{span} subjects would decide it (here {n_subjects})."


def _ordered(found: Difference) -> tuple[str, str]:
    a, b = found.between
    return (a, b) if found.better != b else (b, a)


def _limits(found: Difference, level: int = 95) -> str:
    low, high = found.ci95 if level == 95 else found.ci90
    return (
        f"difference {found.mean:+.3f}, {level} % interval {low:+.3f} to {high:+.3f}, {_n(found)}"
    )


def _from_the_better(found: Difference, better: str | None = None) -> str:
    low, high = found.ci95
    if (better or found.better) == found.between[1]:
        low, high = -high, -low
    return f"{low:.3f} to {high:.3f}"


def _n(found: Difference) -> str:
    return f"{found.n_subjects} subjects"


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
