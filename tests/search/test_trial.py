"""How a worker tells why a trial failed."""

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
