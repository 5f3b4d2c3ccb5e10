"""`finetune.py` as a user runs it, the documented call above all."""

import csv
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml

from hsf_tune.cli.commands import run as run_command
from hsf_tune.export.weights import single_spec
from hsf_tune.finetuning.finished import open_run
from hsf_tune.model.arunet import Architecture, ARUNet
from hsf_tune.model.weights import save
from hsf_tune.records import Records

# a store marks its folder as in use for as long as the process lives
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
ROOT = Path(__file__).parents[2]
DOCUMENTED = [
    "datasets=custom_dataset",
    "finetuning.out_channels=8",
    "models.lr=1e-3",
    "models.use_forgiving_loss=False",
]


def finetune(*words, cwd):
    return subprocess.run(
        [sys.executable, str(ROOT / "finetune.py"), *map(str, words)],
        cwd=cwd,
        env={
            "PYTHONPATH": str(ROOT),
            "HSF_TUNE_CACHE": str(cwd / "cache"),
            "PATH": "/usr/bin:/bin",
        },
        capture_output=True,
        text=True,
        timeout=280,
    )


@pytest.fixture(scope="module")
def published_layout(tmp_path_factory):
    """Subjects with 7 labels in the folders and names that conf/datasets/custom_dataset.yaml says."""
    folder = tmp_path_factory.mktemp("hsf")
    rng = np.random.default_rng(1)
    stem = "{}t2w_Hippocampus_{}_ElasticSyN_{}crop.nii.gz"
    for number in range(1, 4):
        subject = folder / "hippocampus_clark_3T" / f"sub-{number:02d}"
        subject.mkdir(parents=True)
        for side in ("left", "right"):
            labels = np.zeros((16, 24, 16), np.uint8)
            for label in range(1, 8):
                labels[4:12, 3 * label - 1 : 3 * label + 2, 4:12] = label
            image = labels + rng.normal(0, 0.2, labels.shape)
            for prefix in ("", "averaged_"):
                for array, middle in ((image + len(prefix) / 9, ""), (labels, "seg_")):
                    name = stem.format(prefix, side, middle)
                    kind = np.uint8 if middle else np.float32
                    noisy = array if middle else array + rng.normal(0, 0.01, array.shape)
                    nib.save(nib.Nifti1Image(noisy.astype(kind), np.eye(4)), subject / name)
    return folder


@pytest.fixture(scope="module")
def tiny_base(tmp_path_factory):
    path = tmp_path_factory.mktemp("base") / "tiny.safetensors"
    save(path, ARUNet(Architecture(f_maps=2)), {"name": "tiny"})
    return path


def test_the_documented_call_in_a_fresh_clone_names_the_one_missing_key(tmp_path):
    done = finetune(*DOCUMENTED, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: datasets.main_path is not set")
    assert len(done.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_the_documented_call_finetunes_once_main_path_is_given(
    published_layout, tiny_base, tmp_path
):
    done = finetune(
        *DOCUMENTED,
        f"datasets.main_path={published_layout}",
        f"models.checkpoint={tiny_base}",
        "lightning.max_epochs=2",
        "tracking.enabled=False",
        "--name",
        "mine",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[0].startswith("Base model: tiny")
    folder = tmp_path / "outputs" / "mine"
    (record,) = Records(folder).trials.values()
    assert record.finished
    assert record.started.strategy["models.lr"] == 0.001
    labels = {row["label"] for row in csv.DictReader((folder / "scores.csv").open())}
    assert labels == {"DG", "CA2/3", "CA1", "PRESUB", "UNCUS", "PARASUB", "KYST"}
    cases = json.loads((folder / "dataset.json").read_text())["cases"]
    assert len(cases) == 12
    assert (folder / "best_strategy.yaml").exists()


def test_a_depth_that_the_network_lacks_is_refused_before_anything_trains(
    published_layout, tiny_base, tmp_path
):
    done = finetune(
        *DOCUMENTED,
        f"datasets.main_path={published_layout}",
        f"models.checkpoint={tiny_base}",
        "finetuning.depth=5",
        cwd=tmp_path,
    )
    assert done.returncode == 1
    assert "finetuning.depth is 5" in done.stderr
    assert not (tmp_path / "outputs").exists()


LONG = [
    "datasets=custom_dataset",
    "finetuning.out_channels=8",
    "models.use_forgiving_loss=False",
    "tracking.enabled=False",
    "lightning.max_epochs=40",
    "finetuning.depth=0",
]


@pytest.fixture(scope="module")
def stopped(published_layout, tiny_base, tmp_path_factory):
    """A finetuning that got SIGTERM after its second epoch: its words, place and last words."""
    cwd = tmp_path_factory.mktemp("stopped")
    words = [*LONG, f"datasets.main_path={published_layout}", f"models.checkpoint={tiny_base}"]
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "finetune.py"), *words, "--name", "mine", "--threads", "1"],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HSF_TUNE_CACHE": str(cwd / "cache")},
        stdout=subprocess.PIPE,
        text=True,
    )
    folder = cwd / "outputs" / "mine"
    until = time.monotonic() + 200
    while time.monotonic() < until and process.poll() is None:
        trials = Records(folder).trials
        if trials and len(trials["finetune-1"].epochs) >= 2:
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    text, _ = process.communicate(timeout=100)
    return words, cwd, process.returncode, text


