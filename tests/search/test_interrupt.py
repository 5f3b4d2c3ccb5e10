"""A search that is interrupted, by a signal or by a kill, and goes on."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from hsf_tune.records import FinalistsNamed, Records, read_events

WORKERS = Path(__file__).parent / "workers"
SETTINGS = {
    "strategies_per_arm": 4,
    "folds": 2,
    "keep": [2],
    "confirm_folds": 2,
    "confirm_seeds": 1,
    "n_startup_trials": 2,
}


class Driver:
    """Searches on a folder, each in a process of its own."""

    def __init__(self, folder, epoch_s, **settings):
        self.folder = folder
        folder.mkdir()
        self.settings = json.dumps({**SETTINGS, **settings})
        self.pace(epoch_s)

    def pace(self, epoch_s):
        (self.folder / "faults.json").write_text(json.dumps({"epoch_s": epoch_s}))

    def start(self, *program):
        paths = [str(WORKERS), *filter(None, sys.path)]
        return subprocess.Popen(
            [
                sys.executable,
                *(program or [str(WORKERS / "driver.py")]),
                str(self.folder),
                self.settings,
            ],
            env={
                **os.environ,
                "RAY_AUTH_MODE": "disabled",
                "PYTHONPATH": os.pathsep.join(paths),
                "OMP_NUM_THREADS": "1",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self):
        process = self.start()
        output, _ = process.communicate(timeout=280)
        assert process.returncode == 0, output
        return Records(self.folder)

    def wait_for_epochs(self, process, n):
        """Until `n` more epochs were recorded."""
        goal = self.epochs() + n
        while self.epochs() < goal:
            assert process.poll() is None, process.stdout.read()
            time.sleep(0.05)

    def epochs(self):
        return sum(e.kind == "epoch_ended" for e in read_events(self.folder / "trials.jsonl"))


def curves(records):
    return {
        r.id: [r.epochs[e].metrics["val_dice"] for e in sorted(r.epochs)]
        for r in records.trials.values()
    }


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)],
)
def test_signal_ends_the_search_cleanly_and_it_goes_on(tmp_path, number, code):
    """Exit code 130 or 143, a note, no failed trial; then the search ends as if undisturbed."""
    driver = Driver(tmp_path / "run", epoch_s=0.3)
    process = driver.start()
    driver.wait_for_epochs(process, 5)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == code, output
    records = Records(driver.folder)
    assert "interrupted" in records.notes[-1].text
    assert not [r for r in records.trials.values() if r.ended and r.ended.status == "failed"]
    unfinished = [r for r in records.trials.values() if r.ended is None]
    assert unfinished
    known = {r.id: dict(r.epochs) for r in unfinished}
    driver.pace(0)
    records = driver.run()
    assert all(r.finished for r in records.trials.values())
    for trial, epochs in known.items():  # what was trained is not trained again
        kept = records.trials[trial].epochs
        assert all(kept[e].time == epochs[e].time for e in sorted(epochs)[:-1])


@pytest.mark.slow
def test_second_ctrl_c_stops_at_once(tmp_path):
    """Without waiting for a clean end; what is recorded is safe."""
    driver = Driver(tmp_path / "run", epoch_s=0.3)
    process = driver.start()
    driver.wait_for_epochs(process, 2)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode != 0
    assert Records(driver.folder).trials


@pytest.mark.slow
def test_driver_killed_ten_times_ends_like_the_undisturbed_search(tmp_path):
    """Every trial once, no zombie in the study, the same curves and the same finalists."""
    undisturbed = Driver(tmp_path / "whole", epoch_s=0).run()
    driver = Driver(tmp_path / "killed", epoch_s=0.15)
    draw = random.Random(0)
    for _ in range(10):
        process = driver.start()
        driver.wait_for_epochs(process, draw.randint(1, 12))
        time.sleep(draw.random() * 0.3)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    driver.pace(0)
    records = driver.run()
    assert curves(records) == curves(undisturbed)
    ends = Counter(e.trial for e in read_events(driver.folder / "trials.jsonl")
                   if e.kind == "trial_ended")  # fmt: skip
    assert set(ends.values()) == {1}
    assert finalists(records) == finalists(undisturbed)
    assert states(driver.folder) == states(undisturbed.folder)


def finalists(records):
    return {note.arm: note.finalists for note in records.noted(FinalistsNamed)}


def states(folder):
    import optuna

    from hsf_tune.search.study import open_storage

    storage = open_storage(folder / "optuna.db")
    return {
        arm: sorted(
            (t.state.name, t.value or 0.0)
            for t in optuna.load_study(study_name=arm, storage=storage).trials
        )
        for arm in ("encoder", "decoder")
    }


STARTING = """
import os, signal, threading, sys
import ray
began = ray.init
def init(*words, **more):
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
    return began(*words, **more)
ray.init = init
import driver
sys.exit(driver.main(*sys.argv[1:]))
"""


def test_sigterm_while_ray_starts_ends_the_search_as_at_any_other_time(tmp_path):
    """Ray's own handler would exit with 15, without a note; the search goes on afterwards."""
    driver = Driver(tmp_path / "run", epoch_s=0)
    process = driver.start("-c", STARTING)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 143, output
    assert "interrupted" in Records(driver.folder).notes[-1].text


LISTENING = """
import json, os, sys
from pathlib import Path
from hsf_tune.search import run

began = run._run
def measured(*words):
    import ray, psutil
    me = psutil.Process()
    found = [c.laddr.ip for p in (me, *me.children(recursive=True))
             for c in p.net_connections("inet") if c.status == "LISTEN"]
    Path(sys.argv[1], "listening.json").write_text(json.dumps(found))
    return began(*words)
run._run = measured
import driver
sys.exit(driver.main(*sys.argv[1:]))
"""


def test_nobody_outside_this_machine_can_reach_ray(tmp_path):
    """All sockets of the search and of Ray's processes that listen are the loopback's."""
    driver = Driver(tmp_path / "run", epoch_s=0)
    process = driver.start("-c", LISTENING)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    addresses = json.loads((driver.folder / "listening.json").read_text())
    assert len(addresses) >= 4
    assert {a.removeprefix("::ffff:") for a in addresses} == {"127.0.0.1"}
