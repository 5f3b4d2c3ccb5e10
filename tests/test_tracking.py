"""What reaches MLflow, in real stores and through real servers that die and come back."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from hsf_tune.cli.commands import run as run_command
from hsf_tune.config import TrackingConfig
from hsf_tune.errors import TrackingError
from hsf_tune.installed import typed
from hsf_tune.records import EpochEnded, Note, Records, Score, TrialEnded, TrialStarted
from hsf_tune.tracking import MlflowTracker, address_for, sync_folder
from hsf_tune.tracking.translation import metric_name, params_of

URI = "sqlite:///mlflow.db"
PROJECT = Path(__file__).resolve().parent.parent
DATASET = {
    "path": "d", "ca_type": "1/2/3", "labels": {1: 1}, "labels_names": {1: "CA1"},
    "patterns": {"t2": {"mri": "*.nii.gz", "label": "seg.nii.gz"}},
}  # fmt: skip
OF_SOMEONE = {
    "datasets": {"main_path": ".", "datasets": {"d": DATASET}},
    "tracking": {"uri": "http://elsewhere:5000"},
}


@pytest.fixture(scope="session")
def database(tmp_path_factory):
    """An empty MLflow database; creating one takes seconds, copying it none."""
    folder = tmp_path_factory.mktemp("database")
    from mlflow.tracking import MlflowClient

    MlflowClient(tracking_uri=f"sqlite:///{folder}/mlflow.db").search_experiments(max_results=1)
    return folder / "mlflow.db"


@pytest.fixture
def project(tmp_path, monkeypatch, database):
    """A working directory with an empty `mlflow.db`, as a user's after a first run."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(database, tmp_path / "mlflow.db")
    return tmp_path


class Run:
    """A run folder whose events go to the records first, to the tracker then."""

    def __init__(self, folder, uri=URI, nested=True, required=True):
        self.folder, self.said = folder, []
        self.config = TrackingConfig(uri=uri, required=required)
        self.records = Records(folder)
        self.tracker = MlflowTracker(self.config, folder, nested=nested, say=self.said.append)

    def __call__(self, *events):
        for event in events:
            self.records.append(event)
            self.tracker(event)


def started(trial="explore-encoder-000-f1", phase="explore", **changes):
    given = {
        "trial": trial, "phase": phase, "arm": "encoder", "fold": 1, "seed": 42, "max_epochs": 4, "steps": 80,
        "strategy": {"finetuning.mode": "encoder", "finetuning.depth": 2,
                     "finetuning.unfreeze_frequency": 1, "models.lr": 1e-3},
        "train": ["d/1"], "validate": ["d/2"], "parameters_trained": 1234,
    }  # fmt: skip
    return TrialStarted(**{**given, **changes})


def epoch(number, trial="explore-encoder-000-f1", **changes):
    dice = 0.5 + number / 10
    metrics = {
        "train_loss": 1 - dice, "val_loss": 1.1 - dice, "val_dice": dice, "val_dice/CA2/3": dice,
        "lr/encoders.0": 1e-3, "open_blocks": min(2, number), "epoch_seconds": 0.5,
    }  # fmt: skip
    return EpochEnded(trial, number, {**metrics, **changes})


def ended(trial="explore-encoder-000-f1", status="finished", **changes):
    given = {"dice": 0.8, "best_dice": 0.8, "best_epoch": 3, "epochs": 4, "seconds": 2.0}
    return TrialEnded(trial, status, **{**given, **changes})


def whole_trial(trial="explore-encoder-000-f1", n_epochs=4, **changes):
    return [started(trial), *(epoch(e, trial) for e in range(n_epochs)), ended(trial, **changes)]


def client(uri=URI):
    """MLflow's own client; it would keep the first folder that a relative path meant."""
    from mlflow.tracking import MlflowClient

    here = f"sqlite:///{Path.cwd()}/mlflow.db"
    return MlflowClient(tracking_uri=here if uri == URI else uri)


def found_runs(uri=URI, experiment="hsf_tune"):
    """trial id -> run; the parent under '' (a trial with two runs fails here)."""
    mlflow = client(uri)
    experiment_id = mlflow.get_experiment_by_name(experiment).experiment_id
    runs = mlflow.search_runs([experiment_id], max_results=1000)
    keyed = {run.data.tags.get("hsf_tune.trial", ""): run for run in runs}
    assert len(keyed) == len(runs), "two runs of one trial"
    return keyed


