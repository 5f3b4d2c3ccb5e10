"""What a pattern finds through links, and what it says of places it can't look into."""

from __future__ import annotations

import os
import time

import pytest

from hsf_tune.data import listing as module
from hsf_tune.data.cases import discover
from hsf_tune.data.listing import Listing

PATTERNS = ("**/t2.nii.gz", "*/t2.nii.gz", "sub-*/t2.nii.gz", "**/*t2*")


def sentences(datasets):
    return [str(fault) for fault in discover(datasets)[1]]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_subject_folders_that_are_links_are_subjects(pattern, touch, datasets_config, tmp_path):
    """Three folders and three links to folders elsewhere: six subjects."""
    for i in range(6):
        place = "study" if i < 3 else "elsewhere"
        touch(f"{place}/sub-{i}/t2.nii.gz", f"{place}/sub-{i}/seg.nii.gz")
        if i >= 3:
            (tmp_path / f"study/sub-{i}").symlink_to(tmp_path / f"elsewhere/sub-{i}")
    cases, faults = discover(datasets_config({"t2": (pattern, "seg.nii.gz")}))
    assert faults == []
    assert [case.subject for case in cases] == [f"study/sub-{i}" for i in range(6)]
    assert cases[5].mri == tmp_path / "study/sub-5/t2.nii.gz"


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("what", ["image", "folder", "label"])
def test_a_link_to_nothing_is_a_fault_whatever_the_pattern(
    what, pattern, touch, datasets_config, tmp_path
):
    """Unfetched by git-annex, or on a share that is away: an image, a subject, a label map."""
    touch("study/sub-1/t2.nii.gz", "study/sub-1/seg.nii.gz")
    name = {"image": "sub-2/t2.nii.gz", "folder": "sub-2", "label": "sub-2/seg.nii.gz"}[what]
    if what == "image":
        touch("study/sub-2/seg.nii.gz")
    elif what == "label":
        touch("study/sub-2/t2.nii.gz")
    (tmp_path / "study" / name).symlink_to(tmp_path / "gone")
    cases, faults = discover(datasets_config({"t2": (pattern, "seg.nii.gz")}))
    assert [case.subject for case in cases] == ["study/sub-1"]
    assert [(f.where, f.found) for f in faults] == [
        (str(tmp_path / "study" / name), "is a link to nothing")
    ]


def test_links_that_no_pattern_asks_for_may_lead_nowhere(touch, datasets_config, tmp_path):
    """Of an annex only those files need be fetched that train."""
    touch("study/sub-1/t2.nii.gz", "study/sub-1/seg.nii.gz")
    for name in ("bold.nii.gz", "t2.json", ".lock"):
        (tmp_path / "study/sub-1" / name).symlink_to(tmp_path / "gone")
    assert sentences(datasets_config()) == []


def test_loops_of_links_end(touch, datasets_config, tmp_path):
    """A link to the folder it is in, one to a folder above, and two that lead to each other."""
    touch("study/sub-1/t2.nii.gz", "study/sub-1/seg.nii.gz", "study/a/x", "study/b/x")
    (tmp_path / "study/sub-1/here").symlink_to(".")
    (tmp_path / "study/sub-1/up").symlink_to("..")
    (tmp_path / "study/a/other").symlink_to("../b")
    (tmp_path / "study/b/other").symlink_to("../a")
    (tmp_path / "study/self").symlink_to("self")
    (tmp_path / "study/self.txt").symlink_to("self.txt")
    cases, faults = discover(datasets_config())
    assert [case.mri for case in cases] == [tmp_path / "study/sub-1/t2.nii.gz"]
    (fault,) = faults
    assert fault.where == str(tmp_path / "study/self")


def test_a_file_that_a_link_leads_to_again_counts_once(touch, datasets_config, tmp_path):
    """`latest` beside `run-3`: one image of the subject, not two."""
    touch("study/sub-1/run-3/t2.nii.gz", "study/sub-1/run-3/seg.nii.gz")
    (tmp_path / "study/sub-1/latest").symlink_to("run-3")
    cases, faults = discover(datasets_config())
    assert faults == []
    assert len(cases) == 1


