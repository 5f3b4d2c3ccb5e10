"""`scripts/check.py` as a user meets it: its exit code, what it prints, what it leaves behind."""

from __future__ import annotations

import json
import os

import matplotlib.image
import nibabel as nib
import numpy as np
import pytest
import yaml

from hsf_tune.cli.commands import run as run_command
from hsf_tune.installed import typed

NAMES = ["DG", "CA1", "CA2", "CA3", "SUB"]


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    """The YAML of six sound subjects with HSF's five labels; the working directory is empty."""
    for i in range(6):
        rng = np.random.default_rng(i)
        folder = tmp_path / "data" / f"sub-{i}"
        folder.mkdir(parents=True)
        labels = np.zeros((16, 16, 12), np.uint8)
        labels[2:14, 2:12, 2:10] = 1 + np.arange(10)[:, None] // 2
        labels[2, [2, 3, 6, 7, 10], 2] *= rng.random(5) < 0.5
        image = rng.normal(300, 40, labels.shape) + 60 * labels
        nib.save(nib.Nifti1Image(image.astype(np.int16), np.eye(4)), folder / "t2.nii.gz")
        nib.save(nib.Nifti1Image(labels, np.eye(4)), folder / "seg.nii.gz")
    path = tmp_path / "study.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "main_path": "./",
                "datasets": {
                    "study": {
                        "path": "data",
                        "ca_type": "1/2/3",
                        "patterns": {"t2": {"mri": "**/t2.nii.gz", "label": "seg.nii.gz"}},
                        "labels": {i: i for i in range(1, 6)},
                        "labels_names": dict(enumerate(NAMES, start=1)),
                    }
                },
            }
        )
    )
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setenv("COLUMNS", "110")
    return path


@pytest.fixture
def check(capsys):
    """Run the command; its exit code and all that it printed."""

    def run(*words, command="check"):
        with pytest.raises(SystemExit) as end:
            run_command(command, [str(word) for word in words])
        out, err = capsys.readouterr()
        return end.value.code, out + err

    return run


def _spoil(dataset, name="data/sub-2/seg.nii.gz", value=9):
    path = dataset.parent / name
    labels = np.asanyarray(nib.load(path).dataobj).copy()
    labels[0, 0, 0] = value
    nib.save(nib.Nifti1Image(labels, np.eye(4)), path)


def test_sound_data_end_with_0_a_table_and_a_sheet(dataset, check, tmp_path):
    code, text = check(f"datasets={dataset}")
    assert code == 0
    assert "No fault in 6 cases" in text
    assert "sub-3 t2" in text
    folder = tmp_path / "work" / "outputs" / "check-study"
    plain = json.loads((folder / "check.json").read_text())
    assert plain["faults"] == []
    assert plain["tables"]["study"]["volumes"]["study--sub-0--t2"]["CA1"]["mm3"] == 12 * 2 * 8
    picture = matplotlib.image.imread(folder / "contact-sheet-study.png")
    assert picture.shape[0] > 200
    assert picture.std() > 0.1


def test_every_fault_is_printed_with_what_to_do_and_ends_with_1(dataset, check, tmp_path):
    _spoil(dataset)
    (dataset.parent / "data/sub-4/t2.nii.gz").write_bytes(b"")
    code, text = check(f"datasets={dataset}", "finetuning.out_channels=9", "--output", "out")
    assert code == 1
    flat = " ".join(text.split())
    for words in (
        "3 faults in 3 places",
        "data/sub-2/seg.nii.gz holds label 9 (1 voxel)",
        '> Add "9: 0" to drop it',
        "data/sub-4/t2.nii.gz is empty (0 bytes)",
        "finetuning.out_channels=9",
        "Error: 3 faults in 3 places, listed above. Nothing was trained.",
    ):
        assert words in flat
    assert "Traceback" not in text
    faults = json.loads((tmp_path / "work/out/check.json").read_text())["faults"]
    assert len(faults) == 3
    assert (tmp_path / "work/out/contact-sheet-study.png").exists()


def test_a_fault_of_every_case_is_explained_a_few_times_and_named_each_time(dataset, check):
    for i in range(6):
        _spoil(dataset, f"data/sub-{i}/seg.nii.gz")
    code, text = check(f"datasets={dataset}", "--no-sheets")
    assert code == 1
    assert text.count("holds label 9") == 6
    assert text.count('Add "9: 0"') == 3


def test_finetuning_on_faulty_data_starts_nothing(dataset, check, tmp_path):
    """One bad pair keeps the whole study from training, and no folder is made."""
    _spoil(dataset)
    code, text = check(f"datasets={dataset}", "models=demo", command="finetune")
    assert code == 1
    assert "holds label 9" in text
    assert "Nothing was trained" in text
    assert not (tmp_path / "work/outputs").exists()


def test_labels_that_are_not_hsfs_ask_for_the_plain_loss(dataset, check):
    """The default loss knows HSF's five subfields; a sixth is none of them."""
    plain = yaml.safe_load(dataset.read_text())
    plain["datasets"]["study"]["labels_names"][6] = "SRLM"
    plain["datasets"]["study"]["labels"][6] = 6
    dataset.write_text(yaml.safe_dump(plain))
    code, text = check(f"datasets={dataset}", "--no-sheets")
    assert code == 1
    assert "models.use_forgiving_loss=False" in " ".join(text.split())


