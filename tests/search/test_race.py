"""The race over folds, simulated: workers of any number and speed, killed at any moment."""

import random
from collections import Counter
from dataclasses import replace
from itertools import count
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hsf_tune.data.splits import Split
from hsf_tune.records import TrialSpec
from hsf_tune.search.race import (
    FAILED,
    ArmPlan,
    Done,
    Member,
    Propose,
    RacePlan,
    Slot,
    State,
    Wait,
    expect,
    finalists,
    next_step,
    ranking,
)
from hsf_tune.strategy import Strategy, strategy_key

DEFAULT = Strategy({"lr": 0.0, "lightning.max_epochs": 20})


def splits(phase, n):
    return tuple(Split(phase, i + 1, ("d/a",), ("d/b",)) for i in range(n))


def plan_race(arms, *, folds=4, confirm=2, seeds=2, base=True, default_arms=()):
    return RacePlan(
        arms=tuple(arms),
        explore=splits("explore", folds),
        confirm=splits("confirm", confirm),
        seed=42,
        confirm_seeds=tuple(42 + i for i in range(seeds)) if confirm else (),
        default=DEFAULT,
        default_arms=tuple(default_arms),
        base=base,
    )


def score(slot, failing=0.0):
    """A made-up Dice, the same whenever and wherever the slot is run."""
    draw = random.Random(crc32(repr(tuple(slot)).encode()))
    return FAILED if draw.random() < failing else draw.random()


class Simulation:
    """Workers that take jobs, need random time for them, and may all be killed."""

    def __init__(self, plan, workers, seed, *, failing=0.0, exhausted_after=None, kills=()):
        self.plan, self.workers, self.draw = plan, workers, random.Random(seed)
        self.failing, self.exhausted_after, self.kills = failing, exhausted_after or {}, kills
        self.state = State()
        self.ran = []  # jobs in order of their end
        self.proposed_when_waiting = []

    def run(self):
        running, now = {}, 0.0  # trial -> (job, time of its end)
        for moment in count():
            assert moment < 10_000
            while len(running) < self.workers:
                step = next_step(
                    self.plan, self.state, {Slot.of(job) for job, _ in running.values()}
                )
                if isinstance(step, Propose):
                    self._propose(step)
                elif isinstance(step, TrialSpec):
                    assert Slot.of(step) not in self.state.done
                    assert step.trial not in running
                    self.state.begun.add(Slot.of(step))
                    running[step.trial] = step, now + self.draw.expovariate(1)
                else:
                    break
            if isinstance(step, Done):
                assert not running
                return self
            if isinstance(step, Wait):
                assert running, "waiting for nothing"
                self.proposed_when_waiting.append(
                    {a.name: len(self.state.members.get(a.name, [])) for a in self.plan.arms}
                )
            if moment in self.kills:
                running.clear()
                continue
            trial = min(running, key=lambda t: running[t][1])
            job, now = running.pop(trial)
            self.state.begun.discard(Slot.of(job))
            self.state.done[Slot.of(job)] = score(Slot.of(job), self.failing)
            self.ran.append(job)
        raise AssertionError

    def _propose(self, step):
        members = self.state.members.setdefault(step.arm, [])
        assert step.number == len(members) + 1
        if len(members) >= self.exhausted_after.get(step.arm, 10**6):
            self.state.exhausted.add(step.arm)
            return
        first = step.number == 1 and step.arm in self.plan.default_arms
        strategy = DEFAULT if first else {"arm": step.arm, "n": step.number}
        key = strategy_key(strategy)
        members.append(Member(step.arm, step.number, key))
        self.state.strategies[key] = strategy

    def finalists(self):
        return {
            a.name: [r.member.number for r in finalists(self.plan, self.state, a)]
            for a in self.plan.arms
        }


arm_plans = st.builds(
    lambda n, cuts, f: ArmPlan("", n, tuple(min(n, c) for c in sorted(cuts, reverse=True)), f),
    st.integers(1, 12),
    st.lists(st.integers(1, 8), min_size=3, max_size=3),
    st.integers(1, 3),
).map(lambda a: replace(a, finalists=min(a.finalists, a.keep[-1])))


