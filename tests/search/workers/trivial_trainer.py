"""A trainer that learns nothing, as fast as a search can run it.

It keeps `fit`'s promises: a state saved before each epoch is reported, a call on the
same folder goes on from it, and the curve depends on strategy, split and seed alone.
What should go wrong is read from `faults.json` in the run's folder.
"""

import errno
import json
import math
import os
import random
import re
import shutil
import signal
import time
from pathlib import Path
from zlib import crc32

from hsf_tune.errors import Diverged
from hsf_tune.records import EpochEnded, Score, TrialEnded


def true_dice(strategy):
    """What a strategy is worth, without noise: best at lr 3e-3 and with all blocks open."""
    if not strategy:
        return 0.5
    rate = math.log10(strategy["models.lr"] / 3e-3)
    return 0.8 + 0.02 * strategy["finetuning.depth"] - 0.1 * rate**2


def fit(config, spec, folder, on_event, *, threads, should_stop=None):
    faults = _faults(folder.parents[1])
    folder.mkdir(parents=True, exist_ok=True)
    epochs = int(spec.strategy.get("lightning.max_epochs", 0))
    depth, pace = (
        spec.strategy.get("finetuning.depth", 0),
        spec.strategy.get("finetuning.unfreeze_frequency", 1),
    )
    openings = {f"b{i}": i * pace for i in range(depth + 1)}
    on_event(spec.started(opening_epochs=openings, device=str(os.getpid())))
    state = _State.of(folder, spec)
    if state.epoch:  # it was saved, but perhaps not told
        on_event(_epoch(spec, state, threads))
    reason = None
    while state.epoch < epochs and not reason:
        _maybe_fail(faults, spec.trial, state.epoch, folder)
        time.sleep(faults.get("epoch_s", 0))
        state.next(true_dice(spec.strategy))
        state.save(folder)
        on_event(_epoch(spec, state, threads))
        reason = should_stop() if should_stop and state.epoch < epochs else None
    dice = state.dice if epochs else true_dice(spec.strategy)
    scores = [Score(s, f"{s}--c", "CA1", "dice", dice) for s in spec.split.validate]
    ended = TrialEnded(
        spec.trial, "pruned" if reason else "finished", dice, dice, epochs=state.epoch,
        scores=scores, reason=reason,
    )  # fmt: skip
    on_event(ended)
    return ended


def _epoch(spec, state, threads):
    return EpochEnded(spec.trial, state.epoch - 1, {"val_dice": state.dice, "threads": threads})


class _State:
    def __init__(self, epoch, dice, seed):
        self.epoch, self.dice, self.seed = epoch, dice, seed

    @classmethod
    def of(cls, folder, spec):
        path = folder / "last.json"
        if path.exists():
            return cls(*json.loads(path.read_text()))
        text = f"{json.dumps(dict(spec.strategy), sort_keys=True)} {spec.split} {spec.seed}"
        return cls(0, 0.0, crc32(text.encode()))

    def next(self, goal):
        draw = random.Random(self.seed + self.epoch)
        self.epoch += 1
        self.dice = 0.9 * self.dice + 0.1 * goal + draw.gauss(0, 1e-3)

    def save(self, folder):
        temporary = folder / f".{os.getpid()}"
        temporary.write_text(json.dumps([self.epoch, self.dice, self.seed]))
        os.replace(temporary, folder / "last.json")


def _faults(folder):
    path = Path(folder) / "faults.json"
    return json.loads(path.read_text()) if path.exists() else {}


def _maybe_fail(faults, trial, epoch, folder):
    """Each fault: {"trials": regex, "epoch": int, "kind": ..., "once": bool}."""
    for i, fault in enumerate(faults.get("faults", [])):
        done = folder / f"fault-{i}"
        if re.search(fault["trials"], trial) and epoch == fault.get("epoch", 0):
            if fault.get("once") and done.exists():
                continue
            done.touch()
            _fail(fault["kind"], epoch, folder)


def _fail(kind, epoch, folder):
    if kind == "nan":
        raise Diverged(f"the loss became nan in epoch {epoch}")
    if kind == "memory":
        raise MemoryError("no room for this volume")
    if kind == "disk":
        raise OSError(errno.ENOSPC, "No space left on device")
    if kind == "away":
        raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")
    if kind == "vanish":
        shutil.rmtree(folder.parents[1])
    if kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    raise RuntimeError("this trial was told to fail")
