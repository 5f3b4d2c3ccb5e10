from __future__ import annotations

import pytest

from hsf_tune.data.cases import discover, find_cases
from hsf_tune.errors import DataError


def sentences(datasets):
    return [str(fault) for fault in discover(datasets)[1]]


def test_cases_come_in_discovery_order_with_subject_and_side(touch, datasets_config):
    """Datasets first, then patterns, then sorted paths; main_path needs no trailing slash."""
    for subject in ("sub-02", "sub-01"):
        for side in ("left", "right"):
            touch(f"study/{subject}/{side}_t2.nii.gz", f"study/{subject}/{side}_seg.nii.gz")
    cases = find_cases(
        datasets_config(
            {
                "right_t2": ("**/right_t2.nii.gz", "right_seg.nii.gz"),
                "left_t2": ("**/left_t2.nii.gz", "left_seg.nii.gz"),
            }
        )
    )
    assert [case.id for case in cases] == [
        "study--sub-01--right_t2",
        "study--sub-02--right_t2",
        "study--sub-01--left_t2",
        "study--sub-02--left_t2",
    ]
    assert [case.side for case in cases] == ["right", "right", "left", "left"]
    assert cases[0].subject == "study/sub-01"
    assert cases[0].label.name == "right_seg.nii.gz"


@pytest.mark.parametrize("ending", ["", "/"])
def test_main_path_and_path_are_joined_with_or_without_a_slash(
    touch, datasets_config, tmp_path, ending
):
    touch("study/a/t2.nii.gz", "study/a/seg.nii.gz")
    datasets = datasets_config(main_path=f"{tmp_path}{ending}", path="/study/")
    assert len(find_cases(datasets)) == 1


def test_a_folder_of_the_working_directory_is_not_taken_for_one_of_main_path(
    touch, datasets_config, tmp_path, monkeypatch
):
    """Only an absolute path stands on its own; other data would train without a word."""
    touch("study/a/t2.nii.gz", "study/a/seg.nii.gz")
    (tmp_path / "main").mkdir()
    monkeypatch.chdir(tmp_path)
    (sentence,) = sentences(datasets_config(main_path=f"{tmp_path}/main", path="study"))
    assert "is no folder below" in sentence
    alone = datasets_config(main_path=f"{tmp_path}/main", path=f"{tmp_path}/study")
    assert len(find_cases(alone)) == 1


def test_a_flat_folder_pairs_each_image_with_its_own_label(touch, datasets_config):
    """{stem} and {subject} are filled from the image's name, brackets taken literally."""
    names = ["sub-10", "sub-1", "sub-2 [pilot] é"]  # as they sort, with what follows
    for name in names:
        touch(f"study/{name}_t2.nii.gz", f"study/{name}_t2_seg.nii.gz")
    by_stem = find_cases(datasets_config({"t2": ("*_t2.nii.gz", "{stem}_seg.nii.gz")}))
    assert [case.label.name for case in by_stem] == [f"{name}_t2_seg.nii.gz" for name in names]
    by_subject = find_cases(
        datasets_config(
            {"t2": ("*_t2.nii.gz", "{subject}_t2_seg.nii.gz")}, subject=r"^(.+)_t2\.nii"
        )
    )
    assert [case.subject for case in by_subject] == [f"study/{name}" for name in names]
    assert [case.label for case in by_subject] == [case.label for case in by_stem]


def test_hidden_files_and_sidecars_are_passed_over(touch, datasets_config):
    touch(
        "study/a/t2.nii.gz",
        "study/a/seg.nii.gz",
        "study/a/._t2.nii.gz",
        "study/a/._seg.nii.gz",
        "study/a/t2.json",
        "study/.trash/a/t2.nii.gz",
        "study/.trash/a/seg.nii.gz",
    )
    cases = find_cases(datasets_config({"t2": ("**/*t2.*", "*seg*")}))
    assert [case.mri.name for case in cases] == ["t2.nii.gz"]


def test_ids_stay_unique_where_names_are_alike(touch, datasets_config):
    """Two runs of a subject, and two subjects whose names differ by an accent only."""
    touch("study/zoe/1_t2.nii.gz", "study/zoe/1_t2_seg.nii.gz")
    touch("study/zoe/2_t2.nii.gz", "study/zoe/2_t2_seg.nii.gz")
    touch("study/zoé/1_t2.nii.gz", "study/zoé/1_t2_seg.nii.gz")
    cases = find_cases(datasets_config({"t2": ("**/*t2.nii.gz", "{stem}_seg.nii.gz")}))
    ids = ["study--zoe--t2", "study--zoe--t2--2", "study--zoe--t2--3"]
    assert [case.id for case in cases] == ids
    assert len({case.subject for case in cases}) == 2


