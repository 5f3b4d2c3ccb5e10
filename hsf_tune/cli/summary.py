"""What a search prints before and after: its plan, and the table of arms."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from rich.box import SIMPLE_HEAD
from rich.table import Table

from hsf_tune.cli.prepare import Prepared
from hsf_tune.cli.shell import Screen
from hsf_tune.cli.winner import best_strategy_hint
from hsf_tune.data.cases import Case
from hsf_tune.data.splits import Splits
from hsf_tune.finetuning.length import epoch_length
from hsf_tune.finetuning.placement import Placement
from hsf_tune.finetuning.probe import StepCost
from hsf_tune.installed import typed_program
from hsf_tune.run_folder import RunFolder
from hsf_tune.search.race import RacePlan, Workload
from hsf_tune.search.space import Space
from hsf_tune.strategy import describe
from hsf_tune.wording import duration


def print_plan(
    prepared: Prepared,
    space: Space,
    splits: Splits,
    plan: RacePlan,
    expected: Workload,
    cost: StepCost,
    placement: Placement,
    workers: int,
    console: Screen,
) -> None:
    """`--dry-run`: configuration, cases, splits, arms, trials, epochs and hours."""
    console.rule("Configuration")
    text = yaml.safe_dump(space.config.to_dict(), sort_keys=False, allow_unicode=True)
    console.print(text)
    console.rule("Cases")
    for case in prepared.cases:
        shape = "x".join(map(str, prepared.store.grid(case.id).size_before_padding))
        console.print(f"  {case.id}  {shape}  {case.mri}")
    console.rule("Splits")
    _print_splits(splits, bool(plan.confirm), console)
    console.rule("Arms")
    for arm in space.arms:
        ranges = {**arm.constants, **{k: d.to_dict() for k, d in arm.domains.items()}}
        work = next(a for a in plan.arms if a.name == arm.name)
        console.print(
            f"  {arm.name}: {work.strategies} strategies on fold 1, then"
            f" {', '.join(map(str, work.keep)) or 'none'} on the next; {work.finalists} finalists",
        )
        for key, value in ranges.items():
            console.print(f"      {key}: {value}")
    console.rule("Work")
    _print_work(prepared, splits, expected, cost, placement, workers, console)


def _print_splits(splits: Splits, confirmed: bool, console: Screen) -> None:
    if splits.test:
        console.print(f"  locked test set: {', '.join(splits.test)}")
    for split in (*splits.explore, *(splits.confirm if confirmed else ())):
        console.print(
            f"  {split.phase} fold {split.fold}: {len(split.train)} train, validated on"
            f" {', '.join(split.validate)}",
        )


def _print_work(
    prepared: Prepared,
    splits: Splits,
    expected: Workload,
    cost: StepCost,
    placement: Placement,
    workers: int,
    console: Screen,
) -> None:
    epochs = sum(n for _, n in expected.expected.values())
    split, config = splits.explore[0], prepared.config
    train, validate = split.train_set(prepared.cases), split.validation_set(prepared.cases)
    length = epoch_length(len(train), config.datasets.batch_size, config.lightning)
    rounds = length.crops / len(train)
    share = _in_largest(prepared, cost)
    epoch_s = rounds * share(train) * cost.train_s + share(validate) * cost.validate_s
    whole = duration(epochs * epoch_s / max(1, workers))
    memory = f", {cost.peak_bytes / 2**30:.1f} GiB at the peak" if cost.peak_bytes else ""
    twice = ", with activation checkpointing" if cost.checkpointing else ""
    console.print(
        f"  {expected.trials} trials, {epochs} epochs in all, {workers} trials at a time on {placement.device}"
        f" ({placement.precision})\n"
        f"  one step of the heaviest strategy on the largest case: {cost.train_s:.2f} s{memory}{twice}\n"
        f"  an epoch: {length.steps} optimiser steps, {rounds:.1f} times through the"
        f" {len(train)} training crops, at most {epoch_s:.1f} s; so about {whole} in all",
    )


def _in_largest(prepared: Prepared, cost: StepCost) -> Callable[[Sequence[Case]], float]:
    """How many times the largest case some cases are; they cost in proportion to their voxels."""

    def share(cases: Sequence[Case]) -> float:
        sizes = [prepared.store.grid(case.id).padded_size for case in cases]
        return sum(math.prod(size) for size in sizes) / cost.voxels

    return share


def print_result(report: Mapping[str, Any], folder: Path, console: Screen) -> None:
    """The table of arms and baselines, the verdict and the recommendation.

    Explored and confirmed: of the arm's best strategy; beside it, the mean of the arm's finalists.
    """
    table = Table(box=SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    heads = ("arm", "trials", "time", "explored", "confirmed", "95 %", "mean of\nfinalists")
    for head in heads:
        table.add_column(head, justify="left" if head == "arm" else "right", no_wrap=True)
    for name, arm in report["arms"].items():
        scores = arm["best_explored_dice"], arm["best_confirmed_dice"], arm["best_confirmed_ci95"]
        table.add_row(*_row(name, arm, *scores), _dice(arm["confirmed_dice_mean"]))
    for name, baseline in report["baselines"].items():
        if baseline:
            keys = "explored_dice", "confirmed_dice_mean", "confirmed_dice_ci95"
            table.add_row(*_row(name, baseline, *(baseline[key] for key in keys)))
    console.print(table)
    for name, arm in report["arms"].items():
        if arm["best_strategy"]:
            console.print(f"Best of {name}: {describe(arm['best_strategy'])}")
    console.print(report["verdict"]["sentence"])
    recommendation = report.get("recommendation")
    if recommendation and recommendation["strategy"] is not None:
        chosen = describe(recommendation["strategy"])
        console.print(f"Recommended: {chosen}. {recommendation['reason']}")
    files = RunFolder(folder)
    if files.strategy.exists():
        console.print(f"Repeat it: {best_strategy_hint(folder)}")
    compare = typed_program("mlflow", "ui")
    console.print(f"Report: {files.report}. Compare the trials with: {compare}")


def _row(
    name: str, fields: Mapping[str, Any], explored: float | None, dice: float | None, ci95: Any
) -> tuple[str, ...]:
    limits = f"{ci95[0]:.3f} to {ci95[1]:.3f}" if ci95 else "-"
    seconds = f"{fields['seconds']:.0f} s"
    name = name.removeprefix("documented_").replace("_", " ")  # fits 80 columns
    return name, str(fields["trials"]), seconds, _dice(explored), _dice(dice), limits


def _dice(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
