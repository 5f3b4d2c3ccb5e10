"""What this process may use of the machine."""

from __future__ import annotations

import os


def cpu_count() -> int:
    """CPUs that this process may run on; all of the machine's where the system does not say."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
