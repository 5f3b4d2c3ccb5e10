"""`scripts/slurm.sbatch` in a sandbox: SLURM's commands are stand-ins, its signals are real.

`srun` runs what it is given on this machine. Where Ray and the search don't matter they are
stand-ins too; the slow test has real Ray nodes.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from hsf_tune.records import Records

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "slurm.sbatch"
SRUN = r"""#!/bin/bash
line="$*"
echo "${line//$'\n'/ }" >> "$CALLS/srun"
while [[ $1 == -* ]]; do shift; done
export SLURM_CPUS_ON_NODE=1
exec "$@"
"""
SCONTROL = r"""#!/bin/bash
echo "$*" >> "$CALLS/scontrol"
[[ $1 == show ]] && tr ',' '\n' <<< "$3"
[[ $1 != requeue || -z ${NO_REQUEUE:-} ]]
"""
RAY = r"""#!/bin/bash
[[ $1 == health-check ]] && exit 0
echo "$*" >> "$CALLS/ray"
trap 'echo ended >> "$CALLS/ray-ended"; exit 0' TERM
while :; do sleep 0.1; done
"""
PYTHON = r"""#!/bin/bash
[[ $1 == -c ]] && exec "$REAL_PYTHON" "$@"
if [[ $1 == - ]]; then  # wait for as many nodes as are wanted
    [[ -z ${NO_CLUSTER:-} ]] || exit 1
    until [[ $(cat "$CALLS/ray" 2>/dev/null | wc -l) -ge $3 ]]; do sleep 0.1; done
    exit 0
fi
echo "$*" > "$CALLS/tune"
trap 'sleep 0.3; exit ${ON_TERM:-143}' TERM
[[ -n ${AT_ONCE:-} ]] && exit "$AT_ONCE"
while :; do sleep 0.1; done
"""


@pytest.fixture
def job(tmp_path):
    """Start the script as a job of some nodes; further variables say how the stand-ins behave."""
    place, bin_folder, calls = (tmp_path / name for name in ("user", "bin", "calls"))
    for folder in (place, bin_folder, calls):
        folder.mkdir()
    (place / "tune.py").write_text("")
    for name, text in {"srun": SRUN, "scontrol": SCONTROL, "ray": RAY, "python": PYTHON}.items():
        (bin_folder / name).write_text(text)
        (bin_folder / name).chmod(0o755)
    started = []

    def start(*words, nodes="localhost", **variables):
        process = subprocess.Popen(
            ["bash", str(SCRIPT), *words],
            cwd=tmp_path,
            env={
                "PATH": f"{bin_folder}:/usr/bin:/bin",
                "CALLS": str(calls),
                "REAL_PYTHON": sys.executable,
                "SLURM_JOB_ID": "4711",
                "SLURM_JOB_NODELIST": nodes,
                "SLURM_SUBMIT_DIR": str(place),
                "SLURM_CPUS_PER_TASK": "1",
                **variables,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(process)
        return process

    start.place, start.bin, start.calls = place, bin_folder, calls
    yield start
    for process in started:
        if process.poll() is None:
            process.kill()


def called(job, command):
    path = job.calls / command
    return path.read_text().splitlines() if path.exists() else []


def wait_until(there):
    for _ in range(600):
        if there():
            return
        time.sleep(0.05)
    raise AssertionError("it did not come to it in 30 s")


def signalled(job, process, number):
    """Send a signal to a job whose search has begun; what it printed to its end."""
    wait_until(lambda: called(job, "tune"))
    process.send_signal(number)
    return process.communicate(timeout=60)[0]


def begin(job, name):
    """Make the folder of a run that was begun."""
    (job.place / name).mkdir(parents=True)
    (job.place / name / "trials.jsonl").write_text("{}\n")


def test_a_first_job_starts_the_search_on_its_own_ray_cluster(job):
    process = job("knee", "--space", "default", "models.lr=1e-3", AT_ONCE="0")
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 0, text
    (tune,) = called(job, "tune")
    assert tune.startswith("tune.py --space default models.lr=1e-3 --name knee --address ")
    (head,) = called(job, "ray")
    assert f"--port={tune.rsplit(':', 1)[1]}" in head
    assert "--head" in head
    assert "requeue" not in " ".join(called(job, "scontrol"))


@pytest.mark.parametrize(
    ("words", "folder"),
    [([], "outputs"), (["--output", "runs"], "runs"), (["--output=runs"], "runs")],
)
def test_a_run_that_was_begun_is_resumed(job, words, folder):
    begin(job, f"{folder}/knee")
    job("knee", *words, AT_ONCE="0").communicate(timeout=60)
    (tune,) = called(job, "tune")
    assert "--resume knee" in tune
    assert "--name" not in tune


def test_rays_folder_can_not_be_foreseen_and_is_gone_afterwards(job):
    """A folder that is named by the job's number could be made by anybody before."""
    process = job("knee", AT_ONCE="0")
    process.communicate(timeout=60)
    (head,) = called(job, "ray")
    folder = Path(re.search(r"--temp-dir=(\S+)", head)[1])
    assert folder.parent == Path("/tmp")
    assert "4711" not in folder.name
    assert not folder.exists()


