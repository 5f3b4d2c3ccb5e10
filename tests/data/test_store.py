from __future__ import annotations

import dataclasses
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hsf_tune.config import StoreConfig
from hsf_tune.data import store as store_module
from hsf_tune.data.cases import find_cases
from hsf_tune.data.reading import read_image, to_original
from hsf_tune.data.store import open_store
from hsf_tune.errors import DataError


@pytest.fixture
def study(tmp_path, write_nifti, datasets_config):
    """Four subjects of different sizes on disk; their cases and configuration."""
    random = np.random.default_rng(0)
    for i in range(4):
        size = (6 + i, 9, 12)
        folder = tmp_path / "study" / f"sub-{i}"
        write_nifti(folder / "t2.nii.gz", random.normal(500, 80, size).astype(np.float32))
        write_nifti(folder / "seg.nii.gz", random.integers(0, 3, size).astype(np.uint8))
    datasets = datasets_config()
    return find_cases(datasets), datasets


@pytest.fixture
def config(tmp_path):
    return StoreConfig(path=str(tmp_path / "cache"))


@pytest.fixture
def reads(monkeypatch):
    """Names of the images that are read from their source."""
    seen = []

    def counted(path):
        seen.append(path.parent.name)
        return read_image(path)

    monkeypatch.setattr(store_module, "read_image", counted)
    return seen


def test_cases_come_back_as_they_were_read_and_are_read_once(study, config, reads):
    cases, datasets = study
    steps = []
    store = open_store(cases, datasets, config, progress=lambda n, total: steps.append((n, total)))
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]
    again = open_store(cases, datasets, config)
    assert sorted(reads) == ["sub-0", "sub-1", "sub-2", "sub-3"]
    assert again.key == store.key
    assert again.case_ids == [case.id for case in cases]
    for case in cases:
        image, grid = read_image(case.mri)
        stored = again.load(case.id)
        np.testing.assert_array_equal(stored.image[0], image)
        assert (stored.image.dtype, stored.labels.dtype) == (np.float32, np.uint8)
        assert stored.image.shape[1:] == stored.labels.shape == grid.padded_size
        assert stored.size_before_padding == grid.size_before_padding
        np.testing.assert_array_equal(stored.affine, grid.affine)
        assert to_original(stored.labels, stored.grid).shape == grid.file_shape


def test_no_worker_can_write_into_the_shared_arrays(study, config):
    stored = open_store(*study, config).load(study[0][0].id)
    for array in (stored.image, stored.labels):
        with pytest.raises(ValueError, match="read-only"):
            array += 1


def test_a_changed_file_makes_another_store(study, config, reads, write_nifti):
    cases, datasets = study
    first = open_store(cases, datasets, config)
    write_nifti(cases[1].label, np.zeros((7, 9, 12), np.uint8))
    second = open_store(cases, datasets, config)
    assert second.key != first.key
    changed = {id for id in second.case_ids if second.fingerprints[id] != first.fingerprints[id]}
    assert changed == {cases[1].id}
    assert second.load(cases[1].id).labels.sum() == 0


def test_a_change_that_keeps_size_and_times_is_not_missed(study, config):
    """Written within the clock's resolution, or with its time put back."""
    cases, datasets = study
    first = open_store(cases, datasets, config)
    status = cases[0].mri.stat()
    content = bytearray(cases[0].mri.read_bytes())
    content[4] ^= 1  # the gzip header's time stamp
    cases[0].mri.write_bytes(content)
    os.utime(cases[0].mri, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert open_store(cases, datasets, config).key != first.key


def test_another_label_mapping_makes_another_store(study, config, datasets_config):
    cases, datasets = study
    other = open_store(cases, datasets_config(labels={1: 2, 2: 1}), config)
    assert other.key != open_store(cases, datasets, config).key


def test_files_that_did_not_change_are_not_hashed_again(study, config, monkeypatch):
    cases, datasets = study
    monkeypatch.setattr("hsf_tune.data.cache._SETTLED_NS", 0)  # as for files of yesterday
    open_store(cases, datasets, config)
    monkeypatch.setattr("hsf_tune.data.cache._sha256", lambda path: pytest.fail(f"hashed {path}"))
    open_store(cases, datasets, config)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(path.read_bytes()[:-100]),
        lambda path: path.write_bytes(path.read_bytes()[:-100] + b"\x7f" * 100),
    ],
    ids=["gone", "cut short", "overwritten"],
)
@pytest.mark.parametrize("kind", ["image", "labels"])
def test_a_damaged_array_is_made_anew_and_only_that_one(damage, kind, study, config, reads):
    cases, datasets = study
    store = open_store(cases, datasets, config)
    entry = store.cases[cases[2].id][kind]
    before = np.array(getattr(store.load(cases[2].id), kind))
    reads.clear()
    damage(store.folder / entry["file"])
    repaired = open_store(cases, datasets, config)
    assert reads == ["sub-2"]
    np.testing.assert_array_equal(getattr(repaired.load(cases[2].id), kind), before)


def test_a_bit_that_flipped_without_a_trace_is_noticed_when_the_case_is_used(study, config):
    """Same size, same time: only the checksum tells. The next start repairs it."""
    cases, datasets = study
    store = open_store(cases, datasets, config)
    path = store.folder / store.cases[cases[0].id]["image"]["file"]
    status = path.stat()
    content = bytearray(path.read_bytes())
    content[-5] ^= 64
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    opened = open_store(cases, datasets, config)
    with pytest.raises(DataError, match=f"{cases[0].id}, is damaged"):
        opened.load(cases[0].id)
    open_store(cases, datasets, config).load(cases[0].id)


