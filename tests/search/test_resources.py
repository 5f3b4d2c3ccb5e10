"""What a trial is given, and whether a machine has it."""

import time

import pytest

from hsf_tune.config import SearchConfig
from hsf_tune.errors import SearchError
from hsf_tune.search import resources
from hsf_tune.search.resources import Resources, ray_running, require_fit, trial_resources


@pytest.fixture
def machine(monkeypatch):
    """A Ray of one machine with this many CPUs and GPUs."""

    def build(cpus, gpus=0):
        node = {"Resources": {"CPU": float(cpus), **({"GPU": float(gpus)} if gpus else {})}}
        monkeypatch.setattr(resources, "_nodes", lambda: [node])

    return build


@pytest.mark.parametrize(
    ("asked", "has"), [((16, 0), (8, 0)), ((1, 0.5), (8, 0)), ((1, 2), (8, 1))]
)
def test_trial_that_fits_nowhere_is_refused_instead_of_waited_for(machine, asked, has):
    machine(*has)
    with pytest.raises(SearchError, match=f"asks for {asked[0]} CPUs and {asked[1]} GPUs"):
        require_fit(Resources(*asked))


@pytest.mark.parametrize("asked", [(8, 0), (0.5, 0), (1, 0.25), (2, 1)])
def test_trial_that_fits_is_let_through(machine, asked):
    machine(8, 1)
    require_fit(Resources(*asked))


def test_trial_on_the_cpu_reserves_no_gpu(machine):
    """Also where the machine has one, of which each trial would take a whole."""
    machine(8, 1)
    assert trial_resources(SearchConfig()).gpus == 1
    assert trial_resources(SearchConfig(), on_gpu=False) == Resources(1.0)


def test_an_address_where_nobody_listens_is_refused_at_once():
    """Ray itself would wait for minutes, without a word."""
    began_s = time.monotonic()
    with (
        pytest.raises(SearchError, match=r"--address 127\.0\.0\.1:9: no Ray cluster answers"),
        ray_running(SearchConfig(address="127.0.0.1:9")),
    ):
        pass
    assert time.monotonic() - began_s < 30