def history(run, metric, uri=URI):
    points = client(uri).get_metric_history(run.info.run_id, metric)
    return sorted((p.step, p.value) for p in points)


def artifacts(run, folder="", uri=URI):
    return sorted(f.path for f in client(uri).list_artifacts(run.info.run_id, folder))


class TestOneSearch:
    def test_a_trial_becomes_a_child_run_with_its_curve(self, project):
        """Parameters by short names, tags, a point an epoch, final and best values."""
        run = Run(project / "outputs" / "one")
        run(*whole_trial())
        assert run.tracker.close() == 0
        runs = found_runs()
        child, parent = runs["explore-encoder-000-f1"], runs[""]
        assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert parent.info.run_name == "one"
        assert child.data.params == {
            "mode": "encoder", "depth": "2", "unfreeze_frequency": "1", "lr": "0.001",
            "arm": "encoder", "max_epochs": "4", "steps": "80",
        }  # fmt: skip
        assert {k: child.data.tags[k] for k in ("phase", "fold", "seed")} == {
            "phase": "explore", "fold": "1", "seed": "42",
        }  # fmt: skip
        assert history(child, "val_dice") == [(0, 0.5), (1, 0.6), (2, 0.7), (3, 0.8)]
        assert [step for step, _ in history(child, "lr/encoders.0")] == [0, 1, 2, 3]
        assert [step for step, _ in history(child, "val_dice/CA2/3")] == [0, 1, 2, 3]
        values = child.data.metrics
        assert values["final_val_dice"] == values["best_val_dice"] == 0.8
        assert values["final_train_loss"] == pytest.approx(0.2)
        assert values["best_epoch"] == 3
        assert "final_lr/encoders.0" not in values
        assert (child.info.status, parent.info.status) == ("FINISHED", "FINISHED")
        assert run.said == []

    @pytest.mark.parametrize(
        ("status", "expected"),
        [("finished", "FINISHED"), ("pruned", "KILLED"), ("failed", "FAILED")],
    )
    def test_the_end_of_a_trial_is_the_status_of_its_run(self, project, status, expected):
        """The reason is a tag, the traceback a file."""
        run = Run(project / "outputs" / "one")
        run(*whole_trial(status=status, reason="the loss is nan", traceback="Traceback ..."))
        run.tracker.close()
        child = found_runs()["explore-encoder-000-f1"]
        assert child.info.status == expected
        assert child.data.tags["reason"] == "the loss is nan"
        assert "traceback.txt" in artifacts(child)

    def test_checkpoint_and_figures_are_attached(self, project):
        """Best checkpoint and figures to the trial, configuration and report to the parent."""
        folder = project / "outputs" / "one"
        files = ["checkpoints/t/best.ckpt", "checkpoints/t/curve.png", "config.yaml"]
        for file in files:
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_text(file)
        run = Run(folder)
        run.tracker.log_artifacts([folder / "config.yaml"], {"explored_dice/encoder": 0.8})
        run(*whole_trial(best_checkpoint=files[0], figures=[files[1], "checkpoints/t/gone.png"]))
        assert run.tracker.close() == 0
        runs = found_runs()
        child = runs["explore-encoder-000-f1"]
        assert artifacts(child, "checkpoints") == ["checkpoints/best.ckpt"]
        assert artifacts(child, "figures") == ["figures/curve.png"]
        assert artifacts(runs[""]) == ["config.yaml"]
        assert runs[""].data.metrics == {"explored_dice/encoder": 0.8}
        assert run.said == ["1 files were no longer there to be sent to MLflow."]

    def test_the_unchanged_base_gets_its_results_without_an_epoch(self, project):
        """A trial of 0 epochs has its scores as final values."""
        run = Run(project / "outputs" / "one")
        scores = [
            Score("d/2", "left", "CA1", "dice", 0.4), Score("d/2", "left", "DG", "dice", 0.6),
            Score("d/2", "left", "DG", "hd95_mm", 2.0),
            Score("d/2", "left", "SUB", "dice", math.nan),
        ]  # fmt: skip
        base = ended("base-f1", dice=0.5, best_dice=None, best_epoch=None, epochs=0, scores=scores)
        run(started("base-f1", "base", strategy={}, arm="base", max_epochs=0), base)
        run.tracker.close()
        child = found_runs()["base-f1"]
        assert child.data.metrics["final_val_dice"] == 0.5
        assert child.data.metrics["final_val_dice/DG"] == 0.6
        assert child.data.metrics["final_val_hd95_mm"] == 2.0
        assert "final_val_dice/SUB" not in child.data.metrics

    def test_a_finetuning_is_one_run_without_a_parent(self, project):
        """Its run carries the files of the folder too."""
        folder = project / "outputs" / "fine"
        run = Run(folder, nested=False)
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text("seed: 1")
        run.tracker.log_artifacts([folder / "config.yaml"])
        run(Note(), started("finetune", "finetune"), epoch(0, "finetune"), ended("finetune"))
        assert run.tracker.close() == 0
        runs = found_runs()
        assert list(runs) == ["finetune"]
        assert runs["finetune"].info.run_name == "fine"
        assert "mlflow.parentRunId" not in runs["finetune"].data.tags
        assert artifacts(runs["finetune"]) == ["config.yaml"]

    def test_two_searches_of_one_name_stay_apart(self, project):
        """A folder deleted and searched again is another parent run."""
        for _ in range(2):
            run = Run(project / "outputs" / "one")
            run(*whole_trial())
            run.tracker.close()
            shutil.rmtree(run.folder)
            time.sleep(0.01)
        mlflow = client()
        experiment = mlflow.get_experiment_by_name("hsf_tune").experiment_id
        assert len(mlflow.search_runs([experiment])) == 4

    def test_an_event_costs_the_caller_less_than_a_millisecond(self, project):
        """Also while the store is written: the mean over 200 epochs."""
        run = Run(project / "outputs" / "one")
        events = [started(max_epochs=200), *(epoch(e) for e in range(200))]
        run.records.extend(events)
        spent = 0.0
        for event in events:
            begin = time.perf_counter()
            run.tracker(event)
            spent += time.perf_counter() - begin
            time.sleep(0.002)
        run.tracker.close()
        assert spent / len(events) < 1e-3
        assert len(history(found_runs()["explore-encoder-000-f1"], "val_dice")) == 200

    def test_a_trial_that_mlflow_refuses_does_not_hold_up_the_others(self, project):
        """A parameter's name that MLflow can't take is said; the next trial arrives."""
        run = Run(project / "outputs" / "one")
        run(started("bad", strategy={"models." + "x" * 300: 1}), epoch(0, "bad"))
        run(*whole_trial("good"))
        assert run.tracker.close() == 1
        assert found_runs()["good"].info.status == "FINISHED"
        assert run.said[0].startswith("MLflow refuses trial bad")


