"""The fuzzing script itself works; it is run with more files by hand."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_a_hundred_damaged_files_are_refused_or_read_as_nibabel_reads_them():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.fuzz_nifti", "--files", "100", "--seed", "1"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "100 files:" in done.stdout
    assert done.stdout.rstrip().endswith("0 wrong")
    assert " 0 refused" not in done.stdout
