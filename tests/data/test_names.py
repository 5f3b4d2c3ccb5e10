from __future__ import annotations

import re
from pathlib import PurePath

import pytest

from hsf_tune.data import names
from hsf_tune.data.names import file_safe, is_nifti, side_of, stem, subject_of, subjects_of


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("right_t2", "right"),
        ("averaged_left_t2", "left"),
        ("sub-01_hemi-L_T2w", "left"),
        ("sub-01_hemi-R_T2w", "right"),
        ("lh.hippocampus", "left"),
        ("RH_t1", "right"),
        ("LeftT2w", "left"),
        ("T2wRight", "right"),
        ("t2", None),
        ("leftover_bright", None),
        ("L_R_t2", None),
        ("left_and_right", None),
    ],
)
def test_side_is_read_from_whole_words_only(name, expected):
    assert side_of(name) == expected


@pytest.mark.parametrize(
    ("path", "regex", "expected"),
    [
        ("sub-07/ses-1/t2.nii.gz", None, "sub-07"),
        ("Zoé (pilot) [2]/t2.nii.gz", None, "Zoé (pilot) [2]"),
        ("sub-07_acq-hr_T2w.nii.gz", None, "sub-07"),
        ("study_sub-x9_T2w.nii", None, "sub-x9"),
        ("patient7_t2.nii.gz", None, None),
        ("patient7_t2.nii.gz", r"patient(\d+)", "7"),
        ("t2/patient7.nii.gz", r"patient\d+", "patient7"),
        ("site/a/t2.nii.gz", r"^([^/]+/[^/]+)/", "site/a"),
        ("control_t2.nii.gz", r"patient(\d+)", None),
        ("patient_t2.nii.gz", r"patient(\d*)", None),
    ],
)
def test_subject_comes_from_regex_then_folder_then_bids_entity(path, regex, expected):
    assert subject_of(PurePath(path), re.compile(regex) if regex else None) == expected


def test_stem_keeps_dots_that_are_not_the_suffix():
    assert stem(PurePath("a/b.c.nii.gz")) == "b.c"
    assert stem(PurePath("a/b.NII")) == "b"
    assert not is_nifti(PurePath("a/b.nii.json"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [("Zoé (pilot)", "Zoe_pilot"), ("a/b", "a_b"), ("王", "_"), ("..", "_"), ("1-2+3", "1-2+3")],
)
def test_file_safe_names_hold_no_character_that_a_file_system_refuses(text, expected):
    assert file_safe(text) == expected


@pytest.mark.parametrize("regex", [r"(\w+)+!", r"(a|a)*!", r"(.*)(.*)(.*)(.*)(.*)(.*)(.*)!"])
def test_an_expression_that_runs_for_ever_is_refused(regex, monkeypatch):
    """As a dataset's file from somebody else may hold; no error message, no end."""
    monkeypatch.setattr(names, "SLOWEST_S", 0.5)
    with pytest.raises(ValueError, match=r"takes more than 0\.5 s"):
        subjects_of([PurePath("a" * 300)], regex)


@pytest.mark.parametrize("regex", ["(sub", "(" * 5000 + ")" * 5000, "a{99999999999999999999}"])
def test_what_is_no_expression_is_refused(regex):
    """Whatever Python's own compiler makes of it."""
    with pytest.raises(ValueError, match=r"."):
        subjects_of([PurePath("sub-1/t2.nii")], regex)


@pytest.mark.parametrize("regex", [r"^(\w+?)_", r"(\w+?)_\w+_(?:t1|t2)", None])
def test_a_process_of_its_own_finds_the_same_subjects(regex):
    """Expressions with several repeats are searched for elsewhere."""
    paths = [PurePath(f"p{i}_run_t2.nii.gz") for i in range(3)] + [PurePath("other.nii")]
    expected = [subject_of(p, re.compile(regex) if regex else None) for p in paths]
    assert subjects_of(paths, regex) == expected