class TestRecords:
    def test_syncing_a_folder_twice_gives_the_same_as_once(self, project):
        """Runs, points and statuses from `trials.jsonl` alone; nothing is doubled."""
        records = Records(project / "outputs" / "one")
        records.extend(whole_trial("a"))
        records.extend(whole_trial("b", status="pruned"))
        (records.folder / "config.yaml").write_text("seed: 1")
        config = TrackingConfig(uri=URI)
        seen = []
        for _ in range(2):
            assert sync_folder(records.folder, config, say=print) == 0
            runs = found_runs()
            points = {t: history(runs[t], "val_dice") for t in ("a", "b")}
            seen.append((sorted(runs), points, {t: r.info.status for t, r in runs.items()}))
        assert seen[0] == seen[1]
        assert seen[0][0] == ["", "a", "b"]
        assert seen[0][1]["b"] == [(0, 0.5), (1, 0.6), (2, 0.7), (3, 0.8)]
        assert seen[0][2] == {"": "FINISHED", "a": "FINISHED", "b": "KILLED"}
        assert artifacts(runs[""]) == ["config.yaml", "trials.jsonl"][:1]

    def test_rebuilding_gives_what_following_gave(self, project):
        """The live view and the view of the records hold the same points and values."""
        live = Run(project / "outputs" / "one")
        live(*whole_trial())
        live.tracker.close()
        sync_folder(live.folder, TrackingConfig(uri=URI, experiment="again"), say=print)
        views = [found_runs(experiment=e)["explore-encoder-000-f1"] for e in ("hsf_tune", "again")]
        assert views[0].data.metrics == views[1].data.metrics
        assert views[0].data.params == views[1].data.params
        assert history(views[0], "val_dice") == history(views[1], "val_dice")

    def test_a_resumed_trial_is_one_run_with_contiguous_steps(self, project):
        """Interrupted after epoch 1 (KILLED), gone on in a new process, finished once."""
        first = Run(project / "outputs" / "one")
        first(started(), epoch(0), epoch(1))
        first.tracker.close(status="interrupted")
        assert {r.info.status for r in found_runs().values()} == {"KILLED"}

        second = Run(project / "outputs" / "one")
        second.tracker.sync(second.records)
        second(started(), epoch(1), epoch(2), epoch(3), ended())
        second.tracker.close()
        runs = found_runs()
        assert history(runs["explore-encoder-000-f1"], "val_dice") == [
            (0, 0.5), (1, 0.6), (2, 0.7), (3, 0.8),
        ]  # fmt: skip
        assert {r.info.status for r in runs.values()} == {"FINISHED"}
        assert not runs["explore-encoder-000-f1"].data.tags["reason"]

    def test_what_a_killed_process_had_not_sent_is_sent_at_the_resume(self, project):
        """Epochs that are in the records alone reach MLflow through sync."""
        first = Run(project / "outputs" / "one")
        first(started(), epoch(0))
        first.tracker.close(status="interrupted")
        Records(first.folder).extend([epoch(1), epoch(2), *whole_trial("other")])

        second = Run(project / "outputs" / "one")
        second.tracker.sync(second.records)
        second.tracker.close(status="interrupted")
        runs = found_runs()
        assert [step for step, _ in history(runs["explore-encoder-000-f1"], "val_loss")] == [
            0,
            1,
            2,
        ]
        assert runs["other"].info.status == "FINISHED"
        assert runs["explore-encoder-000-f1"].info.status == "KILLED"

    def test_a_run_left_twice_by_a_lost_answer_is_mended(self, project):
        """Of two runs with one trial's tag the older one stays."""
        run = Run(project / "outputs" / "one")
        run(started(), epoch(0))
        run.tracker.close()
        kept = found_runs()["explore-encoder-000-f1"]
        twin = client().create_run(kept.info.experiment_id, tags=dict(kept.data.tags))
        sync_folder(run.folder, run.config, say=print)
        assert found_runs()["explore-encoder-000-f1"].info.run_id == kept.info.run_id
        assert client().get_run(twin.info.run_id).info.lifecycle_stage == "deleted"

    def test_a_folder_without_trials_is_refused(self, project):
        """The message names the file and what to give."""
        with pytest.raises(TrackingError, match=r"holds no trial.*outputs/NAME"):
            sync_folder(project / "nothing", TrackingConfig(uri=URI))

    @pytest.mark.slow
    def test_the_script_rebuilds_a_new_database(self, project):
        """`python scripts/sync_mlflow.py outputs/NAME` in a folder that has no database yet."""
        (project / "mlflow.db").unlink()
        Records(project / "outputs" / "one").extend(whole_trial())
        script = [sys.executable, PROJECT / "scripts" / "sync_mlflow.py", "outputs/one"]
        env = {**os.environ, "PYTHONPATH": str(PROJECT)}
        out = subprocess.run(script, capture_output=True, text=True, check=True, env=env)
        assert out.stdout == f"All of outputs/one is in MLflow at {URI}.\n"
        assert out.stderr == ""
        assert found_runs()["explore-encoder-000-f1"].info.status == "FINISHED"