def test_links_that_multiply_are_a_fault_and_not_an_endless_search(
    touch, datasets_config, tmp_path, monkeypatch
):
    """Twenty folders, each with two links to the next: a million ways to the last."""
    monkeypatch.setattr(module, "MOST_REPEATED", 1000)
    touch("study/sub-1/t2.nii.gz", "study/sub-1/seg.nii.gz")
    for i in range(20):
        folder = tmp_path / f"far/{i}"
        folder.mkdir(parents=True)
        for name in "ab":
            (folder / name).symlink_to(tmp_path / f"far/{i + 1}")
    (tmp_path / "far/20").mkdir()
    (tmp_path / "study/far").symlink_to(tmp_path / "far/0")
    start = time.perf_counter()
    assert "by too many ways" in "\n".join(sentences(datasets_config()))
    assert time.perf_counter() - start < 5


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list everything")
def test_a_folder_that_may_not_be_listed_is_a_fault(touch, datasets_config, tmp_path):
    """Its subject would be missing without a word."""
    touch("study/sub-1/t2.nii.gz", "study/sub-1/seg.nii.gz", "study/sub-2/t2.nii.gz")
    (tmp_path / "study/sub-2").chmod(0)
    (sentence,) = sentences(datasets_config())
    assert "sub-2 can't be listed" in sentence


MATCHES = [
    ("*.nii", ["b.nii"]),
    ("**/*.nii", ["a/b/c/d.nii", "a/b/d.nii", "b.nii"]),
    ("a/**/d.nii", ["a/b/c/d.nii", "a/b/d.nii"]),
    ("**/b/**/*.nii", ["a/b/c/d.nii", "a/b/d.nii"]),
    ("**/b/*.nii", ["a/b/d.nii"]),
    ("./a//b/[d].nii", ["a/b/d.nii"]),
    ("*/*/?.nii", ["a/b/d.nii"]),
    ("a", []),
]


@pytest.mark.parametrize(("pattern", "expected"), MATCHES)
def test_patterns_mean_what_they_mean_to_pathlib(pattern, expected, touch, tmp_path):
    """Without links in the way, both find the same files."""
    touch("root/b.nii", "root/a/b/d.nii", "root/a/b/c/d.nii", "root/a/c.txt")
    root = tmp_path / "root"
    files, gaps = Listing(root).match(root, pattern)
    assert ([str(f.relative_to(root)) for f in files], gaps) == (expected, [])
    assert files == sorted(p for p in root.glob(pattern) if p.is_file())


@pytest.mark.parametrize("pattern", ["", "/etc/*", "../*", "a/../b", "a**/b"])
def test_what_leads_out_of_the_folder_is_no_pattern(pattern, touch, tmp_path):
    """Nor is what pathlib refuses."""
    touch("root/a/b")
    with pytest.raises(ValueError, match=r"it|'"):
        Listing(tmp_path / "root").match(tmp_path / "root", pattern)


def test_a_pattern_of_many_stars_takes_no_longer(touch, tmp_path):
    """`**` forty times over, and forty `*` in a name that does not fit."""
    touch(*(f"root/{'/'.join('ab' * 10)}/{i}.nii" for i in range(3)))
    root, start = tmp_path / "root", time.perf_counter()
    assert len(Listing(root).match(root, "**/" * 40 + "*.nii")[0]) == 3
    assert Listing(root).match(root, "**/" + "*a" * 40 + "x")[0] == []
    assert time.perf_counter() - start < 2


@pytest.mark.parametrize("name", [b"sub-\xff", b"sub-\x1b[2J", b"sub-1\nsub-2"])
@pytest.mark.parametrize("part", ["folder", "file"])
def test_names_that_are_no_text_are_a_fault_that_can_be_printed(
    name, part, touch, datasets_config, tmp_path
):
    """Bytes that are not UTF-8, and codes that steer a terminal, go no further."""
    touch("study/sub-1/t2.nii.gz", "study/sub-1/seg.nii.gz")
    strange = os.fsdecode(name)
    folder = f"study/{strange}" if part == "folder" else "study/sub-2"
    file = "t2.nii.gz" if part == "folder" else f"{strange}t2.nii.gz"
    touch(f"{folder}/{file}", f"{folder}/seg.nii.gz")
    cases, faults = discover(datasets_config())
    assert [case.subject for case in cases] == ["study/sub-1"]
    (fault,) = faults
    assert "not UTF-8" in str(fault)
    assert "sub-" in fault.where
    str(fault).encode("utf-8")
    assert "\x1b" not in str(fault)
    assert "\n" not in str(fault)