@pytest.mark.parametrize("content", ["", "{}", '{"version": 0, "cases": {}}', '{"version": 1'])
def test_a_damaged_manifest_means_building_again(content, study, config, reads):
    store = open_store(*study, config)
    (store.folder / "manifest.json").write_text(content)
    open_store(*study, config).load(study[0][0].id)
    assert len(reads) == 8


def test_an_interrupted_build_leaves_nothing_that_counts(study, config, monkeypatch):
    cases, datasets = study

    def interrupted(folder, case, datasets):
        if case.id == cases[3].id:
            raise KeyboardInterrupt
        return build(folder, case, datasets)

    build = store_module._build_case
    with monkeypatch.context() as patch:
        patch.setattr(store_module, "_build_case", interrupted)
        with pytest.raises(KeyboardInterrupt):
            open_store(cases, datasets, config)
    store = open_store(cases, datasets, config)
    assert [store.load(id).image.dtype for id in store.case_ids] == [np.float32] * 4


def test_all_files_that_can_not_be_read_are_told_at_once(study, config, write_nifti):
    cases, datasets = study
    cases[0].mri.write_bytes(cases[0].mri.read_bytes()[:500])
    write_nifti(cases[2].label, np.full((8, 9, 12), 9, np.uint8))
    with pytest.raises(DataError) as caught:
        open_store(cases, datasets, config)
    first, second = str(caught.value).splitlines()
    assert "sub-0/t2.nii.gz can't be read" in first
    assert "sub-2/seg.nii.gz holds label 9, which datasets.datasets.study.labels" in second


def test_a_source_file_that_vanished_is_named(study, config):
    cases, datasets = study
    cases[1].label.unlink()
    with pytest.raises(DataError, match=r"sub-1/seg\.nii\.gz can't be read"):
        open_store(cases, datasets, config)


def test_a_cache_that_can_not_be_written_names_the_setting(study, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"store\.path"):
        open_store(*study, StoreConfig(path=str(tmp_path / "file")))


def test_the_cache_is_where_the_environment_says(study, tmp_path, monkeypatch):
    monkeypatch.setenv("HSF_TUNE_CACHE", str(tmp_path / "elsewhere"))
    assert open_store(*study, StoreConfig()).folder.is_relative_to(tmp_path / "elsewhere")


def test_the_least_recently_used_store_is_dropped_but_never_one_in_use(study, config):
    cases, datasets = study
    limit = dataclasses.replace(config, limit_gb=1e-9)
    held = open_store(cases[:1], datasets, config)
    free = open_store(cases[:2], datasets, config).folder
    own = open_store(cases[:3], datasets, limit, make_room=True)
    assert (held.folder.exists(), free.exists(), own.folder.exists()) == (True, False, True)
    held.load(cases[0].id)
    kept = held.folder
    del held
    open_store(cases, datasets, limit, make_room=True)
    assert not kept.exists()


def test_a_store_can_be_pickled_and_stays_in_use_where_it_arrives(study, config):
    cases, datasets = study
    store = open_store(cases[:1], datasets, config)
    arrived = pickle.loads(pickle.dumps(store))
    folder = store.folder
    del store
    open_store(cases, datasets, dataclasses.replace(config, limit_gb=1e-9), make_room=True)
    assert folder.exists()
    assert arrived.load(cases[0].id).image.shape == (1, 8, 16, 16)


CHILD = """
import json, sys
from hsf_tune.config import StoreConfig, config_from_dict
from hsf_tune.data.cases import find_cases
from hsf_tune.data.store import open_store
plain, cache = json.loads(sys.argv[1])
datasets = config_from_dict({"datasets": plain}).datasets
built = []
sys.stdin.readline()  # all start at once
store = open_store(find_cases(datasets), datasets, StoreConfig(path=cache),
                   progress=lambda n, total: built.append(n))
total = sum(float(store.load(id).labels.sum()) for id in store.case_ids)
print(json.dumps([store.key, len(built), total]))
"""


def test_processes_that_start_at_once_build_one_store_together(study, config):
    """One builds, the others wait for it; all read the same."""
    plain = dataclasses.asdict(study[1])
    command = [sys.executable, "-c", CHILD, json.dumps([plain, config.path])]
    children = [
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(store_module.__file__).parents[2],
        )
        for _ in range(4)
    ]
    for child in children:
        child.stdin.write("\n")
        child.stdin.flush()
    results = [json.loads(child.communicate(timeout=60)[0]) for child in children]
    assert len({(key, total) for key, _, total in results}) == 1
    assert sorted(built for _, built, _ in results) == [0, 0, 0, 4]


def test_a_file_that_changes_between_its_hashing_and_its_reading_is_refused(
    study, config, monkeypatch
):
    """Else a store would hold the new image under the old one's fingerprint, for ever."""
    cases, datasets = study
    kept = store_module.read_image

    def changed_meanwhile(path):
        with path.open("ab") as file:
            file.write(b"\0" * 512)
        return kept(path)

    monkeypatch.setattr(store_module, "read_image", changed_meanwhile)
    with pytest.raises(DataError, match="changed while being read"):
        open_store(cases, datasets, config)
    monkeypatch.undo()
    assert open_store(cases, datasets, config).case_ids
