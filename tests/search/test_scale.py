"""Many trials, and several nodes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

WORKERS = Path(__file__).parent / "workers"


def run_script(text, timeout_s):
    """Run Python code in a process with a Ray of its own; what it prints as JSON last."""
    paths = [str(WORKERS), *filter(None, sys.path)]
    done = subprocess.run(
        [sys.executable, "-c", text],
        env={**os.environ, "RAY_AUTH_MODE": "disabled", "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.strip().splitlines()[-1])


MANY = """
import json, resource, time
from pathlib import Path
import small_search
from hsf_tune.records import Records
from hsf_tune.search.run import run_search
memory = []
def observe(event):
    if event.kind == "trial_ended":
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        memory.append(pages * resource.getpagesize())
content = {**small_search.TWO_ARMS, "lightning.max_epochs": 5}
config = small_search.make_config(
    strategies_per_arm=149, folds=2, keep=[1], confirm=False, sampler="random", max_concurrent=2)
space = small_search.make_space(content, config)
folder = Path("FOLDER")
import ray
from hsf_tune.search.resources import ray_running
with ray_running(space.config.search):
    begun = time.monotonic()
    run_search(space.config, space, small_search.make_splits(), folder, Records(folder),
               trainer="trivial_trainer", observers=[observe])
    seconds = time.monotonic() - begun
print(json.dumps({"trials": len(memory), "seconds": seconds,
                  "early": memory[49], "late": memory[-1]}))
"""


@pytest.mark.slow
def test_300_trivial_trials_take_under_a_minute_and_no_memory(tmp_path):
    """Two at a time; the driver's memory grows by less than 20 MB over the last 250."""
    measured = run_script(MANY.replace("FOLDER", str(tmp_path)), 280)
    assert measured["trials"] >= 300
    assert measured["seconds"] < 60
    assert measured["late"] - measured["early"] < 20 * 2**20


NODES = """
import json, os, threading, time
from pathlib import Path
import small_search
from hsf_tune.records import Records
from hsf_tune.search.resources import prepare_environment
from hsf_tune.search.run import run_search
prepare_environment()
import ray
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
kept = cluster.add_node(num_cpus=1)
lost = cluster.add_node(num_cpus=1)
ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
folder = Path("FOLDER")
(folder / "faults.json").write_text(json.dumps({"epoch_s": 0.5}))
config = small_search.make_config(strategies_per_arm=2, folds=2, keep=[1], confirm=False,
                                  sampler="random")
space = small_search.make_space(config=config)
running, removed = set(), threading.Event()
def observe(event):
    if event.kind == "epoch_ended" and event.epoch >= 2:
        running.add(event.trial)
        if len(running) == 2 and not removed.is_set():
            removed.set()
            threading.Thread(target=lambda: cluster.remove_node(lost, allow_graceful=False)).start()
records = Records(folder)
run_search(space.config, space, small_search.make_splits(), folder, records,
           trainer="trivial_trainer", observers=[observe])
print(json.dumps({
    "removed": removed.is_set(),
    "statuses": sorted({r.ended.status for r in records.trials.values()}),
    "trials": len(records.trials),
    "curves_whole": all(sorted(r.epochs) == list(range(r.started.max_epochs))
                        for r in records.trials.values()),
}))
"""


@pytest.mark.slow
def test_removed_node_costs_no_trial(tmp_path):
    """Trials of a node that goes away in the middle complete on the other one."""
    found = run_script(NODES.replace("FOLDER", str(tmp_path)), 280)
    assert found["removed"]
    assert found["statuses"] == ["finished"]
    assert found["curves_whole"]