def test_the_log_of_a_job_holds_no_password(job):
    """The command is in it, the password of its address is not."""
    process = job("knee", "tracking.uri=http://ann:s3cret@host", AT_ONCE="0")
    text, _ = process.communicate(timeout=60)
    assert "tracking.uri=http://host" in text
    assert "s3cret" not in text


def test_every_node_of_the_job_gets_a_ray_node_and_none_is_left_over(job):
    process = job("knee", nodes="localhost,node2,node3")
    wait_until(lambda: called(job, "tune") and len(called(job, "ray")) == 3)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    heads = [line for line in called(job, "ray") if "--head" in line]
    workers = [line for line in called(job, "ray") if "--address=" in line]
    assert (len(heads), len(workers)) == (1, 2)
    assert [
        line for line in called(job, "srun") if "--nodelist=node3" in line and "ray start" in line
    ]
    assert len(called(job, "ray-ended")) == 3


def test_when_time_is_nearly_up_the_search_stops_and_the_job_is_requeued(job):
    process = job("knee")
    text = signalled(job, process, signal.SIGUSR1)
    assert process.returncode == 0, text
    assert "requeue 4711" in called(job, "scontrol")
    assert called(job, "ray-ended"), "Ray is ended before the job is requeued"
    assert "back in the queue" in text


def test_a_search_that_ends_while_time_runs_out_is_not_requeued(job):
    process = job("knee", ON_TERM="0")
    text = signalled(job, process, signal.SIGUSR1)
    assert process.returncode == 0
    assert "requeue 4711" not in called(job, "scontrol")
    assert "outputs/knee/report.html" in text


def test_who_cancels_the_job_does_not_want_it_back(job):
    process = job("knee")
    text = signalled(job, process, signal.SIGTERM)
    assert process.returncode == 143
    assert "requeue 4711" not in called(job, "scontrol")
    assert "The same sbatch command goes on with it." in text


def test_an_error_of_the_search_is_not_tried_again(job):
    process = job("knee", AT_ONCE="1")
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "requeue 4711" not in called(job, "scontrol")
    assert "exit code 1" in text


def test_a_cluster_that_refuses_to_requeue_is_told_of(job):
    process = job("knee", NO_REQUEUE="1")
    text = signalled(job, process, signal.SIGUSR1)
    assert process.returncode == 143
    assert "refuses to requeue" in text


def test_without_a_ray_cluster_nothing_is_searched(job):
    process = job("knee", NO_CLUSTER="1")
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "did not start" in text
    assert not called(job, "tune")


