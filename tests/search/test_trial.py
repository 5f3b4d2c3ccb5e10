"""What a worker does when a trial has ended or failed."""

import subprocess
import sys

import pytest

from hsf_tune.search.trial import OUT_OF_MEMORY, _failure


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
