"""What one trial trains on: what a search hands to its workers, and `finetune.py` to itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hsf_tune.data.splits import Split
from hsf_tune.records.events import TrialStarted
from hsf_tune.strategy import Strategy

SURFACE_PHASES = ("confirm", "test", "finetune")  # what is quoted is measured in full


@dataclass(frozen=True)
class TrialSpec:
    """What one trial trains on.

    Attributes:
        trial: unique id within the run, also its folder's name.
        strategy: canonical; empty for the unchanged base model (0 epochs).
        dataset_key: fingerprint of the data that the run began with; None takes what is there.
        phase: the split's, unless a run of its own repeats a split of a search.
    """

    trial: str
    arm: str
    strategy: Strategy
    split: Split
    seed: int
    dataset_key: str | None = None
    phase: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "strategy", Strategy(self.strategy))
        object.__setattr__(self, "phase", self.phase or self.split.phase)

    @property
    def fold(self) -> int:
        return self.split.fold

    @property
    def surface(self) -> bool:
        """Whether surface distances are measured too, and the predictions kept."""
        return self.phase in SURFACE_PHASES

    def started(self, **resolved: Any) -> TrialStarted:
        """The event of its start, with what is `resolved` by then."""
        return TrialStarted(
            trial=self.trial,
            phase=self.phase,
            arm=self.arm,
            strategy=self.strategy,
            fold=self.fold,
            seed=self.seed,
            train=list(self.split.train),
            validate=list(self.split.validate),
            **{"max_epochs": self.strategy.max_epochs, **resolved},
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as Ray carries them."""
        return {**vars(self), "strategy": dict(self.strategy), "split": self.split.to_dict()}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> TrialSpec:
        """The inverse of `to_dict`."""
        return cls(**{**plain, "split": Split.from_dict(plain["split"])})
