"""How many CPUs a run counts on."""

import os

import pytest

from hsf_tune.cli.placement import side_by_side
from hsf_tune.machine import cpu_count


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
def test_one_core_of_two_counts_as_one(config):
    """What the process may run on, as Ray counts, not what the machine has."""
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert (cpu_count(), side_by_side(config)) == (1, 1)
    finally:
        os.sched_setaffinity(0, allowed)


def test_a_system_without_affinity_gives_all_its_cpus(monkeypatch):
    """macOS has no os.sched_getaffinity."""
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert cpu_count() == (os.cpu_count() or 1)
