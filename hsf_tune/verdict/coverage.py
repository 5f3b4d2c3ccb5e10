"""Look at what a search tried, before what it says of arms is believed.

Three checks of each arm: do its tried rates overlap those of the other arms, is a finalist at
the edge of a range that could be wider, and was a finalist still improving when its training
ended? The first withholds a claim between two arms. The others are said beside the verdict.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from hsf_tune.config import VerdictConfig
from hsf_tune.verdict.scores import Confirmed

LEAST_OVERLAP = 0.5  # of what two arms tried, the share that both did
EDGE = 0.05  # of a range, at either end
# Also withhold a claim between arms whose finalists sit at an edge or still improve. To be
# switched on once a search trains until twice as long changes nothing.
WITHHOLD_UNSETTLED = False


class Range(NamedTuple):
    """A range of rates, which could have been chosen wider."""

    low: float
    high: float

    def place(self, value: float) -> float:
        """Where a value lies, in logarithms, the ends being 0 and 1."""
        low, high = math.log(self.low), math.log(self.high)
        return (math.log(value) - low) / (high - low) if high > low else 0.5


class AtEdge(NamedTuple):
    """A finalist's value near an end of its range."""

    key: str
    value: float
    range: Range


@dataclass(frozen=True)
class ArmChecks:
    """What was tried of an arm.

    Attributes:
        tried: how many strategies.
        ranges: key -> lowest and highest value tried.
        overlap: other arm -> share of what the two tried that both did, of the key with the least.
        at_edge: of its finalists, best first.
        improving: of its finalists, how many gained more than the margin of superiority in the
            last quarter of their training; None where no curve says.
        finalists: how many it has.
    """

    tried: int
    ranges: Mapping[str, Range]
    overlap: Mapping[str, float]
    at_edge: tuple[AtEdge, ...] = ()
    improving: int | None = None
    finalists: int = 0

    def overlaps(self, other: str) -> bool:
        """Whether the two were tried at comparable rates; True where that is not known."""
        return self.overlap.get(other, 1.0) >= LEAST_OVERLAP

    def withholds(self, other: str) -> bool:
        """Whether nothing may be claimed of this arm against another."""
        unsettled = WITHHOLD_UNSETTLED and (self.at_edge or self.improving)
        return bool(unsettled) or not self.overlaps(other)


@dataclass(frozen=True)
class Scope:
    """What a search could try and did.

    Attributes:
        ranges: arm -> key -> range, see `ranges_of`.
        tried: arm -> its strategies, whether or not they trained to the end.
    """

    ranges: Mapping[str, Mapping[str, Range]] = field(default_factory=dict)
    tried: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)


def ranges_of(space: Mapping[str, Any]) -> dict[str, dict[str, Range]]:
    """arm -> key -> range, of what a space file says as `log`: rates. An integer has limits of its
    own (-1 is all blocks), a choice was made by hand."""
    shared = {k: v for k, v in space.items() if k != "arms"}
    return {
        arm: {
            key: Range(*map(float, domain["log"]))
            for key, domain in {**shared, **own}.items()
            if isinstance(domain, Mapping) and "log" in domain
        }
        for arm, own in space.get("arms", {}).items()
    }


def check_arms(
    scope: Scope, finalists: Mapping[str, Sequence[Confirmed]], margins: VerdictConfig
) -> dict[str, ArmChecks]:
    """The three checks of each arm that has finalists."""
    spans = {arm: _spans(scope, arm) for arm in finalists}
    checks = {}
    for arm, members in finalists.items():
        ranked = sorted(members, key=lambda c: -c.mean)
        checks[arm] = ArmChecks(
            tried=len(scope.tried.get(arm, ())),
            ranges=spans[arm],
            overlap={
                other: min(_overlap(spans[arm][key], spans[other][key]) for key in shared)
                for other in finalists
                if other != arm and (shared := spans[arm].keys() & spans[other].keys())
            },
            at_edge=tuple(_at_edge(ranked, scope.ranges.get(arm, {}))),
            improving=_improving(members, margins),
            finalists=len(members),
        )
    return checks


def _improving(members: Sequence[Confirmed], margins: VerdictConfig) -> int | None:
    gains = [c.late_gain for c in members if not math.isnan(c.late_gain)]
    return sum(gain > margins.superior for gain in gains) if gains else None


def _spans(scope: Scope, arm: str) -> dict[str, Range]:
    """key -> lowest and highest value that an arm tried."""
    tried = scope.tried.get(arm, ())
    values = {key: [float(s[key]) for s in tried if key in s] for key in scope.ranges.get(arm, {})}
    return {key: Range(min(own), max(own)) for key, own in values.items() if own}


def _overlap(a: Range, b: Range) -> float:
    """Length of the intersection over that of the union, in logarithms."""
    union = math.log(max(a.high, b.high) / min(a.low, b.low))
    shared = math.log(min(a.high, b.high) / max(a.low, b.low))
    return max(0.0, shared) / union if union > 0 else 1.0


def _at_edge(finalists: Iterable[Confirmed], ranges: Mapping[str, Range]) -> Iterator[AtEdge]:
    for one in finalists:
        for key, whole in ranges.items():
            if key in one.strategy:
                value = float(one.strategy[key])
                if not EDGE < whole.place(value) < 1 - EDGE:
                    yield AtEdge(key, value, whole)


def reservations(checks: Mapping[str, ArmChecks]) -> Iterator[str]:
    """What the checks of single arms found, as sentences."""
    for arm, found in checks.items():
        for key in dict.fromkeys(e.key for e in found.at_edge):
            edge = next(e for e in found.at_edge if e.key == key)
            yield (
                f"A finalist of {arm} has {key} {edge.value:.3g}, at the edge of its range"
                f" ({edge.range.low:g} to {edge.range.high:g}): a wider one may hold a better strategy."
            )
        if found.improving:
            yield (
                f"{found.improving} of {found.finalists} finalists of {arm} were still improving when"
                " their training ended: a longer one may change what is better."
            )
