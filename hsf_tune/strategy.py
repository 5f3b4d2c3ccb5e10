"""What a strategy is: one way to finetune, as dotted configuration keys and their values.

The canonical form, in which equal trainings have equal strategies, is made in
`finetuning.strategy`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

MODE, DEPTH, FREQUENCY = "finetuning.mode", "finetuning.depth", "finetuning.unfreeze_frequency"
LR, MAX_EPOCHS = "models.lr", "lightning.max_epochs"
DOCUMENTED_DEFAULT = {MODE: "decoder", DEPTH: -1, FREQUENCY: 4, LR: 1e-3}


class Strategy(Mapping[str, Any]):
    """A mapping that never changes; empty for the unchanged base model."""

    def __init__(self, values: Mapping[str, Any] | None = None) -> None:
        self._values = dict(values or {})

    def __getitem__(self, key: str) -> Any:
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __hash__(self) -> int:
        return hash(self.key)

    def __repr__(self) -> str:
        return f"Strategy({self._values})"

    @cached_property
    def key(self) -> str:
        """Text that is equal for equal strategies, whatever the order of their keys."""
        return json.dumps(self._values, sort_keys=True)

    @property
    def mode(self) -> str | None:
        """None where the final convolution alone is trained, or nothing."""
        return self.get(MODE)

    @property
    def max_epochs(self) -> int:
        return int(self.get(MAX_EPOCHS, 0))

    @property
    def opens_all(self) -> bool:
        """Whether every block has `frequency` epochs after its opening."""
        return bool((self[DEPTH] + 1) * self.get(FREQUENCY, 1) <= self[MAX_EPOCHS])

    def describe(self) -> str:
        """In a few words, for tables and sentences."""
        if not self:
            return "unchanged base model"
        rate = f"lr {self[LR]:.2g}" if LR in self else ""
        known = {MODE, DEPTH, FREQUENCY, LR, MAX_EPOCHS}
        others = [f"{k.rsplit('.', 1)[-1]} {v}" for k, v in self.items() if k not in known]
        blocks = [str(self.mode), f"depth {self.get(DEPTH)}", _every(self.get(FREQUENCY))]
        parts = ["final convolution only"] if self.get(DEPTH) == 0 else blocks
        return ", ".join(p for p in [*parts, rate, *others] if p)


def strategy_key(values: Mapping[str, Any]) -> str:
    """The key of a strategy that is written down in a file."""
    return Strategy(values).key


def describe(values: Mapping[str, Any]) -> str:
    """A strategy that is written down in a file, in a few words."""
    return Strategy(values).describe()


def _every(frequency: object) -> str:
    if frequency == 0:
        return "all blocks at once"
    return "a block every epoch" if frequency == 1 else f"a block every {frequency} epochs"
