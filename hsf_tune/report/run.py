"""Read a run's folder: its records, its configuration, its data, and what they amount to.

Everything that the report shows comes from here or from the verdict, so that it can be
written again at any time from the folder alone, also while the search still runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from hsf_tune.model.network import Architecture
from hsf_tune.modes import n_blocks
from hsf_tune.records import (
    BASE,
    DEFAULT,
    RECOMMENDED,
    Configured,
    ConfirmationVoided,
    FinalistsNamed,
    Proposed,
    Records,
    SearchInterrupted,
    TimeBudgetUsed,
    TrialRecord,
)
from hsf_tune.stored_run import StoredRun, read_stored
from hsf_tune.strategy import DEPTH, DOCUMENTED_DEFAULT, describe, strategy_key
from hsf_tune.verdict.claims import Verdict
from hsf_tune.verdict.coverage import Scope, ranges_of
from hsf_tune.verdict.judge import judge
from hsf_tune.verdict.scores import (
    Confirmation,
    Explored,
    gather,
    gather_exploration,
    gather_tried,
    subjects_of_fold_1,
)


@dataclass(frozen=True)
class Run(StoredRun):
    """A run's folder, read for its report.

    Attributes:
        space: `space.yaml`; {} where there is none.
        arms: in the order of the search space.
    """

    space: Mapping[str, Any]
    arms: tuple[str, ...]

    @property
    def trials(self) -> list[TrialRecord]:
        return list(self.records.trials.values())

    @cached_property
    def confirmation(self) -> Confirmation:
        return gather(self.trials, self.documented_default, members=self._members)

    @cached_property
    def _members(self) -> dict[str, list[str]] | None:
        """arm -> keys of its finalists, as last noted; None while none are noted."""
        found = {
            note.arm: [strategy_key(named["strategy"]) for named in note.finalists]
            for note in self.records.noted(FinalistsNamed)
        }
        return found or None

    @cached_property
    def tested(self) -> Confirmation:
        """Scores on the locked test set, where there is one."""
        return gather(self.trials, self.documented_default, phase="test")

    @cached_property
    def explored(self) -> list[Explored]:
        """Strategies with their fold scores; one that two arms proposed stands in both."""
        found = gather_exploration(self.trials)
        scored = {one.key: one for one in found}
        known = {(one.arm, one.key) for one in found}
        for proposed in self.records.noted(Proposed):
            arm, key = proposed.arm, strategy_key(proposed.strategy)
            if key in scored and (arm, key) not in known:
                known.add((arm, key))
                found.append(replace(scored[key], arm=arm))
        return found

    @cached_property
    def verdict(self) -> Verdict:
        fold_1 = subjects_of_fold_1(self.trials)
        margins = self.config.verdict
        scope = Scope(ranges_of(self.space), gather_tried(self.trials))
        found = judge(self.confirmation, self.explored, self.arms, margins, fold_1, scope)
        own = (*self._reservations(), *self._other_opening(found.recommendation.strategy))
        return replace(found, warnings=(*found.warnings, *own))

    def _reservations(self) -> Iterator[str]:
        """What the search noted that limits its own result."""
        last = self.records.notes[-1] if self.records.notes else None
        if isinstance(last, TimeBudgetUsed | SearchInterrupted):
            yield f"The search is not finished: {last.text}."
        else:
            running = sum(t.ended is None for t in self.trials)
            if running:
                yield f"The search is not finished: {running} of its trials have not ended yet."
        for note in self.records.noted(ConfirmationVoided)[:1]:
            yield f"The confirmation is no longer independent: {note.text}."

    def _other_opening(self, now: Mapping[str, Any]) -> Iterator[str]:
        """The locked test set was opened for another strategy than is recommended now."""
        opened = [t.started for t in self.trials if t.started.phase == "test"]
        scored = next((s.strategy for s in opened if s.arm == RECOMMENDED), None)
        known = {strategy_key(s.strategy) for s in opened}
        if scored is not None and strategy_key(now) not in known:
            yield (
                f"The locked test set was opened for {describe(scored)}; the recommendation has"
                " changed since, and has no score on it."
            )

    @cached_property
    def documented_default(self) -> Mapping[str, Any] | None:
        """The documented default's canonical strategy among those that were run."""
        noted = [n.documented_default for n in self.records.noted(Configured)][-1:]
        for trial in self.trials:
            if trial.started.arm == DEFAULT or trial.started.strategy in noted:
                return trial.started.strategy
        if any(noted):
            return None
        # as 0.1.0, that did not note it, would have it for a network of the configuration's size
        depth = n_blocks(Architecture(num_levels=self.config.models.num_levels).halves)["decoder"]
        wanted = {**DOCUMENTED_DEFAULT, DEPTH: depth}.items()
        return next((t.started.strategy for t in self.trials if _holds(t, wanted)), None)

    @cached_property
    def finalists(self) -> dict[str, list[Mapping[str, Any]]]:
        """arm -> strategies, best first: the confirmed ones; where there are none, those that the
        search named, and before that the exploration's leader."""
        confirmed = self.confirmation.finalists
        found: dict[str, list[Mapping[str, Any]]] = {}
        for arm in self.arms:
            if arm in confirmed:
                ranked = sorted(confirmed[arm], key=lambda c: -c.mean)
                found[arm] = [c.strategy for c in ranked]
            else:
                leaders = [e for e in self.explored if e.arm == arm]
                leaders.sort(key=lambda e: (-len(e.dice_of_fold), -e.dice))
                named = (self._members or {}).get(arm, [e.key for e in leaders[:1]])
                found[arm] = [e.strategy for e in leaders if e.key in named]
        return {arm: strategies for arm, strategies in found.items() if strategies}

    def trials_of(self, strategy: Mapping[str, Any], *phases: str) -> list[TrialRecord]:
        """All trials of a strategy in these phases (all phases if none is given)."""
        key = strategy_key(strategy)
        return [
            t
            for t in self.trials
            if strategy_key(t.started.strategy) == key and (not phases or t.started.phase in phases)
        ]

    def curves_of(self, strategy: Mapping[str, Any]) -> list[TrialRecord]:
        """The trials whose curves speak for a strategy: confirmed, else explored."""
        for phase in ("confirm", "explore", "finetune"):
            found = [t for t in self.trials_of(strategy, phase) if t.epochs]
            if found:
                return found
        return []


def read_run(folder: Path | str) -> Run:
    """Read a run's folder.

    Raises:
        HsfTuneError: there is no run in it.
    """
    stored = read_stored(folder).as_given()
    space = stored.files.read_space()
    space = space if isinstance(space.get("arms"), Mapping) else {}
    return Run(**vars(stored), space=space, arms=_arms(space, stored.records))


def _holds(trial: TrialRecord, wanted: Any) -> bool:
    strategy = trial.started.strategy
    return all(key in strategy and strategy[key] == value for key, value in wanted)


def _arms(space: Mapping[str, Any], records: Records) -> tuple[str, ...]:
    """The space's arms in its order; those seen in the records where there is no space."""
    if space:
        return tuple(space["arms"])
    started = [t.started for t in records.trials.values()]
    seen: Sequence[str] = [s.arm for s in started if s.phase in ("explore", "confirm")]
    return tuple(arm for arm in dict.fromkeys(seen) if arm and arm not in (BASE, DEFAULT))
