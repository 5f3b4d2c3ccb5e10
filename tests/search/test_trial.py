"""What a worker does when a trial has ended or failed."""

import errno
import shutil
import subprocess
import sys

import pytest

from hsf_tune.config import config_from_dict
from hsf_tune.data.cases import find_cases
from hsf_tune.data.splits import Split
from hsf_tune.data.store import open_store
from hsf_tune.errors import DataError, Diverged, ModelError
from hsf_tune.records import TrialSpec, TrialStarted
from hsf_tune.search import trial as trial_module
from hsf_tune.search.trial import (
    NO_FILES,
    NO_SPACE,
    OUT_OF_MEMORY,
    Workplace,
    _failure,
    run_trial,
)


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (MemoryError(), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 8 bytes"), True),
        (RuntimeError("sizes differ"), False),
    ],
)
def test_out_of_memory_is_told_from_other_failures(error, is_memory):
    """Such a trial is tried again alone."""
    assert _failure("t", error).reason.startswith(OUT_OF_MEMORY) == is_memory


@pytest.mark.skipif(sys.platform != "linux", reason="the C library keeps no such holes elsewhere")
def test_a_worker_gives_back_what_a_trial_has_freed():
    """300 MB in pieces too small to be given back by themselves, below one that is kept."""
    program = """
import numpy as np
from hsf_tune.search.trial import _free_memory

def resident_mb():
    line = next(l for l in open("/proc/self/status") if l.startswith("VmRSS"))
    return int(line.split()[1]) / 1024

pieces = [np.ones(12_000) for _ in range(3_300)]
kept = np.ones(12_000)
del pieces
before = resident_mb()
_free_memory()
print(before - resident_mb())
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=100
    )
    assert float(done.stdout) > 250


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (OSError(errno.EIO, "Input/output error"), NO_FILES),
        (OSError(errno.ENOTCONN, "Transport endpoint is not connected"), NO_FILES),
        (FileNotFoundError(errno.ENOENT, "No such file or directory"), NO_FILES),
        (DataError("/data has no case"), NO_FILES),
        (ModelError("base.ckpt does not exist"), NO_FILES),
        (OSError(errno.ENOSPC, "No space left on device"), NO_SPACE),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), OUT_OF_MEMORY),
        (Diverged("the loss became nan in epoch 2"), "the loss became nan"),
        (RuntimeError("sizes differ"), "RuntimeError: sizes differ"),
    ],
    ids=str,
)
def test_what_failed_instead_of_the_strategy_is_told_apart(error, cause):
    """A share that is away for seconds is no reason to think less of a strategy."""
    assert _failure("t", error).reason.startswith(cause)


@pytest.fixture
def worker(tmp_path, plain_config, dataset_folder, monkeypatch):
    """Runs a trial as a worker does, on a copy of the images; what it told the driver."""
    shutil.copytree(dataset_folder / "balls", tmp_path / "data" / "balls")
    datasets = {**plain_config["datasets"], "main_path": str(tmp_path / "data")}
    config = config_from_dict({**plain_config, "datasets": datasets})
    cases = find_cases(config.datasets)
    key = open_store(cases, config.datasets, config.store).key
    place = Workplace(config.to_dict(), str(tmp_path / "run"), str(tmp_path), 1, key)
    subjects = sorted({case.subject for case in cases})
    split = Split("explore", 1, tuple(subjects[1:]), tuple(subjects[:1]))
    strategy = {"finetuning.depth": 0, "lightning.max_epochs": 1, "models.lr": 0.01}

    class Told(list):
        started = property(lambda self: any(isinstance(e, TrialStarted) for e in self))
        __call__ = list.append

    def run(number):
        told = Told()
        monkeypatch.setattr(trial_module, "_Report", lambda: told)
        job = TrialSpec(f"explore-head-{number:03d}-f1", "head", strategy, split, 42)
        run_trial(job, place)
        return told[-1]

    return run, tmp_path / "data" / "balls"


def test_labels_that_change_during_a_search_stop_it_before_the_next_score(worker):
    """Swapped between two subjects, sizes and times as they were: noticed by the next trial."""
    run, data = worker
    assert run(1).status == "finished"
    one, other = (data / name / "left_seg.nii.gz" for name in ("sub-01", "sub-02"))
    one.rename(data / "kept")
    other.rename(one)
    (data / "kept").rename(other)
    ended = run(2)
    assert (ended.status, ended.dice) == ("failed", None)
    assert ended.reason.startswith(f"{NO_FILES} (images or labels have changed since the run began")


def test_a_data_folder_that_is_away_is_no_trials_fault(worker):
    """The search stops (see the coordinator's tests), and the trial is tried again."""
    run, data = worker
    data.rename(data.with_name("away"))
    assert run(1).reason.startswith(NO_FILES)
    data.with_name("away").rename(data)
    assert run(1).status == "finished"