def test_a_stop_leaves_the_last_epoch_and_says_how_to_go_on(stopped):
    _, cwd, code, text = stopped
    assert code == 143
    said = text.partition("of 40. Go on with: ")[2]
    python, script, *_ = shlex.split(said)
    assert shutil.which(python)
    assert cwd / script == ROOT / "finetune.py"
    assert text.rstrip().endswith("--name mine --threads 1")
    assert (cwd / "outputs/mine/checkpoints/finetune-1/last.ckpt").exists()


@pytest.fixture
def again(stopped, tmp_path, monkeypatch, capsys):
    """Call the command in a copy of where it was stopped; exit code, output, the run's folder."""
    words, cwd, *_ = stopped
    shutil.copytree(cwd, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    monkeypatch.setenv("HSF_TUNE_CACHE", str(tmp_path / "copy" / "cache"))

    def run(*more):
        with pytest.raises(SystemExit) as end:
            run_command("finetune", [*words, "--name", "mine", "--threads", "1", *more])
        out, err = capsys.readouterr()
        return end.value.code, out + err, tmp_path / "copy" / "outputs" / "mine"

    return run


def test_the_same_call_goes_on_to_the_end_without_repeating_an_epoch(again):
    code, text, folder = again()
    assert code == 0, text
    assert "Going on after epoch " in text
    (record,) = Records(folder).trials.values()
    assert record.finished
    assert sorted(record.epochs) == list(range(40))
    lines = (folder / "trials.jsonl").read_text().splitlines()
    told = [json.loads(line)["epoch"] for line in lines if '"epoch_ended"' in line]
    assert len(told) <= 41, "at most the last saved epoch is told again"
    code, text, _ = again()
    assert code == 1
    assert "holds a finished run already" in text


def test_another_setting_under_the_same_name_is_refused_and_nothing_is_changed(again):
    before = None
    for words in (["models.lr=0.5"], ["lightning.max_epochs=50"]):
        code, text, folder = again(*words)
        files = {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}
        assert code == 1
        key, value = words[0].split("=")
        assert f"{key} was " in text
        assert f" and is {value} now" in text
        assert before in (None, files)
        before = files


def test_an_override_wins_over_the_strategy_file(published_layout, tiny_base, tmp_path):
    """strategy=FILE brings a rate of .02; models.lr on the command line is what trains."""
    common = [
        *DOCUMENTED[:2],
        "models.use_forgiving_loss=False",
        f"datasets.main_path={published_layout}",
        f"models.checkpoint={tiny_base}",
        "lightning.max_epochs=1",
        "tracking.enabled=False",
        "finetuning.depth=0",
    ]
    first = finetune(*common, "models.lr=0.02", "--name", "a", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    saved = "strategy=outputs/a/best_strategy.yaml"
    words = [saved, "models.lr=0.005", "tracking.enabled=False", "--name", "b"]
    again = finetune(*words, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    (record,) = Records(tmp_path / "outputs" / "b").trials.values()
    assert record.started.strategy["models.lr"] == 0.005
    assert record.started.strategy["finetuning.depth"] == 0


def test_the_users_own_test_part_stays_out_of_the_exported_network(
    dataset_folder, plain_config, study_words, tmp_path, monkeypatch
):
    """So does who is in no part: an export trains on the subjects that the run used."""
    monkeypatch.setenv("HSF_TUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    parts = [["sub-01"], ["sub-02"], ["sub-03"]]
    (tmp_path / "study.yaml").write_text(
        yaml.safe_dump({**plain_config["datasets"], "train_val_test_subjects": parts})
    )
    with pytest.raises(SystemExit) as end:
        run_command(
            "finetune",
            [
                *study_words,
                "tracking.enabled=False",
                "finetuning.depth=0",
                "lightning.max_epochs=1",
                *("--name", "mine", "--threads", "1"),
            ],
        )
    assert end.value.code == 0
    run = open_run(tmp_path / "outputs" / "mine")
    assert run.test_subjects == ("balls/sub-03",)
    assert single_spec(run, run.saved, run.config).split.train == ("balls/sub-01", "balls/sub-02")
