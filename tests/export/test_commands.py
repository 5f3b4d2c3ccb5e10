"""The commands export and predict, as they are typed."""

from __future__ import annotations

import csv
import shutil
from dataclasses import replace
from pathlib import Path

import mlflow
import nibabel as nib
import numpy as np
import onnxruntime
import pytest
import yaml

from hsf_tune.cli.commands import run as run_command
from hsf_tune.finetuning.finished import FinishedRun
from hsf_tune.finetuning.strategy import save_strategy
from hsf_tune.installed import typed
from hsf_tune.records import Records
from hsf_tune.tracking import sync_folder


def called(command, *words) -> int:
    with pytest.raises(SystemExit) as end:
        run_command(command, [str(w) for w in words])
    return int(end.value.code or 0)


@pytest.fixture(scope="module")
def model(run: FinishedRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "bag"
    words = (run.folder, "--as", "bag", "--to", folder, "--no-tracking", "--threads", 1)
    assert called("export", *words) == 0
    return folder


def crops(run: FinishedRun) -> list[Path]:
    return sorted(Path(run.config.datasets.main_path).glob("balls/*/*mri.nii.gz"))


def test_result_lies_on_the_images_own_grid(run: FinishedRun, model: Path, tmp_path: Path) -> None:
    """Shape, axes and affine of the file, whatever its orientation; labels as numbered."""
    mri = crops(run)[0]
    assert called("predict", model, mri, "--to", tmp_path, "--uncertainty") == 0
    head, found = nib.load(mri), nib.load(tmp_path / "left_t1_mri_pred.nii.gz")
    assert found.shape == head.shape
    np.testing.assert_allclose(found.affine, head.affine)
    assert found.get_data_dtype() == np.uint8
    assert set(np.unique(np.asarray(found.dataobj))) <= {0, 1, 2}
    doubt = np.asarray(nib.load(tmp_path / "left_t1_mri_uncertainty.nii.gz").dataobj)
    assert doubt.shape == head.shape
    assert 0 <= doubt.min() < doubt.max() <= 1


def test_scores_are_those_of_the_trial(run: FinishedRun, model: Path, tmp_path: Path) -> None:
    """The fold model scores its validation subject as its trial did, with every metric."""
    record = Records(run.folder).trials["explore-decoder-000-f1"]
    assert record.ended is not None
    subject = record.started.validate[0].split("/")[1]
    mri = next(p for p in crops(run) if p.parent.name == subject)
    reference = mri.with_name("left_t1_seg.nii.gz")
    words = (model, mri, "--reference", reference, "--to", tmp_path)
    assert called("predict", *words) == 0
    with (tmp_path / "prediction_scores.csv").open() as file:
        table = list(csv.DictReader(file))
    assert {(r["subject"], r["case"]) for r in table} == {(subject, "left_t1_mri")}
    rows = {(r["label"], r["metric"]): float(r["value"]) for r in table}
    for score in record.ended.scores:
        assert rows[score.label, score.metric] == pytest.approx(score.value, abs=1e-3)
    assert {"dice", "hd95_mm"} <= {metric for _, metric in rows}


def test_run_is_named_as_easily_as_a_model(run: FinishedRun, tmp_path: Path) -> None:
    """outputs/NAME segments too, with views that are averaged."""
    assert called("predict", run.folder, crops(run)[0], "--to", tmp_path, "--tta", 3) == 0
    assert (tmp_path / "left_t1_mri_pred.nii.gz").exists()


def test_results_are_not_overwritten(
    run: FinishedRun, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A second call says so, before it computes anything."""
    mri = crops(run)[0]
    assert called("predict", model, mri, "--to", tmp_path) == 0
    assert called("predict", model, mri, "--to", tmp_path) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert called("predict", model, mri, "--to", tmp_path, "--overwrite") == 0


def test_scores_are_not_overwritten_either(
    run: FinishedRun, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is segmented first."""
    mri = crops(run)[0]
    (tmp_path / "prediction_scores.csv").touch()
    words = (model, mri, "--reference", mri.with_name("left_t1_seg.nii.gz"), "--to", tmp_path)
    assert called("predict", *words) == 1
    assert "prediction_scores.csv exists; nothing was written" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["prediction_scores.csv"]


def test_whole_head_is_refused(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It would take minutes and mean nothing."""
    head = tmp_path / "head.nii.gz"
    values = np.random.default_rng(0).random((40, 40, 40)).astype(np.float32)
    nib.save(nib.Nifti1Image(values, np.diag([5, 5, 5, 1])), head)
    assert called("predict", model, head) == 1
    assert "200 x 200 x 200 mm" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--reference", "a.nii.gz", "b.nii.gz"], "2 label maps for 1 images"),
        (["--tta", "0"], "1 or more"),
        (["--dataset", "bals"], "Did you mean 'balls'"),
    ],
)
def test_mistakes_get_a_sentence(
    run: FinishedRun,
    model: Path,
    words: list[str],
    sentence: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """And exit code 1."""
    assert called("predict", model, crops(run)[0], *words) == 1
    assert sentence in " ".join(capsys.readouterr().err.split())


def test_export_says_where_it_went_and_refuses_to_repeat(
    run: FinishedRun, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The folder's own files stay as they are."""
    names = sorted(p.name for p in model.iterdir())
    assert names == ["README.md", "conf", "model_card.md", "study-1.onnx"]
    words = (run.folder, "--as", "bag", "--to", model, "--no-tracking")
    assert called("export", *words) == 1
    assert "an export needs one of its own" in " ".join(capsys.readouterr().err.split())


def test_strategy_of_another_base_model_is_refused(
    run: FinishedRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """This run's base would be trained, and the model card would name the other."""
    save_strategy(tmp_path / "theirs.yaml", replace(run.saved, base_sha256="feedbeef"))
    words = (run.folder, "--strategy", tmp_path / "theirs.yaml", "--to", tmp_path / "models")
    assert called("export", *words, "--as", "bag", "--no-tracking") == 1
    assert "expected the same. Name a strategy" in " ".join(capsys.readouterr().err.split())


def test_exported_model_is_registered_with_its_run(
    run: FinishedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """models:/hsf-finetuned@best, loaded by MLflow, gives the numbers of the exported file."""
    monkeypatch.chdir(tmp_path)
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    tracked = tmp_path / "study-1"
    shutil.copytree(run.folder, tracked)
    tracking = run.config.with_values({"tracking.uri": uri})
    tracked.joinpath("config.yaml").write_text(yaml.safe_dump(tracking.to_dict()))
    assert sync_folder(tracked, tracking.tracking) == 0
    folder = tmp_path / "models"
    words = ("--as", "bag", "--to", folder, "--threads", 1, "--tracking-uri", uri)
    assert called("export", tracked, *words) == 0

    mlflow.set_tracking_uri(uri)
    version = mlflow.MlflowClient().get_model_version_by_alias("hsf-finetuned", "best")
    parent = mlflow.get_run(version.run_id)
    assert "mlflow.parentRunId" not in parent.data.tags
    assert parent.info.status == "FINISHED"
    model = mlflow.onnx.load_model("models:/hsf-finetuned@best")
    about = mlflow.models.get_model_info("models:/hsf-finetuned@best")
    assert about.signature.inputs.inputs[0].shape == (-1, 1, -1, -1, -1)
    assert about.saved_input_example_info is not None
    image = np.random.default_rng(0).standard_normal((1, 1, 16, 24, 16)).astype(np.float32)
    sessions = [
        onnxruntime.InferenceSession(source)
        for source in (model.SerializeToString(), str(folder / "study-1.onnx"))
    ]
    found = [s.run(None, {"mri": image})[0] for s in sessions]
    np.testing.assert_array_equal(found[0], found[1])


def test_mlflow_without_the_run_is_said_and_the_folder_stays(
    run: FinishedRun,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """No empty database is made on the way."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "models"
    assert called("export", run.folder, "--as", "bag", "--to", folder, "--threads", 1) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "not registered" in said
    assert typed("sync-mlflow", str(run.folder)) in said
    assert (folder / "study-1.onnx").exists()
    assert not (tmp_path / "mlflow.db").exists()