@given(
    arms=st.lists(arm_plans, min_size=1, max_size=4),
    workers=st.integers(1, 8),
    seed=st.integers(0, 10**6),
    failing=st.sampled_from([0.0, 0.2, 1.0]),
    kills=st.sets(st.integers(0, 60), max_size=4),
    default_in_first=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_outcome_depends_on_scores_alone(arms, workers, seed, failing, kills, default_in_first):
    """Finalists and the set of trials are the same for one worker and for many, killed or not."""
    named = [replace(a, name=f"arm{i}") for i, a in enumerate(arms)]
    plan = plan_race(named, default_arms=["arm0"] if default_in_first else [])
    many = Simulation(plan, workers, seed, failing=failing, kills=kills).run()
    one = Simulation(plan, 1, seed + 1, failing=failing).run()
    assert many.finalists() == one.finalists()
    assert Counter(Slot.of(j) for j in many.ran) == Counter(Slot.of(j) for j in one.ran)
    assert max(Counter(Slot.of(j) for j in many.ran).values()) == 1


@given(workers=st.integers(1, 6), seed=st.integers(0, 10**6))
@settings(max_examples=15, deadline=None)
def test_no_worker_waits_while_any_arm_has_work(workers, seed):
    """A worker is told to wait only once every arm has proposed all of its strategies."""
    plan = plan_race([ArmPlan(f"arm{i}", 12, (6, 3, 3), 3) for i in range(3)])
    done = Simulation(plan, workers, seed).run()
    assert all(n == 12 for found in done.proposed_when_waiting for n in found.values())


def test_default_sizes_are_those_of_the_design():
    """12, 6, 3, 3 strategies on the folds, then 3 finalists, default and base on 5 folds."""
    plan = plan_race([ArmPlan("encoder", 12, (6, 3, 3), 3)], confirm=5)
    ran = Counter((j.split.phase, j.arm, j.split.fold) for j in Simulation(plan, 2, 0).run().ran)
    assert [ran["explore", "encoder", f] for f in (1, 2, 3, 4)] == [12, 6, 3, 3]
    assert [ran["confirm", "encoder", f] for f in range(1, 6)] == [6] * 5
    assert [ran["confirm", "documented_default", f] for f in range(1, 6)] == [2] * 5
    assert [ran["confirm", "base", f] for f in range(1, 6)] == [1] * 5  # it has no seed
    assert sum(ran.values()) == expect(plan, 20).trials


def test_best_of_each_fold_go_on():
    """Those on fold 2 are the six with the highest Dice of fold 1, ties to the earlier one."""
    plan = plan_race([ArmPlan("a", 12, (6, 3, 3), 3)], confirm=0)
    done = Simulation(plan, 3, 7).run()
    members = done.state.members["a"]
    first = {m: done.state.done[Slot("explore", 1, 42, m.key)] for m in members}
    best = sorted(members, key=lambda m: -first[m])[:6]
    on_second = {Slot.of(j).key for j in done.ran if j.split.fold == 2}
    assert on_second == {m.key for m in best}
    mean = {m: (first[m] + done.state.done[Slot("explore", 2, 42, m.key)]) / 2 for m in best}
    on_third = {Slot.of(j).key for j in done.ran if j.split.fold == 3}
    assert on_third == {m.key for m in sorted(best, key=lambda m: -mean[m])[:3]}


def test_finalist_equal_to_the_documented_default_is_confirmed_once():
    """Equal strategies never run twice on a split with a seed, whatever role they play."""
    plan = plan_race([ArmPlan("a", 1, (1, 1, 1), 1)], default_arms=["a"], confirm=2, seeds=2)
    ran = Simulation(plan, 2, 3).run().ran
    confirmed = [j for j in ran if j.split.phase == "confirm" and j.arm != "base"]
    assert {j.arm for j in confirmed} == {"a"}
    assert len(confirmed) == 4


def test_interrupted_trials_go_on_before_anything_new():
    """After a kill the first job is one that had begun."""
    plan = plan_race([ArmPlan("a", 4, (2, 1, 1), 1)])
    state = State()
    first = next_step(plan, state, ())
    state.begun.add(Slot.of(first))
    assert next_step(plan, state, ()) == first


def test_arms_advance_side_by_side():
    """With one worker, no arm is ever more than one proposal ahead of another of equal size."""
    plan = plan_race([ArmPlan(f"arm{i}", 8, (4, 2, 2), 2) for i in range(3)], confirm=0)
    ran = Simulation(plan, 1, 0).run().ran
    first = [j.arm for j in ran if j.split.fold == 1 and j.arm.startswith("arm")]
    for i in range(len(first)):
        counts = Counter(first[: i + 1])
        assert max(counts.values()) - min(counts.get(f"arm{k}", 0) for k in range(3)) <= 1


def test_ranking_of_a_search_cut_short_puts_more_folds_first():
    """What is done when the time is up is ranked: by folds reached, then by mean Dice."""
    plan = plan_race([ArmPlan("a", 3, (2, 1, 1), 1)])
    keys = [strategy_key({"n": i}) for i in range(3)]
    state = State(members={"a": [Member("a", i + 1, k) for i, k in enumerate(keys)]})
    for key, fold, dice in [(0, 1, 0.9), (1, 1, 0.7), (1, 2, 0.7), (2, 1, FAILED)]:
        state.done[Slot("explore", fold, 42, keys[key])] = dice
    ranked = ranking(plan, state, plan.arms[0])
    assert [(r.member.number, r.folds) for r in ranked] == [(2, 2), (1, 1)]


@pytest.mark.parametrize("n", [1, 3])
def test_exhausted_arm_ends_with_what_it_has(n):
    """An arm that runs out of strategies still races those it has."""
    plan = plan_race([ArmPlan("a", 12, (6, 3, 3), 3)], confirm=0)
    done = Simulation(plan, 2, 0, exhausted_after={"a": n}).run()
    ran = Counter(j.split.fold for j in done.ran if j.arm == "a")
    assert ran[1] == ran[2] == ran[4] == n