class TestAway:
    def test_a_search_that_requires_mlflow_refuses_to_start_without(self, project):
        """Within seconds, with the address and both ways out."""
        run = Run(project / "outputs" / "one", uri=f"http://127.0.0.1:{free_port()}")
        begin = time.monotonic()
        with pytest.raises(TrackingError, match=r"127\.0\.0\.1.*tracking\.required=false") as error:
            run.tracker.check_reachable()
        assert time.monotonic() - begin < 20
        assert "\n" not in str(error.value)

    def test_without_required_the_search_goes_on_and_the_user_is_told_what_is_missing(
        self, project
    ):
        """`close` counts what MLflow lacks and names the script that sends it."""
        uri = f"http://127.0.0.1:{free_port()}"
        run = Run(project / "outputs" / "one", uri=uri, required=False)
        assert run.tracker.check_reachable() is False
        run(*whole_trial("a"), *whole_trial("b"))
        assert run.tracker.close(timeout_s=0.5) == 2
        assert len(run.said) == 2
        assert typed("sync-mlflow", str(run.folder)) in run.said[1]
        sync_folder(run.folder, TrackingConfig(uri=URI), say=print)
        assert sorted(found_runs()) == ["", "a", "b"]

    def test_a_server_that_never_answers_holds_nobody_up(self, project):
        """It takes connections and is silent: events cost nothing, `close` keeps its time."""
        with socket.create_server(("127.0.0.1", 0)) as silent:
            uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
            run = Run(project / "outputs" / "one", uri=uri, required=False)
            assert run.tracker.check_reachable(timeout_s=0.5) is False
            begin = time.monotonic()
            run(*whole_trial())
            assert run.tracker.close(timeout_s=0.5) == 1
            assert time.monotonic() - begin < 2

    def test_a_database_that_can_not_be_created_is_refused(self, project):
        """A path below a file, named in the message."""
        run = Run(project / "outputs" / "one", uri=f"sqlite:///{project}/mlflow.db/new.db")
        with pytest.raises(TrackingError, match=r"mlflow\.db/new\.db"):
            run.tracker.check_reachable()

    def test_a_deleted_experiment_is_refused_with_the_way_out(self, project):
        """MLflow keeps the name of a deleted experiment taken."""
        mlflow = client()
        mlflow.delete_experiment(mlflow.create_experiment("hsf_tune"))
        run = Run(project / "outputs" / "one")
        with pytest.raises(TrackingError, match=r"is deleted.*tracking\.experiment=NAME"):
            run.tracker.check_reachable()

    def test_a_new_working_directory_gets_its_database(self, tmp_path, monkeypatch, capfd):
        """`check_reachable` creates it, quietly, in the driver."""
        monkeypatch.chdir(tmp_path)
        run = Run(tmp_path / "outputs" / "one")
        assert run.tracker.check_reachable() is True
        assert (tmp_path / "mlflow.db").exists()
        run(*whole_trial())
        run.tracker.close()
        out, err = capfd.readouterr()
        assert (out, err) == ("", "")

    @pytest.mark.slow
    def test_a_server_killed_and_started_again_misses_nothing(self, project):
        """Epochs go on through the outage; each point is there once afterwards."""
        port = free_port()
        uri = f"http://127.0.0.1:{port}"
        server = start_server(port)
        try:
            run = Run(project / "outputs" / "one", uri=uri)
            assert run.tracker.check_reachable()
            run(started(max_epochs=60))
            for number in range(60):
                if number == 15:
                    end_server(server)
                if number == 40:
                    server = start_server(port)
                run(epoch(number))
                time.sleep(0.1)
            run(ended(best_epoch=59))
            assert run.tracker.close(timeout_s=60) == 0
            runs = found_runs(uri)
            child = runs["explore-encoder-000-f1"]
            for metric in ("train_loss", "val_loss", "val_dice", "val_dice/CA2/3", "lr/encoders.0"):
                assert [step for step, _ in history(child, metric, uri)] == list(range(60))
            assert child.info.status == runs[""].info.status == "FINISHED"
            assert "can't be used now" in run.said[0]
            assert "is back" in run.said[1]
            assert len(run.said) == 2
        finally:
            end_server(server)