def test_help_names_the_exit_code_and_shows_a_call(check):
    code, text = check("--help")
    assert code == 0
    assert f"{typed('check')} datasets=/data/hsf/my_dataset.yaml" in text
    assert "exit code" in text


def _edited(old, new):
    return lambda text: text.replace(old, new)


YAMLS = {
    "a tab": (_edited("    path: data", "\tpath: data"), ["study.yaml, line ", "not valid YAML"]),
    "an unclosed bracket": (
        lambda text: text + "k_sample: [1, 2\n",
        ["study.yaml, line", "that begins on line 22"],
    ),
    "a wrong indent": (_edited("    path: data", "   path: data"), ["study.yaml, line"]),
    "a label mapped twice": (
        _edited("      2: 2\n", "      2: 2\n      2: 3\n"),
        ["study.yaml, line", "the key 2 is here a second time"],
    ),
    "an unknown key": (
        _edited("main_path", "batchsize: 2\nmain_path"),
        ["datasets.batchsize: unknown key", "Did you mean 'batch_size'"],
    ),
    "an unknown key of a dataset": (
        _edited("    path:", "    pth: x\n    path:"),
        ["datasets.datasets.study.pth: unknown key", "Did you mean 'path'"],
    ),
    "a missing key": (
        _edited("    ca_type: 1/2/3\n", ""),
        ["datasets.datasets.study.ca_type is missing"],
    ),
    "a missing label pattern": (
        _edited("        label: seg.nii.gz\n", ""),
        ["datasets.datasets.study.patterns.t2.label is missing"],
    ),
    "a key that refers to nothing": (
        _edited("path: data", "path: ${nowhere}"),
        ["datasets.datasets.study.path can't be filled in"],
    ),
    "a word for a number": (
        _edited("main_path", "train_ratio: most\nmain_path"),
        ["datasets.train_ratio is 'most'", "valid number"],
    ),
    "several at once": (
        lambda text: "batchsize: 2\ntrain_ratio: 80\n" + text.replace("    ca_type: 1/2/3\n", ""),
        ["batchsize", "train_ratio is 80", "ca_type is missing"],
    ),
    "an empty file": (lambda text: "", ["study.yaml holds no keys"]),
    "a folder that is not there": (
        _edited("path: data", "path: dta"),
        ["datasets.datasets.study.path=dta is no folder below", "it holds data"],
    ),
}


@pytest.mark.parametrize(("edit", "words"), YAMLS.values(), ids=YAMLS.keys())
def test_a_faulty_yaml_is_answered_with_its_place(dataset, check, edit, words):
    dataset.write_text(edit(dataset.read_text()))
    code, text = check(f"datasets={dataset}", "--no-sheets")
    assert code == 1
    assert "Traceback" not in text
    flat = " ".join(text.split())
    for word in words:
        assert word in flat


STRANGE = "[/b] [red]$\\frac$ {x}"


def test_names_that_look_like_markup_are_shown_as_they_are(dataset, check, tmp_path):
    """Of the dataset, a pattern, a label and a subject; sound and with a fault."""
    text = dataset.read_text().replace("study:", f"'{STRANGE}':").replace("t2:", f"'{STRANGE}':")
    dataset.write_text(text.replace("CA1", f"'{STRANGE}'") + "models: {use_forgiving_loss: false}")
    (dataset.parent / "data/sub-0").rename(dataset.parent / f"data/{STRANGE.replace('/', '')}")
    code, text = check(f"datasets={dataset}", "--output", f"out {STRANGE.replace('/', '')}")
    assert (code, "Traceback" in text) == (0, False)
    assert text.count(STRANGE) >= 3
    (dataset.parent / "data/sub-1/t2.nii.gz").write_bytes(b"")
    code, text = check(f"datasets={dataset}", "--no-sheets")
    assert (code, "Traceback" in text) == (1, False)


@pytest.mark.parametrize("where", ["study:", "t2:", "DG"])
@pytest.mark.parametrize("code", ["\\e[2J", "\\u202E", "\\x07"])
def test_names_that_steer_a_terminal_are_refused(where, code, dataset, check):
    """In a YAML from somebody else; shown escaped."""
    word = where.strip(" :")
    new = where.replace(word, f'"{code}{word}"')
    dataset.write_text(dataset.read_text().replace(where, new))
    ended, text = check(f"datasets={dataset}", "--no-sheets")
    assert ended == 1
    assert "holds control characters" in text
    assert not set(text) & set("\x1b\u202e\x07")


def test_folders_whose_names_are_no_text_are_a_fault_and_no_traceback(dataset, check):
    """Bytes that are not UTF-8, and an escape code that would clear the screen."""
    for i, name in enumerate((b"sub-\xff", b"sub-\x1b[2J")):
        folder = dataset.parent / f"data/sub-{i}"
        folder.rename(dataset.parent / "data" / os.fsdecode(name))
    code, text = check(f"datasets={dataset}", "--no-sheets")
    assert (code, "Traceback" in text) == (1, False)
    assert text.count("not UTF-8") == 2
    assert "sub-\\xff" in text
    assert "\x1b" not in text
