"""A small space, splits and a Ray instance for the tests of the search."""

import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

WORKERS = Path(__file__).parent / "workers"
sys.path.insert(0, str(WORKERS))

import small_search  # noqa: E402


@pytest.fixture
def make_config():
    """Builds a configuration from settings of its `search` group."""
    return small_search.make_config


@pytest.fixture
def make_space():
    """Builds a space, by default one with two arms, from plain content."""
    return small_search.make_space


@pytest.fixture
def make_splits():
    """Builds the splits of ten subjects."""
    return small_search.make_splits


@pytest.fixture(scope="module")
def ray_here():
    """One Ray instance for a test module, two workers wide."""
    os.environ["RAY_AUTH_MODE"] = "disabled"
    os.environ["PYTHONPATH"] = os.pathsep.join([str(WORKERS), *filter(None, sys.path)])
    from hsf_tune.search.resources import prepare_environment

    prepare_environment()
    import ray

    folder = tempfile.mkdtemp(prefix="hsf-t-", dir="/tmp")
    ray.init(
        num_cpus=2, include_dashboard=False, _temp_dir=folder, log_to_driver=False,
        object_store_memory=80 * 1024**2, logging_level="ERROR",
    )  # fmt: skip
    yield
    ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)
