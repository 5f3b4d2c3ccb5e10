"""Bound the disk space of a run: keep the weights of what may still be used.

While a search runs, a trial keeps its best and its last weights. Once the search has
ended, `search.keep_checkpoints: finalists` keeps those of the finalists and of the
documented default, in exploration and confirmation. Figures and scores always stay.
"""

from __future__ import annotations

from hsf_tune.records import DEFAULT, FinalistsNamed, Records
from hsf_tune.strategy import strategy_key


def drop_checkpoints(records: Records, keep: str) -> int:
    """Delete weights that no later step uses; the bytes that became free.

    Trials that have not ended keep everything, so that they can go on.

    Args:
        keep: "finalists", or "all" to delete nothing.
    """
    if keep == "all":
        return 0
    kept = _kept_strategies(records)
    freed = 0
    for record in records.trials.values():
        if record.ended is None or record.started.strategy.key in kept:
            continue
        for path in records.files.trial(record.id).weights:
            freed += path.stat().st_size
            path.unlink()
    return freed


def _kept_strategies(records: Records) -> set[str]:
    """Keys of the finalists that each arm named last, and of the documented default."""
    latest = {note.arm: note.finalists for note in records.noted(FinalistsNamed)}
    keys = {strategy_key(f["strategy"]) for found in latest.values() for f in found}
    defaults = [r.started.strategy for r in records.trials.values() if r.started.arm == DEFAULT]
    return keys | {strategy.key for strategy in defaults}