FAULTS = {
    "no label": (["study/a/t2.nii.gz"], {}, ["a/t2.nii.gz", "no label map", "*seg.nii.gz"]),
    "several labels": (
        ["study/a/t2.nii.gz", "study/a/1_seg.nii.gz", "study/a/2_seg.nii.gz"],
        {},
        ["a/t2.nii.gz", "2 label maps", "1_seg.nii.gz", "2_seg.nii.gz"],
    ),
    "nothing matches": (
        ["study/a/t1.nii.gz"],
        {},
        ["datasets.datasets.study.patterns.t2.mri", "**/*t2.nii.gz", "no .nii"],
    ),
    "label maps caught": (
        ["study/a/t2.nii.gz", "study/a/seg.nii.gz"],
        {"patterns": {"t2": ("**/*.nii.gz", "seg.nii.gz")}},
        ["a/seg.nii.gz", "label map of t2.nii.gz", "narrower"],
    ),
    "file used twice": (
        ["study/a/t2.nii.gz", "study/a/seg.nii.gz"],
        {"patterns": dict.fromkeys(("left", "right"), ("**/t2.nii.gz", "seg.nii.gz"))},
        ["a/t2.nii.gz", "used 2 times", "study/left", "study/right"],
    ),
    "label used twice": (
        ["study/sub-1_t2.nii.gz", "study/sub-2_t2.nii.gz", "study/sub-1_seg.nii.gz"],
        {},
        ["sub-1_seg.nii.gz", "used 2 times", "sub-2_t2.nii.gz"],
    ),
    "no subject": (
        ["study/p1_t2.nii.gz", "study/p1_seg.nii.gz"],
        {},
        ["p1_t2.nii.gz", "datasets.datasets.study.subject", "regular expression"],
    ),
    "regex that does not match": (
        ["study/p1_t2.nii.gz", "study/p1_seg.nii.gz"],
        {"subject": r"^s(\d+)"},
        ["p1_t2.nii.gz", r"datasets.datasets.study.subject=^s(\d+)"],
    ),
    "no regex at all": (
        ["study/a/t2.nii.gz", "study/a/seg.nii.gz"],
        {"subject": "(sub"},
        ["datasets.datasets.study.subject=(sub", "no regular expression"],
    ),
    "folders that are contrasts": (
        [f"study/{c}/sub-{i}_{c}{e}.nii.gz" for c in "xy" for i in "12" for e in ("", "_seg")],
        {"patterns": {"x": ("**/*_[xy].nii.gz", "{stem}_seg.nii.gz")}},
        ["study/x", "several subjects", "sub-1, sub-2", "datasets.datasets.study.subject"],
    ),
    "missing folder": (
        ["other/a/t2.nii.gz"],
        {},
        ["datasets.datasets.study.path=study", "no folder", "other"],
    ),
    "missing main_path": ([], {"main_path": "/nowhere"}, ["datasets.main_path=/nowhere"]),
    "invalid pattern": (
        ["study/a/t2.nii.gz"],
        {"patterns": {"t2": ("/abs/*.nii.gz", "seg.nii.gz")}},
        ["datasets.datasets.study.patterns.t2.mri=/abs/*.nii.gz", "no pattern"],
    ),
    "misspelt placeholder": (
        ["study/a/t2.nii.gz", "study/a/t2_seg.nii.gz"],
        {"patterns": {"t2": ("**/t2.nii.gz", "{name}_seg.nii.gz")}},
        ["a/t2.nii.gz", "{name} is not filled in", "{stem}"],
    ),
}


@pytest.mark.parametrize(("files", "keys", "words"), FAULTS.values(), ids=FAULTS.keys())
def test_every_fault_of_pairing_names_the_place_and_the_remedy(
    touch, datasets_config, files, keys, words
):
    touch(*files)
    message = "\n".join(sentences(datasets_config(**keys)))
    assert [word for word in words if word not in message] == []


def test_a_link_to_nothing_is_a_fault_and_no_missing_file(touch, datasets_config, tmp_path):
    touch("study/a/seg.nii.gz")
    (tmp_path / "study/a/t2.nii.gz").symlink_to(tmp_path / "gone")
    (fault,) = sentences(datasets_config())
    assert "a/t2.nii.gz is a link to nothing" in fault


def test_all_faults_are_told_at_once_and_sound_cases_are_kept(touch, datasets_config):
    touch("study/a/t2.nii.gz", "study/b/t2.nii.gz", "study/c/t2.nii.gz", "study/c/seg.nii.gz")
    datasets = datasets_config()
    assert len(sentences(datasets)) == 2
    assert [case.subject for case in discover(datasets)[0]] == ["study/c"]
    with pytest.raises(DataError, match=r"(?s)a/t2.*b/t2"):
        find_cases(datasets)


def test_contrasts_of_one_subject_may_share_a_label_map(touch, datasets_config):
    """T1 and T2 on one grid, segmented once, as in published dataset files."""
    for subject in ("sub-01", "sub-02"):
        touch(*(f"study/{subject}/{name}.nii.gz" for name in ("t1", "t2", "seg")))
    patterns = {c: (f"**/{c}.nii.gz", "seg.nii.gz") for c in ("t1", "t2")}
    cases = find_cases(datasets_config(patterns))
    assert [(c.subject, c.pattern, c.label.name) for c in cases] == [
        ("study/sub-01", "t1", "seg.nii.gz"),
        ("study/sub-02", "t1", "seg.nii.gz"),
        ("study/sub-01", "t2", "seg.nii.gz"),
        ("study/sub-02", "t2", "seg.nii.gz"),
    ]
