"""`tune.py` as a user runs it: real processes, real Ray, a real MLflow store, real NIfTI."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from hsf_tune.cli.commands import run as run_command
from hsf_tune.records import Records

ROOT = Path(__file__).parents[2]
SPACE = """# Two arms, two epochs.
lightning.max_epochs: 2
arms:
  encoder:
    finetuning.mode: encoder
    finetuning.depth: 1
    finetuning.unfreeze_frequency: 1
    models.lr: {log: [1.0e-3, 1.0e-1]}
  head:
    finetuning.depth: 0
    models.lr: {log: [1.0e-3, 1.0e-1]}
"""


def command(script, *words, cwd, cache):
    env = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "RAY_AUTH_MODE": "disabled",
        "HSF_TUNE_CACHE": str(cache),
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.run(
        [sys.executable, str(ROOT / script), *map(str, words)],
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        timeout=280,
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory, plain_config):
    """A folder with a dataset file and a space, as a user would have."""
    folder = tmp_path_factory.mktemp("user")
    datasets = plain_config["datasets"]
    (folder / "study.yaml").write_text(yaml.safe_dump(datasets))
    (folder / "space.yaml").write_text(SPACE)
    return folder


@pytest.fixture(scope="module")
def searched(place, study_words):
    """A finished search of two arms with two strategies each, and what it printed."""
    done = command(
        "tune.py",
        "--space",
        "space.yaml",
        "--name",
        "first",
        "--strategies-per-arm",
        "2",
        "--no-confirm",
        "search.folds=2",
        "search.keep=[1]",
        "search.n_startup_trials=1",
        *study_words,
        cwd=place,
        cache=place / "cache",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return place / "outputs" / "first", done.stdout


def test_the_first_line_names_the_base_model(searched):
    assert searched[1].splitlines()[0].startswith("Base model: ")


def test_a_search_leaves_all_its_files(searched):
    folder, _ = searched
    names = {path.name for path in folder.iterdir()}
    assert {
        "config.yaml", "space.yaml", "dataset.json", "trials.jsonl", "scores.csv", "trials.csv",
        "optuna.db", "checkpoints", "report.html", "report.json", "best_strategy.yaml",
    } <= names  # fmt: skip


def test_the_disk_it_takes_is_said_before_and_kept_to_the_finalists_after(searched):
    """Of two strategies an arm, the one that went on to the second fold keeps its weights."""
    folder, text = searched
    assert "Disk: at most" in text
    with_weights = {p.parent.name for p in folder.glob("checkpoints/*/*.safetensors")}
    second_fold = {t: r for t, r in Records(folder).trials.items() if r.started.fold == 2}
    assert len(second_fold) == 2
    finalists = {trial[:-1] for trial in second_fold}
    assert {trial[:-1] for trial in with_weights if "default" not in trial} == finalists


def test_every_planned_trial_is_recorded_once_and_finished(searched):
    folder, _ = searched
    explored = [r for r in Records(folder).trials.values() if r.started.phase == "explore"]
    by_arm = {
        a: [r.started.fold for r in explored if r.started.arm == a] for a in ("encoder", "head")
    }
    assert {arm: sorted(folds) for arm, folds in by_arm.items()} == {
        "encoder": [1, 1, 2],
        "head": [1, 1, 2],
    }
    assert all(r.finished and len(r.epochs) == r.started.max_epochs for r in explored)


def test_no_subject_trains_and_validates(searched):
    for record in Records(searched[0]).trials.values():
        assert not set(record.started.train) & set(record.started.validate)


def test_the_verdict_of_an_exploration_is_not_confirmed(searched):
    report = json.loads((searched[0] / "report.json").read_text())
    assert report["verdict"]["status"] == "not_confirmed"
    assert set(report["arms"]) == {"encoder", "head"}


def test_mlflow_holds_a_parent_and_a_child_for_each_trial(searched, place):
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{place}/mlflow.db")
    experiment = client.get_experiment_by_name("hsf_tune")
    runs = client.search_runs([experiment.experiment_id])
    children = [r for r in runs if "mlflow.parentRunId" in r.data.tags]
    records = Records(searched[0]).trials
    assert len(runs) == len(children) + 1
    assert len(children) == len(records)
    assert {r.info.status for r in runs} == {"FINISHED"}
    child = next(r for r in children if r.data.params.get("mode") == "encoder")
    assert {"mode", "depth", "unfreeze_frequency", "lr", "arm"} <= set(child.data.params)
    history = client.get_metric_history(child.info.run_id, "val_dice")
    assert [point.step for point in history] == [0, 1]


REPORTING = """
import os, signal, sys
from hsf_tune.cli import search
from hsf_tune.cli.commands import run
written = search.write_report
def stopped(folder):
    os.kill(os.getpid(), signal.SIGTERM)
    return written(folder)
