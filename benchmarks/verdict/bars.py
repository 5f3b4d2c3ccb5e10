"""What must hold of the rates, over all settings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from benchmarks.verdict.searches import Setting
from benchmarks.verdict.settings import Rates

CLAIMS = ("strategy", "arm", "documented_default", "base")
FAMILIES = ("n", "sd", "spread", "fold", "landscape", "people", "design")
POOLED, SINGLE, COVERED, UNLIKE = 0.05, 0.065, 0.93, 0.05
POWER = {("strategy", 0.0): 0.75, ("strategy", 0.3): 0.68, ("strategy", 1.0): 0.55}


@dataclass(frozen=True)
class Bar:
    """The worst rate that a bar is about, and where it was seen."""

    what: str
    bar: float
    worst: float
    where: str
    at_most: bool = True

    @property
    def holds(self) -> bool:
        return self.worst <= self.bar if self.at_most else self.worst >= self.bar

    def __str__(self) -> str:
        sign = "at most" if self.at_most else "at least"
        verdict = "holds" if self.holds else "DOES NOT HOLD"
        return f"{self.what}: {self.worst:.1%} ({self.where}); bar {sign} {self.bar:.1%}: {verdict}"


def bars(rows: Mapping[Setting, Rates], slack: float = 0.0) -> list[Bar]:
    """Every bar with its worst rate; settings with a failed subject are reported apart, and false
    winners are pooled over settings in which the arms are equally good.

    Args:
        slack: allowed on top, for few searches.
    """
    regular = {s: r for s, r in rows.items() if s.people != "failed"}
    return list(_bars(regular, slack))


def _bars(rows: Mapping[Setting, Rates], slack: float) -> Iterator[Bar]:
    for claim in CLAIMS:
        have = {s: r for s, r in rows.items() if f"{claim} false" in r}
        if not have:
            continue
        name = claim.replace("_", " ")
        false = {s: r[f"{claim} false"] for s, r in have.items()}
        yield Bar(f"{name}: false winner, one setting", SINGLE + slack, *_worst(false))
        null = {s: rate for s, rate in false.items() if s.effect == 0}
        pooled = families(null or false)
        yield Bar(f"{name}: false winner, pooled", POOLED + slack, *_worst(pooled))
        covered = {s: r[f"{claim} covered"] for s, r in have.items()}
        low, where = _worst({s: -c for s, c in covered.items()})
        yield Bar(f"{name}: coverage", COVERED - slack, -low, where, at_most=False)
        unlike = {s: r[f"{claim} unlike"] for s, r in have.items()}
        yield Bar(f"{name}: false equivalent", UNLIKE + slack, *_worst(unlike))
    scored = {s: r["base scores best, tune"] for s, r in rows.items() if s.base is not None}
    if scored:
        yield Bar("base scores best, yet finetuning advised", 0.0, *_worst(scored))
    for (claim, fold), bar in POWER.items():
        setting = Setting(20, fold=fold, effect=0.02)
        if setting in rows:
            found = rows[setting][f"{claim} superior"]
            yield Bar(f"{claim}: power", bar - slack, found, str(setting), at_most=False)


def broken(rows: Mapping[Setting, Rates], slack: float = 0.0) -> list[Bar]:
    return [bar for bar in bars(rows, slack) if not bar.holds]


def families(rate: Mapping[Setting, float]) -> dict[str, float]:
    """The mean over all settings that share one value of one factor, e.g. "n 20"."""
    values: dict[str, list[float]] = {}
    for setting, value in rate.items():
        for name in FAMILIES:
            values.setdefault(f"{name} {getattr(setting, name)}", []).append(value)
    return {name: mean(own) for name, own in values.items()}


def mean(values: Iterable[float]) -> float:
    values = list(values)
    return sum(values) / len(values)


def _worst(rate: Mapping[Setting, float] | Mapping[str, float]) -> tuple[float, str]:
    value, where = max((value, str(where)) for where, value in rate.items())
    return value, where
