"""The exported folder: complete, consistent, and never in the way of what is there."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import xxhash
import yaml

from hsf_tune.data.reading import read_image
from hsf_tune.data.store import open_store
from hsf_tune.errors import ConfigError, ModelError
from hsf_tune.export.folder import Exported, write_folder
from hsf_tune.export.hsf_config import check_name, guess_contrast, hsf_command
from hsf_tune.export.labels import label_set
from hsf_tune.export.model_card import model_card
from hsf_tune.export.segmenter import open_segmenter
from hsf_tune.export.weights import fold_models, single_spec, train_single
from hsf_tune.finetuning.finished import FinishedRun, TrainedModel, open_run
from hsf_tune.finetuning.predict import PLAIN, predict
from hsf_tune.model.weights import build_network, load_base


@pytest.fixture(scope="module")
def single(run: FinishedRun) -> TrainedModel:
    return train_single(run, run.saved, lambda event: None)


@pytest.fixture(scope="module")
def exported(
    run: FinishedRun, single: TrainedModel, tmp_path_factory: pytest.TempPathFactory
) -> Exported:
    folder = tmp_path_factory.mktemp("models") / "study 1"
    return write_folder(run, run.saved, [single], "single", folder, "study-1")


def test_single_trains_on_every_subject_outside_the_test_set(
    run: FinishedRun, single: TrainedModel
) -> None:
    """The fold models saw one subject each; the locked one stays locked."""
    assert single.train == ("balls/sub-01", "balls/sub-02")
    trained = load_base(single.path)
    fold = load_base(run.models_of(run.saved.strategy)[0].path)
    assert not np.array_equal(
        trained.state_dict["final_conv.weight"], fold.state_dict["final_conv.weight"]
    )


def test_training_once_more_is_not_repeated(run: FinishedRun, single: TrainedModel) -> None:
    """A second export takes the finished training as it is."""
    before = single.path.stat().st_mtime_ns
    events: list[object] = []
    assert train_single(run, run.saved, events.append) == single
    assert single.path.stat().st_mtime_ns == before
    assert not any(type(e).__name__ == "EpochEnded" for e in events)


def test_bag_is_an_odd_number_of_fold_models(run: FinishedRun) -> None:
    """Of two folds one is taken: two votes would tie."""
    assert [m.trial for m in fold_models(run, run.saved)] == ["explore-decoder-000-f1"]


def test_strategy_that_was_never_run_has_no_bag(run: FinishedRun) -> None:
    """It can only be trained."""
    other = replace(run.saved, strategy={**run.saved.strategy, "models.lr": 0.5})
    with pytest.raises(ModelError, match="--as single"):
        fold_models(run, other)


def test_folder_is_what_hsf_reads(exported: Exported) -> None:
    """The configuration names every model with the checksum of the file that lies there."""
    folder = exported.folder
    text = (folder / "conf" / "segmentation" / "study-1.yaml").read_text()
    plain = yaml.safe_load(text)
    assert plain["ca_mode"] == "1/2/3"
    assert Path(plain["models_path"]) == folder
    assert Path(plain["models_path"]).is_absolute()
    assert set(plain["segmentation"]) == {"test_time_augmentation", "test_time_num_aug"}
    assert [p.name for p in folder.glob("*.onnx")] == list(plain["models"]) == ["study-1.onnx"]
    found = xxhash.xxh3_64((folder / "study-1.onnx").read_bytes()).hexdigest()
    assert plain["models"]["study-1.onnx"]["xxh3_64"] == found
    assert set(plain["models"]["study-1.onnx"]) == {"url", "xxh3_64"}


def test_exported_model_is_the_trained_network(exported: Exported, single: TrainedModel) -> None:
    """The file computes what the trial's own weights compute."""
    weights = load_base(single.path)
    network = build_network(weights, 3).eval()
    image = np.random.default_rng(0).standard_normal((1, 1, 16, 24, 16)).astype(np.float32)
    import torch

    with torch.inference_mode():
        expected = network(torch.from_numpy(image)).softmax(1).numpy()
    session = onnxruntime.InferenceSession(str(exported.files[0].path))
    found = session.run(None, {session.get_inputs()[0].name: image})[0]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_exported_model_can_be_finetuned_again(exported: Exported, single: TrainedModel) -> None:
    """Its weights come back by their names, bit for bit."""
    again, own = load_base(exported.files[0].path), load_base(single.path)
    assert again.architecture == own.architecture
    for name, value in own.state_dict.items():
        np.testing.assert_array_equal(again.state_dict[name], value)


