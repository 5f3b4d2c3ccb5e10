"""What one searched key may be: a range of numbers or a list of choices.

A domain is read from `{int: [1, 4]}`, `{float: [0, 1]}`, `{log: [1e-4, 1e-2]}` or
`{choice: [1, 2, 4]}`. Whether its values mean anything under their key is for
`space.py` to check; how they are proposed, for `study.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from hsf_tune.errors import ConfigError, did_you_mean

Kind = Literal["int", "float", "log", "choice"]


@dataclass(frozen=True)
class Domain:
    """The values that a search may give to one key.

    Attributes:
        kind: int (both ends count), float (uniform), log (uniform in the logarithm), choice.
        low, high: the ends of a range; None for a choice.
        choices: the values of a choice, in the order they were written.
    """

    kind: Kind
    low: float | None = None
    high: float | None = None
    choices: tuple[Any, ...] = ()

    def contains(self, value: Any) -> bool:
        """Whether a search could propose exactly this value."""
        if self.kind == "choice":
            return any(_same(value, choice) for choice in self.choices)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        if self.kind == "int" and value != int(value):
            return False
        low, high = self._ends()
        return low <= value <= high

    def probes(self) -> list[Any]:
        """Values that have to be valid for the whole domain to be: ends, middle or choices."""
        if self.kind == "choice":
            return list(self.choices)
        if self.kind == "int":
            return [self.low, self.high]
        return [self.low, self._between(0.5), self.high]

    def values(self) -> list[Any] | None:
        """All values in order, or None where there are infinitely many."""
        if self.kind == "choice":
            return list(self.choices)
        if self.kind == "int":
            low, high = self._ends()
            return list(range(int(low), int(high) + 1))
        return None

    def points(self, n: int) -> list[Any]:
        """`n` evenly spread values of an infinite domain, ends included; all of a finite one."""
        known = self.values()
        if known is not None:
            return known
        return [self._between(i / (n - 1)) for i in range(n)] if n > 1 else [self._between(0.5)]

    def draw(self, share: float) -> Any:
        """The value at `share` in [0, 1) of the domain; uniform in it for a uniform share."""
        known = self.values()
        return self._between(share) if known is None else known[int(share * len(known))]

    def to_dict(self) -> dict[str, list[Any]]:
        """As it is written in a space file."""
        choices = [list(c) if isinstance(c, tuple) else c for c in self.choices]
        return {self.kind: choices or [self.low, self.high]}

    def _between(self, share: float) -> float:
        low, high = self._ends()
        if share in (0, 1):
            return high if share else low
        return low * (high / low) ** share if self.kind == "log" else low + share * (high - low)

    def _ends(self) -> tuple[float, float]:
        assert self.low is not None
        assert self.high is not None
        return self.low, self.high


def parse_domain(where: str, spec: Mapping[str, Any]) -> Domain:
    """Read one domain.

    Args:
        where: file, arm and key, to begin error messages with.

    Raises:
        ConfigError: not one of the four kinds, or ends that are no range.
    """
    kinds = get_args(Kind)
    if len(spec) != 1:
        raise ConfigError(
            f"{where} is {dict(spec)}. Expected a constant or one of"
            f" {', '.join(f'{{{k}: [...]}}' for k in kinds)}."
        )
    kind, listed = next(iter(spec.items()))
    if kind not in kinds:
        raise ConfigError(f"{where}: no kind of range '{kind}'.{did_you_mean(str(kind), kinds)}")
    if not isinstance(listed, list) or not listed:
        raise ConfigError(f"{where}: {kind} needs a list, found {listed!r}.")
    if kind == "choice":
        return _choice(where, listed)
    return _range(where, kind, listed)


def _choice(where: str, listed: list[Any]) -> Domain:
    for i, value in enumerate(listed):
        if isinstance(value, Mapping):
            raise ConfigError(f"{where}: choice holds {value!r}; it takes plain values only.")
        if any(_same(value, other) for other in listed[:i]):
            raise ConfigError(f"{where}: choice lists {value!r} twice. Name each value once.")
    return Domain("choice", choices=tuple(_frozen(v) for v in listed))


def _range(where: str, kind: str, listed: list[Any]) -> Domain:
    numbers = [v for v in listed if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(listed) != 2 or len(numbers) != 2 or not all(math.isfinite(v) for v in numbers):
        raise ConfigError(f"{where}: {kind} is {listed}, expected two numbers [lowest, highest].")
    low, high = numbers
    if low >= high:
        raise ConfigError(
            f"{where}: {kind} is {listed}; the first number must be below the second. For a single"
            f" value write it as a constant: {low}."
        )
    if kind == "int" and (low != int(low) or high != int(high)):
        raise ConfigError(f"{where}: int is {listed}; both ends must be whole numbers.")
    if kind == "log" and low <= 0:
        raise ConfigError(f"{where}: log is {listed}; both ends must be above 0. Use float for 0.")
    if kind == "int":
        return Domain("int", int(low), int(high))
    return Domain("log" if kind == "log" else "float", low, high)


def _same(a: Any, b: Any) -> bool:
    """Equal, and not merely because True == 1."""
    return bool(_frozen(a) == _frozen(b) and isinstance(a, bool) == isinstance(b, bool))


def _frozen(value: Any) -> Any:
    return tuple(_frozen(v) for v in value) if isinstance(value, list | tuple) else value
