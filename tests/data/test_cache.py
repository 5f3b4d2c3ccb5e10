"""What the cache takes for its own, and what it leaves alone whatever folder it is given."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from hsf_tune.config import StoreConfig
from hsf_tune.data.cache import MARKER, cache_folder, remove_least_used
from hsf_tune.data.cases import find_cases
from hsf_tune.data.store import open_store
from hsf_tune.errors import DataError

TINY_GB = 1e-9
KEY = "0123456789abcdef" * 2


def contents(root: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


@pytest.fixture
def study(tmp_path, write_nifti, datasets_config):
    """Two subjects; their cases and configuration."""
    random = np.random.default_rng(0)
    for name in ("sub-0", "sub-1"):
        folder = tmp_path / "study" / name
        write_nifti(folder / "t2.nii.gz", random.normal(500, 80, (8, 9, 12)).astype(np.float32))
        write_nifti(folder / "seg.nii.gz", random.integers(0, 3, (8, 9, 12)).astype(np.uint8))
    datasets = datasets_config()
    return find_cases(datasets), datasets


@pytest.fixture
def entry(tmp_path):
    """Make what the cache takes for an entry of its own, in `tmp_path/root`."""

    def make(name=KEY, marker=True):
        folder = tmp_path / "root" / name
        folder.mkdir(parents=True)
        (folder / f"{'ab' * 8}.image.npy").write_bytes(b"x" * 1000)
        if marker:
            (folder / MARKER).touch()
        return folder

    return make


def removed(tmp_path, limit_bytes=1.0):
    return remove_least_used(tmp_path / "root", tmp_path / "root" / "kept", limit_bytes)


@pytest.mark.parametrize("inside", ["cases", "hsf_tune-cases", "."])
@pytest.mark.parametrize("how", ["setting", "variable"])
def test_a_users_folders_outlive_a_cache_that_is_put_among_them(
    inside, how, study, tmp_path, monkeypatch
):
    """The folder of the scans named as cache, whatever their own folder is called."""
    scans = tmp_path / "scans"
    for i in range(5):
        subject = scans / inside / f"sub-{i:02d}"
        subject.mkdir(parents=True)
        (subject / "t2.nii.gz").write_bytes(b"scan" * 1000)
    before = contents(scans)
    monkeypatch.setenv("HSF_TUNE_CACHE", str(scans))
    path = str(scans) if how == "setting" else None
    open_store(*study, StoreConfig(path=path, limit_gb=TINY_GB), make_room=True)
    after = contents(scans)
    assert {name: after.get(name) for name in before} == before


def test_an_entry_is_removed_once_the_limit_is_passed(entry, tmp_path):
    """What the other tests below leave alone, but with marker and form."""
    folder = entry()
    assert removed(tmp_path, limit_bytes=1e6) == []
    assert removed(tmp_path) == [folder]
    assert not folder.exists()


def _other_name(entry, tmp_path):
    return entry("0123456789abcdef-scans")


def _no_marker(entry, tmp_path):
    return entry(marker=False)


def _foreign_file(entry, tmp_path):
    folder = entry()
    (folder / "notes.txt").write_text("mine")
    return folder


def _foreign_folder(entry, tmp_path):
    folder = entry()
    (folder / "sub-01").mkdir()
    return folder


def _linked_file(entry, tmp_path):
    folder = entry()
    (tmp_path / "scan.npy").write_bytes(b"scan")
    (folder / f"{'cd' * 8}.image.npy").symlink_to(tmp_path / "scan.npy")
    return folder


def _linked_folder(entry, tmp_path):
    folder = entry("elsewhere")
    (folder.parent / KEY).symlink_to(folder)
    return folder


FOREIGN = (_other_name, _no_marker, _foreign_file, _foreign_folder, _linked_file, _linked_folder)


@pytest.mark.parametrize("make", FOREIGN)
def test_what_lacks_marker_or_form_is_left_whole(make, entry, tmp_path):
    """Only a folder of the cache's own making goes, with nothing in it that is not its own."""
    make(entry, tmp_path)
    before = contents(tmp_path)
    assert removed(tmp_path) == []
    assert {k: v for k, v in contents(tmp_path).items() if not k.endswith(".use")} == before


def test_only_a_training_makes_room(study, tmp_path):
    """A dry run, a report or a check opens the store too, and removes nothing."""
    cases, datasets = study
    config = StoreConfig(path=str(tmp_path / "cache"), limit_gb=TINY_GB)
    older = open_store(cases[:1], datasets, config).folder
    newer = open_store(cases, datasets, config).folder
    assert older.exists()
    assert newer.exists()
    open_store(cases, datasets, config, make_room=True)
    assert not older.exists()


@pytest.mark.parametrize("absolute", [True, False])
def test_a_manifest_can_not_name_files_that_are_not_the_caches(absolute, study, tmp_path):
    """A cache from somebody else, whose manifest leads to a file of the user's."""
    config = StoreConfig(path=str(tmp_path / "cache"))
    folder = open_store(*study, config).folder
    secret = tmp_path / "secret"
    secret.write_text("mine")
    manifest = json.loads((folder / "manifest.json").read_text())
    for entry in manifest["cases"].values():
        entry["image"] |= {"bytes": 4, "mtime_ns": secret.stat().st_mtime_ns}
        entry["image"]["file"] = str(secret) if absolute else "../../../secret"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    store = open_store(*study, config)
    assert [store.load(case).image.shape for case in store.case_ids] == [(1, 8, 16, 16)] * 2
    assert secret.read_text() == "mine"


@pytest.mark.parametrize("content", ["[]", '{"version": 1}', '{"version": 1, "cases": {"a": 1}}'])
def test_a_manifest_of_another_shape_means_building_again(content, study, tmp_path):
    """Whoever wrote it, it is no reason for a traceback."""
    config = StoreConfig(path=str(tmp_path / "cache"))
    (open_store(*study, config).folder / "manifest.json").write_text(content)
    assert len(open_store(*study, config).case_ids) == 2


def test_a_reader_deletes_no_array_that_it_finds_damaged(study, tmp_path):
    """It is made anew when the store is next opened."""
    config = StoreConfig(path=str(tmp_path / "cache"))
    store = open_store(*study, config)
    case = store.case_ids[0]
    path = store.folder / store.cases[case]["image"]["file"]
    path.write_bytes(path.read_bytes()[:-4] + b"\x7f" * 4)
    with pytest.raises(DataError, match="damaged"):
        store.load(case)
    assert path.exists()
    assert open_store(*study, config).load(case).image.shape == (1, 8, 16, 16)


def test_the_cache_has_a_folder_of_its_own_name(tmp_path):
    """So that no folder of the user's is taken for it."""
    assert cache_folder(str(tmp_path)) == tmp_path / "hsf_tune-cases"
