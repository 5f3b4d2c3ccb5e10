"""Write down the strategy to use, with all that repeats the trial that explored it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hsf_tune.cli.prepare import Prepared, versions
from hsf_tune.config import Config
from hsf_tune.data.splits import Split, Splits
from hsf_tune.finetuning.strategy import SavedStrategy, save_strategy
from hsf_tune.installed import typed
from hsf_tune.records import BASE, DEFAULT, RECOMMENDED, Records, TrialRecord, TrialSpec
from hsf_tune.report import read_run
from hsf_tune.run_folder import RunFolder
from hsf_tune.strategy import Strategy


def write_recommended(
    folder: Path,
    prepared: Prepared,
    config: Config,
    records: Records,
    splits: Mapping[int, Split],
    recommendation: Mapping[str, Any],
    threads: int,
) -> bool:
    """Save the recommended strategy with its trial on the lowest fold of the exploration; where
    it is not to finetune, what an earlier recommendation wrote goes.

    Args:
        splits: exploration fold -> split.
        recommendation: of the report: strategy, arm and reason.

    Returns:
        Whether there was such a trial.
    """
    strategy = Strategy(recommendation.get("strategy"))
    found = sorted(_explored(records, strategy), key=lambda r: r.started.fold)
    if recommendation.get("arm") == BASE:
        RunFolder(folder).strategy.unlink(missing_ok=True)
    if not strategy or not found:
        return False
    split = splits[found[0].started.fold]
    save_trial(folder, prepared, config, found[0], split, threads, str(recommendation["reason"]))
    return True


def save_trial(
    folder: Path,
    prepared: Prepared,
    config: Config,
    record: TrialRecord,
    split: Split,
    threads: int,
    reason: str,
) -> None:
    """Write `best_strategy.yaml` for a trial that ended; `finetune.py strategy=FILE` repeats it."""
    started, ended = record.started, record.ended
    assert ended is not None
    save_strategy(
        RunFolder(folder).strategy,
        SavedStrategy(
            strategy=started.strategy,
            config=config.to_dict(),
            split=split,
            seed=started.seed,
            threads=threads,
            precision=started.precision or config.lightning.precision,
            base_name=prepared.base.name,
            base_sha256=prepared.base.sha256,
            dataset_key=prepared.store.key,
            arm=started.arm,
            trial=started.trial,
            explored_dice=ended.dice,
            reason=reason,
            origin=versions() | {"device": started.device},
        ),
    )


def test_jobs(folder: Path, config: Config, splits: Splits) -> list[TrialSpec]:
    """The recommended strategy and the baselines on the locked test set, where there is one.

    They train on all other subjects. The set is opened once: where the search goes on after that,
    what was scored, or begun to be, keeps its place, whatever is recommended by now.
    """
    if not splits.test:
        return []
    run = read_run(folder)
    others = sorted({s for split in splits.explore for s in (*split.train, *split.validate)})
    split = Split("test", 1, tuple(others), splits.test)
    recommended = run.verdict.recommendation.strategy or None  # the base is scored as itself
    wanted = {RECOMMENDED: recommended, DEFAULT: run.documented_default}
    if any(record.started.arm == BASE for record in run.trials):
        wanted[BASE] = Strategy()
    opened = [t.started for t in run.trials if t.started.phase == "test"]
    wanted |= {started.arm: started.strategy for started in opened}
    jobs: dict[str, TrialSpec] = {}
    for name, strategy in wanted.items():
        if strategy is not None:
            job = TrialSpec(f"test-{name}", name, Strategy(strategy), split, config.seed)
            jobs.setdefault(job.strategy.key, job)
    return list(jobs.values())


def best_strategy_hint(folder: Path) -> str:
    """The command that repeats the winner, as seen from the working directory."""
    return typed("finetune", f"strategy={os.path.relpath(RunFolder(folder).strategy)}")


def _explored(records: Records, strategy: Strategy) -> Iterator[TrialRecord]:
    for record in records.trials.values():
        same = record.started.strategy.key == strategy.key
        if record.finished and record.started.phase == "explore" and same:
            yield record