def test_readme_holds_the_command(exported: Exported) -> None:
    """As it is typed, for a folder with a blank in its name too."""
    text = (exported.folder / "README.md").read_text()
    line = next(line.strip() for line in text.splitlines() if line.strip().startswith("hsf "))
    assert tuple(shlex.split(line)) == exported.command
    assert exported.command[:3] == ("hsf", "--config-dir", str(exported.folder / "conf"))
    assert "roiloc.contrast=t1" in exported.command
    assert "| 2 | INNER |" in text


def test_model_card_says_what_the_model_is_made_from(exported: Exported) -> None:
    """Data, labels, strategy, scores, versions, base model and licence."""
    card = (exported.folder / "model_card.md").read_text()
    for words in (
        "license:",
        "balls: 3 subjects, 3 crops",
        "Trained on 2 subjects; 1 subjects are locked away",
        "| 1 | OUTER |",
        "models.lr: 0.01",
        "random, sha256",
        "torch: ",
        "trained once more",
        exported.files[0].xxh3_64,
    ):
        assert words in card


def test_model_card_gives_the_strategys_own_dice_and_labels(
    run: FinishedRun, single: TrainedModel, tmp_path: Path
) -> None:
    """Not the mean of its arm's finalists, which is another number."""
    level = {"confirmed_dice_mean": 0.745, "confirmed_dice_ci95": [0.7, 0.79], "n_subjects": 12}
    report = {
        "recommendation": {
            "strategy": dict(run.saved.strategy),
            "arm": run.saved.arm,
            **level,
            "confirmed_dice_mean": 0.778,
            "labels": {"OUTER": 0.811},
        },
        "arms": {run.saved.arm: level},
        "labels": {run.saved.arm: {"OUTER": 0.702}},
    }
    for name in ("config.yaml", "dataset.json", "trials.jsonl", "best_strategy.yaml"):
        tmp_path.joinpath(name).write_bytes((run.folder / name).read_bytes())
    tmp_path.joinpath("report.json").write_text(json.dumps(report))
    copy = open_run(tmp_path)
    card = model_card(copy, run.saved, [single], [], label_set(run.config), "study-1")
    assert "confirmed on subjects that its networks had not seen: 0.778" in card
    assert "| OUTER | 0.811 |" in card
    assert "0.745" not in card


def test_nothing_is_overwritten(
    run: FinishedRun, single: TrainedModel, exported: Exported, tmp_path: Path
) -> None:
    """Neither an earlier export nor a stranger's file; a foreign model would vote along."""
    before = exported.files[0].path.read_bytes()
    with pytest.raises(ConfigError, match="already; nothing was changed"):
        write_folder(run, run.saved, [single], "single", exported.folder, "study-1")
    assert exported.files[0].path.read_bytes() == before
    tmp_path.joinpath("other.onnx").write_text("theirs")
    with pytest.raises(ConfigError, match="an export needs one of its own"):
        write_folder(run, run.saved, [single], "single", tmp_path, "study-1")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["other.onnx"]


def test_files_beside_the_export_stay(
    run: FinishedRun, single: TrainedModel, tmp_path: Path
) -> None:
    """A folder may hold notes; they are not touched."""
    tmp_path.joinpath("notes.txt").write_text("mine")
    write_folder(run, run.saved, [single, single, single], "bag", tmp_path, "study-1")
    assert tmp_path.joinpath("notes.txt").read_text() == "mine"
    names = sorted(p.name for p in tmp_path.glob("*.onnx"))
    assert names == ["study-1_1.onnx", "study-1_2.onnx", "study-1_3.onnx"]


