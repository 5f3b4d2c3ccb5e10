"""Run one trial inside a Ray worker and tell the driver what happens.

Exploration, confirmation and test alike. A worker serves many trials one after the
other, so whatever a trial may leave behind is set anew before the next. What goes wrong
inside a trial is an event like any other: for Ray the trial completed, and the search
goes on. Only a worker that dies is Ray's business; it calls again, and `fit` goes on
from the last epoch that was saved.
"""

from __future__ import annotations

import ctypes
import errno
import gc
import importlib
import json
import os
import random
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hsf_tune.config import config_from_dict
from hsf_tune.errors import DataError, HsfTuneError, ModelError, RunError
from hsf_tune.records import Event, TrialEnded, TrialSpec, TrialStarted, event_to_dict
from hsf_tune.run_folder import RunFolder, TrialFolder

TRAINER = "hsf_tune.finetuning.fit"
EVENTS = "events"  # the one key of what a trial reports: events as JSON text
OUT_OF_MEMORY = "out of memory"  # how the reason of such a failure begins
NO_SPACE = "no space left on the disk"  # likewise; it ends the search, not the trial
NO_FILES = "files can't be used"  # likewise


@dataclass(frozen=True)
class Workplace:
    """What all trials of a search share; plain data that travels to the workers.

    Attributes:
        config: the run's configuration as a plain dict.
        folder: the run's folder, on storage that driver and workers share.
        directory: the driver's working directory, which relative paths refer to.
        threads: CPU threads of a trial.
        dataset_key: fingerprint of the data that the run began with; None where unknown.
        trainer: name of the module whose `fit` runs a `TrialSpec`.
    """

    config: Mapping[str, Any]
    folder: str
    directory: str
    threads: int
    dataset_key: str | None = None
    trainer: str = TRAINER


def run_trial(spec: TrialSpec, place: Workplace) -> None:
    """Run a trial to its end, reporting every event.

    Returns normally also when the trial failed; the events say so.
    """
    # a thread that still winds down must not cost the next trial its process
    os.environ.setdefault("TUNE_FUNCTION_THREAD_TIMEOUT_S", "60")
    if os.path.isdir(place.directory):
        os.chdir(place.directory)
    report = _Report()
    try:
        folder = RunFolder(place.folder).trial(spec.trial)
        trainer = importlib.import_module(place.trainer)
        _start_afresh(spec.seed, place.threads)
        trainer.fit(
            config_from_dict(place.config),
            replace(spec, dataset_key=place.dataset_key),
            folder.path,
            report,
            threads=place.threads,
            should_stop=lambda: _stop_reason(folder),
        )
    except Exception as error:
        if not report.started:
            report(spec.started())
        report(_failure(spec.trial, error))
    finally:
        _free_memory()


class _Report:
    """`on_event` of a worker: hands each event to the driver and waits until it has it."""

    def __init__(self) -> None:
        self.started = False

    def __call__(self, event: Event) -> None:
        from ray import tune  # seconds; only a worker of Ray reports

        self.started = self.started or isinstance(event, TrialStarted)
        tune.report({EVENTS: json.dumps([event_to_dict(event)])})


def _failure(trial: str, error: Exception) -> TrialEnded:
    first = str(error).strip().splitlines()[0] if str(error).strip() else ""
    name = "" if isinstance(error, HsfTuneError) else f"{type(error).__name__}: "
    reason = f"{name}{first}" if first else type(error).__name__
    cause = _cause(error)
    if cause is not None:
        reason = f"{cause} ({reason})"
    return TrialEnded(
        trial=trial,
        status="failed",
        reason=reason,
        traceback="".join(traceback.format_exception(error)),
    )


def _cause(error: Exception) -> str | None:
    """What failed instead of the strategy: the machine, the disk, the data, the base model."""
    if _is_out_of_memory(error):
        return OUT_OF_MEMORY
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NO_SPACE
    return NO_FILES if isinstance(error, OSError | DataError | ModelError | RunError) else None


def _is_out_of_memory(error: Exception) -> bool:
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    if isinstance(error, RuntimeError) and "can't allocate memory" in str(error):
        return True  # PyTorch on a CPU
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(error, torch.OutOfMemoryError)


def _stop_reason(folder: TrialFolder) -> str | None:
    try:
        return folder.stop.read_text(encoding="utf-8") or "stopped"
    except FileNotFoundError:
        return None


def _start_afresh(seed: int, threads: int) -> None:
    """What an earlier trial in this process may have left behind is set anew."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - the global generator that libraries draw from
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(seed)
        torch.set_num_threads(threads)
        torch.set_grad_enabled(True)


def _free_memory() -> None:
    """Give back what the trial's tensors took, to the GPU and to the system.

    Each trial runs in a thread of its own, and glibc keeps the holes that freed tensors leave in
    each thread's part of the heap: within twenty trials a worker grew from 1.4 to 6.8 GB.
    """
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # not every C library has it
        if trim is not None:
            trim(0)