class TestPages:
    def test_the_compare_view_shows_strategies_side_by_side(self, project, open_page):
        """In a real browser: what differs between two trials and what each reached, no errors."""
        run = Run(project / "outputs" / "one")
        first, second = "explore-encoder-000-f1", "explore-decoder-000-f1"
        decoder = {"finetuning.mode": "decoder", "finetuning.depth": 3, "models.lr": 0.0123}
        run(*whole_trial(first), started(second, arm="decoder", strategy=decoder))
        run(*(epoch(number, second, val_dice=0.77) for number in range(4)))
        run(ended(second, dice=0.77))
        run.tracker.close()
        runs = found_runs()
        chosen = [runs[trial].info.run_id for trial in (first, second)]
        port = free_port()
        server = start_server(port)
        try:
            query = urllib.parse.urlencode({
                "runs": json.dumps(chosen),
                "experiments": json.dumps([runs[first].info.experiment_id]),
            })  # fmt: skip
            document, errors = open_page(
                f"http://127.0.0.1:{port}/#/compare-runs?{query}", milliseconds=20000
            )
        finally:
            end_server(server)
        text = re.sub(r"<[^>]*>", " ", document)
        for shown in (first, second, "encoder", "decoder", "0.0123", "0.77", "val_dice"):
            assert shown in text, f"{shown} is not on the page"
        assert errors == []


