"""Start or join Ray, and say how many trials fit side by side.

Ray's own console output, usage statistics, dashboard and result files are off: this
project has its own. What a trial needs is decided once a search and is the same for all
its trials, so that a worker can serve any of them.
"""

from __future__ import annotations

import logging
import math
import os
import secrets
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from hsf_tune.config import SearchConfig
from hsf_tune.errors import SearchError
from hsf_tune.interrupt import Interrupt, handled_by, shielded
from hsf_tune.machine import cpu_count

_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths of the configuration stay valid
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # hsf_tune handles signals
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",  # the records are the truth, not Tune's state
    "TUNE_MAX_PENDING_TRIALS_PG": "1024",  # `Capacity` limits them; more workers start at once
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_RESULT_BUFFER_LENGTH": "1",
}
_BEYOND_LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"  # heeded on Linux, too
_CONNECT_S = 10.0  # for an answer at --address; Ray itself would wait for minutes
_LONGEST_TEMPORARY = 40  # characters; sockets below it have paths of limited length
_STORE_BYTES = 80 * 1024**2  # trials share memory-mapped files, not Ray's object store


@dataclass(frozen=True)
class Resources:
    """What one trial holds while it runs.

    Attributes:
        cpus: also its number of threads.
        gpus: fraction of a GPU; 0 on a CPU.
    """

    cpus: float
    gpus: float = 0.0

    @property
    def threads(self) -> int:
        return max(1, int(self.cpus))

    def needs(self) -> dict[str, float]:
        return {"CPU": self.cpus, **({"GPU": self.gpus} if self.gpus else {})}


@contextmanager
def ray_running(search: SearchConfig, interrupt: Interrupt | None = None) -> Iterator[None]:
    """A Ray instance: the one that runs here already, the one at `address`, or a new one.

    A new one listens on this machine's loopback interface only, and asks for a token.

    Args:
        interrupt: keeps the signals, for which Ray would install handlers of its own.

    Raises:
        SearchError: there is no cluster at the address.
    """
    prepare_environment(search.address)
    import ray

    if ray.is_initialized():
        yield
        return
    temporary = None if search.address else _temporary_folder()
    interrupt = interrupt or Interrupt()
    with handled_by(interrupt):  # which sets what was before anew; Ray takes it away at its end
        try:
            with shielded(interrupt):
                _start(search, temporary)
            yield
        finally:
            ray.shutdown()
            if temporary is not None:
                shutil.rmtree(temporary, ignore_errors=True)


def prepare_environment(address: str | None = None) -> None:
    """Quieten Ray and Tune, and without an address keep others out of the Ray that is started.

    All by environment variables that their import reads.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if address is None:
        os.environ[_BEYOND_LOOPBACK] = "0"
        if "RAY_AUTH_TOKEN_PATH" not in os.environ:  # or Ray writes one into the user's home
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    for logger in ("ray", "ray.tune"):
        logging.getLogger(logger).setLevel(logging.ERROR)


def trial_resources(search: SearchConfig, *, on_gpu: bool = True) -> Resources:
    """What each trial gets, where the configuration leaves it open; no GPU unless `on_gpu`."""
    nodes = [node["Resources"] for node in _nodes()]
    gpus = sum(r.get("GPU", 0) for r in nodes)
    share = search.gpus_per_trial
    if not on_gpu:
        share = 0.0
    elif share is None:
        share = 1.0 if gpus else 0.0
    if search.cpus_per_trial is not None:
        return Resources(search.cpus_per_trial, share)
    if not share:
        return Resources(1.0)
    with_gpu = [r for r in nodes if r.get("GPU", 0)]
    fair = min((r.get("CPU", 1) * share / r["GPU"] for r in with_gpu), default=1.0)
    return Resources(max(1.0, float(math.floor(fair))), share)


def require_fit(resources: Resources) -> None:
    """Refuse what would wait for ever.

    Raises:
        SearchError: no machine that is there now has room for one trial.
    """
    nodes = [node["Resources"] for node in _nodes()]
    if any(_fitting(node, resources.needs()) for node in nodes):
        return
    here = {kind: sum(node.get(kind, 0) for node in nodes) for kind in ("CPU", "GPU")}
    raise SearchError(
        f"No trial fits: each asks for {resources.cpus:g} CPUs and {resources.gpus:g} GPUs, this"
        f" machine has {here['CPU']:g} and {here['GPU']:g}. Lower --cpus-per-trial or"
        " --gpus-per-trial."
    )


class Capacity:
    """How many trials fit on the nodes that are there now; looked up every few seconds."""

    def __init__(self, resources: Resources, limit: int | None) -> None:
        self._needs, self._limit = resources.needs(), limit
        self._known, self._until = 0, 0.0

    def __call__(self) -> int:
        if time.monotonic() > self._until:
            self._known = sum(_fitting(node["Resources"], self._needs) for node in _nodes())
            self._until = time.monotonic() + 5
        return min(self._known, self._limit) if self._limit else self._known


def _fitting(available: Mapping[str, float], needs: Mapping[str, float]) -> int:
    """Trials that fit on one node. A trial never spans two GPUs."""
    cpus = int(available.get("CPU", 0) // needs["CPU"])
    share = needs.get("GPU", 0.0)
    if not share:
        return cpus
    gpus = int(available.get("GPU", 0))
    on_gpus = gpus * int(1 / share + 1e-9) if share <= 1 else int(gpus // share)
    return min(cpus, on_gpus)


def _nodes() -> list[dict[str, dict[str, float]]]:
    import ray

    return [node for node in ray.nodes() if node["Alive"]]


def _start(search: SearchConfig, temporary: str | None) -> None:
    import ray

    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    if search.address:
        try:
            _require_answer(search.address)
            ray.init(address=search.address, **quiet)
        except (OSError, ValueError, RuntimeError) as error:
            raise SearchError(
                f"--address {search.address}: no Ray cluster answers there ({error}). Start one"
                " with `ray start --head`, or leave --address out to use this machine."
            ) from error
        return
    ray.init(
        num_cpus=cpu_count(),
        include_dashboard=False,
        object_store_memory=_STORE_BYTES,
        _temp_dir=temporary,
        **quiet,
    )


def _require_answer(address: str) -> None:
    """Something listens at HOST:PORT; `auto` and the like are Ray's to look up.

    Raises:
        OSError: nothing does.
        ValueError: there is no such port.
    """
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if colon:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_S).close()


def _temporary_folder() -> str:
    parent = tempfile.gettempdir()
    if len(parent) > _LONGEST_TEMPORARY - len("/hsf-12345678"):
        parent = "/tmp"
    return tempfile.mkdtemp(prefix="hsf-", dir=parent)
