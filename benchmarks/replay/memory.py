"""Ask an arm's study only what it was not asked before after the same history.

What a study proposes depends on its sampler, its seed and all that it was asked and
told, in that order. Searches that race differently share long beginnings of such
histories, and TPE is the slowest part of a replay. A remembered study walks a tree of
histories and wakes the real one only where it leaves what is known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hsf_tune.records import TrialRecord
from hsf_tune.search.study import ArmStudy, Proposal

Step = tuple[Any, ...]


@dataclass
class History:
    """What followed on a history, and what was proposed at its end."""

    after: dict[Step, History] = field(default_factory=dict)
    proposal: Proposal | None = None

    def then(self, step: Step) -> tuple[History, bool]:
        """The history with one more step, and whether it is known."""
        known = step in self.after
        return self.after.setdefault(step, History()), known


class RememberedStudy(ArmStudy):
    """An `ArmStudy` that answers from memory as long as it can.

    Args:
        history: the empty history of studies that are all the same, shared by them.
        wake: makes the real study, as new.
    """

    def __init__(self, history: History, wake: Callable[[], ArmStudy]) -> None:
        self._history, self._wake = history, wake
        self._real: ArmStudy | None = None
        self._missed: list[Callable[[ArmStudy], object]] = []

    def propose(
        self, number: int, trial_id: str, known: Mapping[str, float | None]
    ) -> Proposal | None:
        step = ("propose", number, trial_id, *known.items())
        self._history, remembered = self._history.then(step)
        self._missed.append(lambda study: study.propose(number, trial_id, known))
        if not remembered:
            self._history.proposal = self._caught_up()
        return self._history.proposal

    def tell(self, trial_id: str, record: TrialRecord) -> None:
        assert record.ended is not None
        _, curve = record.curve("val_dice")
        step = ("tell", trial_id, record.ended.status, record.ended.dice, *curve[-1:], len(curve))
        self._history, _ = self._history.then(step)
        self._missed.append(lambda study: study.tell(trial_id, record))

    def catch_up(
        self, proposals: Mapping[str, Proposal], ended: Mapping[str, TrialRecord | None]
    ) -> None:
        """Nothing: a replayed search never goes on from records."""

    def _caught_up(self) -> Any:
        """Let the real study go through what it missed; its answer to the last of it."""
        self._real = self._real or self._wake()
        answer = None
        for missed in self._missed:
            answer = missed(self._real)
        self._missed.clear()
        return answer