search.write_report = stopped
run("tune")
"""


def test_sigterm_while_the_report_is_written_lets_it_be_written(searched, place):
    """Exit code 143 and a sentence, so that a scheduler's script knows of it."""
    folder, _ = searched
    (folder / "report.html").unlink()
    (place / "reporting.py").write_text(REPORTING)
    words = (place / "reporting.py", "--resume", "first")
    done = command(*words, cwd=place, cache=place / "cache")
    assert done.returncode == 143, done.stdout + done.stderr
    assert (folder / "report.html").exists()
    assert "Stopped when all trials had ended" in done.stdout


def test_finetune_repeats_the_winner_to_a_millionth(searched, place):
    folder, _ = searched
    saved = yaml.safe_load((folder / "best_strategy.yaml").read_text())
    strategy = f"strategy={folder}/best_strategy.yaml"
    done = command("finetune.py", strategy, "--name", "again", cwd=place, cache=place / "cache")
    assert done.returncode == 0, done.stdout + done.stderr
    (record,) = Records(place / "outputs" / "again").trials.values()
    assert record.ended.dice == pytest.approx(saved["explored_dice"], abs=1e-6)
    assert record.started.validate == saved["split"]["validate"]


def test_going_on_with_a_finished_search_runs_nothing_again(searched, place):
    folder, _ = searched
    before = {t: len(r.epochs) for t, r in Records(folder).trials.items()}
    done = command("tune.py", "--resume", "first", cwd=place, cache=place / "cache")
    assert done.returncode == 0, done.stdout + done.stderr
    text = (folder / "trials.jsonl").read_text()
    assert text.count('"trial_started"') == len(before)


def test_a_name_that_is_taken_is_refused_and_left_alone(searched, place, study_words):
    folder, _ = searched
    before = (folder / "trials.jsonl").read_bytes()
    done = command(
        "tune.py",
        "--space",
        "space.yaml",
        "--name",
        "first",
        *study_words,
        cwd=place,
        cache=place / "cache",
    )
    assert done.returncode == 1
    assert "--resume first" in done.stderr
    assert (folder / "trials.jsonl").read_bytes() == before


def test_a_dry_run_shows_the_plan_and_writes_nothing(place, study_words):
    done = command(
        "tune.py",
        "--space",
        "space.yaml",
        "--dry-run",
        "--name",
        "dry",
        "models.f_maps=48",
        *study_words,
        cwd=place,
        cache=place / "cache",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for word in ("Configuration", "Cases", "Splits", "Arms", "encoder", "trials", "epochs in all"):
        assert word in done.stdout
    assert "models.f_maps=48 has no effect" in done.stdout, "the base's architecture stays"
    assert not (place / "outputs" / "dry").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--space", "defalt"], "Did you mean 'default'"),
        (["--space", "space.yaml", "modls.lr=1"], "Did you mean 'models'"),
        (["--space", "space.yaml", "--time-budget", "soon"], "expected a time such as 2h"),
        (["--resume", "nothing"], "holds no run"),
        (["--space", "space.yaml", "datasets.train_on_all=True"], "train_on_all"),
        (["--space", "space.yaml", "finetuning.out_channels=6"], "finetuning.out_channels=3"),
    ],
)
def test_a_mistake_gets_one_clear_error_and_exit_code_1(
    place, study_words, given, message, monkeypatch, capsys
):
    monkeypatch.chdir(place)
    monkeypatch.setenv("HSF_TUNE_CACHE", str(place / "cache"))
    with pytest.raises(SystemExit) as end:
        run_command("tune", [*study_words, *given])
    assert end.value.code == 1
    error = " ".join(capsys.readouterr().err.split())
    assert message in error
    assert "Error: " in error
    assert "Traceback" not in error
