"""Put a verdict into words that a researcher can quote.

Numbers come ready; nothing is decided here.
"""

from __future__ import annotations

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


def name_of(arm: str) -> str:
    """An arm or baseline as a researcher calls it."""
    return _NAMES.get(arm, f"'{arm}'")


def verdict(found: Verdict, n_subjects: int) -> str:
    """The verdict in a sentence or two."""
    if found.status == "single_arm":
        return _single_arm(found)
    arm_test = next((d for d in found.differences if d.claim == "arm"), None)
    pair = next((d for d in found.differences if d.between[1] not in _BASELINES), None)
    if pair is None:
        arm = name_of(next(iter(found.arms)))
        return f"Undecided: no other arm than {arm} has confirmed strategies to compare it with."
    a, b = (name_of(name) for name in pair.between)
    if arm_test is None or set(arm_test.between) != set(pair.between):
        return f"Undecided: too few finalists to compare {a} with {b} as arms. {_strategies(found)}"
    if found.status == "winner":
        better, worse = _ordered(arm_test)
        surpassed = better in {_ordered(d)[1] for d in _other_superior(found)}
        start = (
            f"Of {a} and {b}, {name_of(better)} is better"
            if surpassed
            else f"Tune {name_of(better)}"
        )
        text = (
            f"{start}: on average over its finalists it scores"
            f" {abs(arm_test.mean):.3f} Dice more than {name_of(worse)} (95 % interval"
            f" {_from_the_better(arm_test)}, {_n(arm_test)})."
        )
        return text + _beaten_by_others(found)
    if found.status == "equivalent":
        text = f"Equivalent: tuning {a} or {b} makes no difference that matters"
        return f"{text} ({_limits(arm_test, 90)}).{_beaten_by_others(found)}"
    text = f"Undecided: the data can't tell whether tuning {a} or {b} is better"
    others = _beaten_by_others(found)
    return f"{text} ({_limits(arm_test)}). {_needed(arm_test, n_subjects)}{others}"


_BASELINES = (DEFAULT, BASE)


def difference(found: Difference) -> str:
    """One tested difference as a sentence."""
    a, b = (name_of(name) for name in found.between)
    if found.claim == "strategy":
        a = f"the best strategy of {a}"
        b = b if found.between[1] in _BASELINES else f"that of {b}"
    start = f"{a[0].upper()}{a[1:]} against {b}"
    if found.status == "superior":
        better = found.between.index(found.better or found.between[0])
        return f"{start}: {'better' if better == 0 else 'worse'} ({_limits(found)})."
    if found.status == "equivalent":
        return f"{start}: equivalent ({_limits(found, 90)})."
    return f"{start}: undecided ({_limits(found)})."


def _single_arm(found: Verdict) -> str:
    arm = next(iter(found.arms))
    text = f"The search had one arm ({name_of(arm)}), so there is no other to compare it with."
    tests = [difference(d) for d in found.differences if d.between[1] == DEFAULT]
    return " ".join([text, *tests])


def _strategies(found: Verdict) -> str:
    tested = [d for d in found.differences if d.claim == "strategy"]
    pair = next((d for d in tested if d.between[1] not in _BASELINES), None)
    return difference(pair) if pair else ""


def _beaten_by_others(found: Verdict) -> str:
    """Arms outside the first pair that are better than one of it."""
    better = [_ordered(d) for d in _other_superior(found)]
    texts = [f" {_capital(name_of(a))} is better than {name_of(b)}." for a, b in better]
    return "".join(texts)


def _other_superior(found: Verdict) -> list[Difference]:
    arm_tests = [d for d in found.differences if d.claim == "arm"][1:]
    return [d for d in arm_tests if d.status == "superior"]


def _needed(found: Difference, n_subjects: int) -> str:
    if found.n_subjects < 2:
        return "How many would is not known."
    if found.needed is None:
        return (
            "More subjects would not decide it (not reachable): what the search's luck and the"
            " seeds add to the error does not shrink with their number."
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


def _from_the_better(found: Difference) -> str:
    low, high = found.ci95
    return (
        f"{low:.3f} to {high:.3f}"
        if found.better == found.between[0]
        else f"{-high:.3f} to {-low:.3f}"
    )


def _n(found: Difference) -> str:
    return f"{found.n_subjects} subjects"


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
