"""The tables of a run, `scores.csv` and `trials.csv`: views of its records, for other programs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from hsf_tune.files import csv_text, write_text
from hsf_tune.records.events import jsonable
from hsf_tune.records.records import Records

SCORE_COLUMNS = [
    "phase", "trial", "arm", "fold", "seed", "subject", "case", "label", "metric", "value",
]  # fmt: skip
TRIAL_COLUMNS = [
    "phase", "trial", "arm", "fold", "seed", "status", "dice", "best_dice", "best_epoch",
    "epochs", "seconds", "parameters_trained", "strategy",
]  # fmt: skip


def write_tables(records: Records) -> None:
    """Write `scores.csv` and `trials.csv` anew, each atomically."""
    write_text(records.files.scores_table, csv_text(SCORE_COLUMNS, score_rows(records)))
    write_text(records.files.trials_table, csv_text(TRIAL_COLUMNS, trial_rows(records)))


def score_rows(records: Records) -> Iterator[list[Any]]:
    """One row a case, label and metric of every ended trial, as in `scores.csv`."""
    for record in records.trials.values():
        s = record.started
        for score in record.ended.scores if record.ended else ():
            yield [s.phase, s.trial, s.arm, s.fold, s.seed, *score]


def trial_rows(records: Records) -> Iterator[list[Any]]:
    """One row a trial, as in `trials.csv`."""
    for r in records.trials.values():
        s, e = r.started, r.ended
        status = e.status if e else "running"
        tail = [e.dice, e.best_dice, e.best_epoch, e.epochs, round(e.seconds, 3)] if e else []
        strategy = json.dumps(jsonable(s.strategy), sort_keys=True)
        row = [s.phase, s.trial, s.arm, s.fold, s.seed, status, *tail]
        yield row + [None] * (11 - len(row)) + [s.parameters_trained, strategy]
