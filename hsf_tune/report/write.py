"""Write `report.html`, `report.json` and `figures/*.png` of a run; compare it with others."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hsf_tune.files import write_text
from hsf_tune.records import TrialRecord
from hsf_tune.report.page import render
from hsf_tune.report.pictures import write_pictures
from hsf_tune.report.run import Run, read_run
from hsf_tune.report.sections import contents
from hsf_tune.report.summary import summarise
from hsf_tune.verdict.claims import Verdict


@dataclass(frozen=True)
class Report:
    """What was written, and what it says."""

    html: Path
    json: Path
    verdict: Verdict
    summary: dict[str, Any]
    pictures: tuple[Path, ...]
    best_trial: TrialRecord | None  # of the recommended strategy; what best_strategy.yaml repeats


def write_report(folder: Path | str, others: Sequence[Path | str] = ()) -> Report:
    """Write a run's report into its folder, from its records alone.

    Can be called at any time, also while the search runs; what is not there yet is said.

    Args:
        folder: of the run.
        others: folders of runs to compare it with (another base, another dataset).

    Raises:
        RunError: a folder that holds no run, or files that can't be written.
    """
    run = read_run(folder)
    compared = [read_run(other) for other in others]
    summary = summarise(run)
    page = render(contents(run, summary, compared))
    html, plain = run.files.report, run.files.summary
    with run.files.writing():
        pictures = write_pictures(run)
        write_text(html, page)
        write_text(plain, json.dumps(summary, indent=1, allow_nan=False, default=dict) + "\n")
    return Report(html, plain, run.verdict, summary, tuple(pictures), best_trial(run))


def best_trial(run: Run) -> TrialRecord | None:
    """The recommended strategy's first finished trial: confirmed on fold 1, else explored."""
    strategy = run.verdict.recommendation.strategy
    if not strategy:
        return None
    for phase in ("confirm", "explore"):
        found = [t for t in run.trials_of(strategy, phase) if t.finished]
        if found:
            return min(found, key=lambda t: (t.started.fold, t.started.seed))
    return None