@pytest.mark.parametrize(
    ("words", "message"), [([], "run's name first"), (["--space", "quick"], "run's name first")]
)
def test_a_call_without_a_name_says_how_to_submit(job, words, message):
    process = job(*words)
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert message in text


def test_the_script_is_sound(job):
    """Its syntax always; all that shellcheck knows where that is installed."""
    subprocess.run(["bash", "-n", str(SCRIPT)], check=True)
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    subprocess.run(["shellcheck", str(SCRIPT)], check=True)


TUNE = """
import json, signal, sys, time
import ray
address = sys.argv[sys.argv.index("--address") + 1]
ray.init(address, log_to_driver=False)

@ray.remote(num_cpus=1)
def here():
    time.sleep(1)
    return ray.get_runtime_context().get_node_id()

nodes = set(ray.get([here.remote() for _ in range(4)]))
print("trials ran on", len(nodes), "nodes", flush=True)
"""


@pytest.fixture
def real(job, tmp_path):
    """Variables with which Python and Ray are no stand-ins."""
    for name in ("python", "ray"):
        (job.bin / name).unlink()
    path = f"{job.bin}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {"PATH": path, "HOME": str(tmp_path), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


@pytest.mark.slow
def test_trials_run_on_all_nodes_of_a_real_ray_cluster(job, real, tmp_path):
    """Two Ray nodes with a token of their own; nothing of them is left when the job has ended."""
    (job.place / "tune.py").write_text(TUNE)
    process = job("knee", nodes="localhost,node2", **real)
    text, _ = process.communicate(timeout=280)
    assert process.returncode == 0, text + "".join(p.read_text() for p in job.place.glob("*.log"))
    assert "2 of 2 nodes" in text
    assert "trials ran on 2 nodes" in text
    assert not (tmp_path / ".ray").exists(), "no token is written to the user's folder"
    assert not Path("/tmp/hsf-4711").exists()


SPACE = """
lightning.max_epochs: 12
arms:
  head:
    finetuning.depth: 0
    models.lr: {log: [1.0e-3, 1.0e-1]}
"""


@pytest.mark.slow
def test_a_search_over_two_jobs_runs_each_trial_once(job, real, plain_config):
    """Time is up while trials run; the requeued job goes on with them and comes to the report."""
    (job.place / "tune.py").write_text((ROOT / "tune.py").read_text())
    (job.place / "study.yaml").write_text(yaml.safe_dump(plain_config["datasets"]))
    (job.place / "space.yaml").write_text(SPACE)
    words = [
        "knee", "--space", "space.yaml", "--strategies-per-arm", "2", "--no-confirm",
        "datasets=study.yaml", f"models.checkpoint={plain_config['models']['checkpoint']}",
        "finetuning.out_channels=3", "models.use_forgiving_loss=False", "lightning.accelerator=cpu",
        "search.folds=2", "search.keep=[1]", "search.n_startup_trials=1", "tracking.enabled=False",
    ]  # fmt: skip
    real["HSF_TUNE_CACHE"] = str(job.place / "cache")
    folder = job.place / "outputs" / "knee"
    first = job(*words, **real)
    for _ in range(2000):
        begun = [r for r in Records(folder).trials.values() if r.epochs]
        if begun or first.poll() is not None:
            break
        time.sleep(0.05)
    first.send_signal(signal.SIGUSR1)
    text, _ = first.communicate(timeout=280)
    assert first.returncode == 0, text
    assert called(job, "scontrol")[-1] == "requeue 4711"
    assert not all(r.finished for r in Records(folder).trials.values())

    second = job(*words, **real)
    text, _ = second.communicate(timeout=280)
    assert second.returncode == 0, text
    assert "--resume knee" in text
    trials = Records(folder).trials
    assert len(trials) >= 3
    assert all(r.finished for r in trials.values())
    assert all(sorted(r.epochs) == list(range(r.started.max_epochs)) for r in trials.values())
    assert (folder / "report.html").exists()
