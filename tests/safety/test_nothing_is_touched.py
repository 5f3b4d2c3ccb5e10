"""No command line, however unlucky, touches a file that is not its run's, the cache's or MLflow's."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder():
    """Of a short name, for Ray's sockets."""
    path = Path(tempfile.mkdtemp(prefix="w", dir="/tmp"))
    yield path
    shutil.rmtree(path)


def run_lines(folder, *words):
    done = subprocess.run(
        [sys.executable, ROOT / "tests/safety/run_lines.py", folder, *map(str, words)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.rstrip().endswith("\n0 lines with faults"), done.stdout + done.stderr[-2000:]
    assert done.returncode == 0


def test_twenty_random_command_lines_touch_nothing_of_the_users(folder):
    """Flags, environment and given files at random; scans, keys and notes lie everywhere."""
    run_lines(folder, "--seed", 1, "--lines", 20)


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("seed", [2, 3, 4])
def test_many_random_command_lines_touch_nothing_of_the_users(folder, seed):
    """Also with searches on Ray and databases of MLflow."""
    run_lines(folder, "--seed", seed, "--lines", 60, "--slow", 0.2)