class TestNames:
    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("val_dice/CA2/3", "val_dice/CA2/3"),
            ("val_dice/Subiculum (pre)", "val_dice/Subiculum _pre_"),
            ("val_dice/CA1+2", "val_dice/CA1_2"),
            ("val_dice//x/../y", "val_dice/x/__/y"),
        ],
    )
    def test_a_label_may_be_called_anything(self, name, expected):
        """MLflow's own check takes each name that we make of one."""
        from mlflow.utils.validation import _validate_metric_name

        assert metric_name(name) == expected
        _validate_metric_name(metric_name(name))

    def test_two_keys_that_end_alike_keep_their_full_names(self):
        """Neither parameter hides the other."""
        params = params_of(started(strategy={"models.lr": 1, "augmentation.flip.p": 2,
                                             "augmentation.blur.p": 3}))  # fmt: skip
        assert params["lr"] == "1"
        assert params["augmentation.flip.p"] == "2"
        assert params["augmentation.blur.p"] == "3"


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def start_server(port):
    """A real `mlflow server` on the project's database, with its own process group."""
    command = [
        sys.executable, "-m", "mlflow", "server", "--backend-store-uri", URI, "--port", str(port),
        "--artifacts-destination", "./served", "--workers", "1",
    ]  # fmt: skip
    env = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    server = subprocess.Popen(
        command, env=env, start_new_session=True, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2):
                return server
        except OSError:
            time.sleep(0.3)
    end_server(server)
    raise TimeoutError("mlflow server did not become healthy in 90 s")


def end_server(server):
    if server.poll() is None:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


class TestForeignRun:
    """A run's folder that came from someone else."""

    def test_files_outside_of_the_run_are_not_sent(self, project):
        """Named as a figure or a checkpoint, directly or through a link."""
        (project / "id_rsa").write_text("secret")
        folder = project / "outputs" / "one"
        begun, ended = started("a"), replace(whole_trial("a")[-1], figures=["../../id_rsa"])
        Records(folder).extend([begun, ended])
        (folder / "checkpoints").mkdir()
        (folder / "checkpoints" / "x.png").symlink_to(project / "id_rsa")
        begun, ended = started("b"), replace(ended, trial="b", figures=["checkpoints/x.png"])
        Records(folder).extend([begun, ended])
        begun, ended = started("c"), replace(ended, figures=[], best_checkpoint="../../id_rsa")
        Records(folder).extend([begun, replace(ended, trial="c")])
        said = []
        assert sync_folder(folder, TrackingConfig(uri=URI), say=said.append) == 3
        assert sum("leads out of that folder" in text for text in said) >= 3
        sent = [path.name for path in project.rglob("*") if "artifacts" in path.parts]
        assert not {"id_rsa", "x.png"} & set(sent)

    @pytest.mark.parametrize(
        ("noted", "given", "sent_to"),
        [
            (URI, None, URI),
            ("http://elsewhere:5000", None, None),
            ("sqlite:////home/user/own.db", None, None),
            ("http://elsewhere:5000", "http://mine:5000", "http://mine:5000"),
            ("http://lab:5000", None, "http://lab:5000"),
        ],
    )
    def test_an_address_in_its_configuration_is_said_and_not_used_unasked(
        self, monkeypatch, noted, given, sent_to
    ):
        """Only the default, the command line's and the environment's are the user's own."""
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://lab:5000")
        if sent_to is None:
            with pytest.raises(TrackingError, match=rf"{noted}.*say so: --tracking-uri {noted}"):
                address_for(TrackingConfig(uri=noted), given)
        else:
            assert address_for(TrackingConfig(uri=noted), given).uri == sent_to

    def test_the_script_sends_nothing_to_such_an_address(self, project, capsys):
        """`python scripts/sync_mlflow.py THEIRS` says where it would go."""
        folder = project / "outputs" / "one"
        Records(folder).extend(whole_trial())
        (folder / "config.yaml").write_text(yaml.safe_dump(OF_SOMEONE))
        with pytest.raises(SystemExit) as end:
            run_command("sync-mlflow", [str(folder)])
        assert end.value.code == 1
        assert "--tracking-uri http://elsewhere:5000" in capsys.readouterr().err