def test_failure_leaves_nothing_behind(
    run: FinishedRun, single: TrainedModel, tmp_path: Path
) -> None:
    """A folder is whole or absent."""
    broken = replace(single, path=tmp_path / "missing.safetensors")
    folder = tmp_path / "models"
    with pytest.raises(ModelError):
        write_folder(run, run.saved, [single, broken, single], "bag", folder, "study-1")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["res-0.7mm", "a b", "", "single_fast", "bagging_accurate"])
def test_names_that_hsf_would_mistake_are_refused(name: str) -> None:
    """Dots are cut, and HSF's own configurations would win over ours."""
    with pytest.raises(ConfigError):
        check_name(name)


def test_contrast_is_read_from_the_patterns(run: FinishedRun) -> None:
    """left_t1 is T1; where patterns don't say, ROILoc's own default."""
    assert guess_contrast(run.config) == "t1"
    assert "roiloc.contrast=t2" in hsf_command(Path("/x"), "n", "t2")


def test_no_network_is_trained_on_the_test_set_for_want_of_others(run: FinishedRun) -> None:
    """Where every subject has a case in it (datasets.allow_subject_overlap)."""
    splits = {**run.dataset["splits"], "test": list(run.subjects)}
    tested = replace(run, dataset={**run.dataset, "splits": splits})
    with pytest.raises(ModelError, match="no subject outside its test set"):
        single_spec(tested, run.saved, run.config)


def test_pattern_matches_heads_and_not_what_hsf_writes_beside_them(exported: Exported) -> None:
    """Called again, HSF would take its own crops for heads."""
    assert "files.pattern=**/*_T1w.nii.gz" in exported.command
    assert "files.pattern=**/*_T2w.nii.gz" in hsf_command(Path("/x"), "n", "t2")
    assert "must match whole heads only" in (exported.folder / "README.md").read_text()


def test_run_folder_and_file_segment_alike(
    run: FinishedRun, single: TrainedModel, exported: Exported
) -> None:
    """Whatever a user names, the same network gives the same probabilities and labels."""
    case = sorted(Path(run.config.datasets.main_path).glob("balls/*/*mri.nii.gz"))[0]
    image, _ = read_image(case)
    found = []
    for source in (run.folder, exported.folder, exported.files[0].path, single.path):
        segmenter = open_segmenter(str(source))
        assert list(segmenter.labels.outputs.values()) == ["OUTER", "INNER"]
        found.append(predict(segmenter.predictors, image, [PLAIN]))
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], atol=1e-5)


def test_input_is_preprocessed_as_in_training(run: FinishedRun) -> None:
    """A crop that is read for prediction is the array that the store trained on."""
    from hsf_tune.data.cases import find_cases

    cases = find_cases(run.config.datasets)
    store = open_store(cases, run.config.datasets, run.config.store)
    image, _ = read_image(cases[0].mri)
    np.testing.assert_array_equal(image, store.load(cases[0].id).image[0])
    assert all(side % 8 == 0 for side in image.shape)


def test_models_that_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    """HSF would crash on different numbers of channels; the files are named."""
    from hsf_tune.export.onnx_file import write_onnx
    from hsf_tune.model.arunet import Architecture, ARUNet

    for channels in (3, 4):
        net = ARUNet(Architecture(f_maps=2, out_channels=channels))
        write_onnx(net, tmp_path / f"m{channels}.onnx", {}, [(1, 16, 16, 16)])
    with pytest.raises(ModelError, match=r"m3.onnx 3, m4.onnx 4"):
        open_segmenter(str(tmp_path))


def test_folder_without_models_is_refused(tmp_path: Path) -> None:
    """With what was expected there."""
    with pytest.raises(ModelError, match=r"neither .onnx files nor a run"):
        open_segmenter(str(tmp_path))
