"""`python -m benchmarks.record_grid` as a user runs it, stopped in the middle: real processes, real Ray."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import yaml

from benchmarks.replay.table import load_table
from hsf_tune.records import Records, TrialEnded, read_events

ROOT = Path(__file__).parents[2]
SPACE = """# One arm whose rate is searched.
lightning.max_epochs: 2
arms:
  decoder:
    finetuning.mode: decoder
    finetuning.depth: 1
    finetuning.unfreeze_frequency: 1
    models.lr: {log: [1.0e-3, 1.0e-1]}
"""
RECORD = ("--space", "./space.yaml", "--folds", "2", "--rates", "1e-3,1e-2,1e-1")


@pytest.fixture
def start(tmp_path, plain_config):
    """Starts a command of the bench in a folder with a dataset file and a space."""
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(plain_config["datasets"]))
    (tmp_path / "space.yaml").write_text(SPACE)
    data = [
        "datasets=study.yaml",
        f"models.checkpoint={plain_config['models']['checkpoint']}",
        "finetuning.out_channels=3",
        "models.use_forgiving_loss=False",
        "lightning.accelerator=cpu",
    ]
    env = {
        **os.environ, "PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "disabled",
        "HSF_TUNE_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1",
    }  # fmt: skip

    def run(command, *words):
        own = data if command == "record_grid" else []
        return subprocess.Popen(
            [sys.executable, "-m", f"benchmarks.{command}", *words, *own],
            cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    return run


def wait_for_an_end(records, process):
    """Until a first training has ended; fails with what was printed if that never comes."""
    for _ in range(2000):
        if any(isinstance(event, TrialEnded) for event in read_events(records)):
            return
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.1)
    raise AssertionError(process.communicate())


@pytest.mark.slow
def test_recording_goes_on_where_it_was_stopped(start, tmp_path):
    """After Ctrl-C the same command trains what is missing, and the table can be replayed."""
    folder = tmp_path / "outputs" / "grid-space"
    first = start("record_grid", *RECORD)
    wait_for_an_end(folder / "trials.jsonl", first)
    first.send_signal(signal.SIGINT)
    assert first.wait(200) == 130, first.stdout.read()
    done = {r.id for r in Records(folder).trials.values() if r.ended is not None}
    assert done

    again = start("record_grid", *RECORD)
    shown, _ = again.communicate(timeout=250)
    assert again.returncode == 0, shown
    events = [e for e in read_events(folder / "trials.jsonl") if isinstance(e, TrialEnded)]
    assert set(Counter(event.trial for event in events).values()) == {1}
    table = load_table(folder / "table.json")
    assert len(table.trainings) == 6
    assert table.missing() == []
    assert all(len(training.curve) == 2 for training in table.trainings.values())
    assert list((folder / "checkpoints").iterdir()) == []

    words = ("outputs/grid-space/table.json", "--races", "2/1", "--searches", "2")
    replay = start("replay", *words)
    shown, _ = replay.communicate(timeout=200)
    assert replay.returncode == 0, shown
    assert "| 2/1 | tpe | none | 3 | 6 |" in shown


@pytest.mark.slow
def test_other_recording_of_that_name_is_refused(start, tmp_path):
    """What was recorded with other rates is not mixed in."""
    folder = tmp_path / "outputs" / "grid-space"
    folder.mkdir(parents=True)
    (folder / "space.yaml").write_text("name: another\n")
    process = start("record_grid", *RECORD)
    shown, _ = process.communicate(timeout=200)
    assert process.returncode == 1
    assert "differs from what is to be recorded now" in " ".join(shown.split())
