"""Preprocess every case once, and share the result read-only between all workers.

A store is a folder named by the content of its source files and the way they are read;
if either changes, it is another folder. Its `manifest.json` is written last, so a folder
without one is unfinished. Arrays are mapped, not loaded: a hundred workers of a machine
share one copy, and none can write into it. What happens to the values is decided in
`reading.py`, where the folders are and how long they live in `cache.py`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from filelock import FileLock

from hsf_tune.config import DatasetsConfig, StoreConfig
from hsf_tune.data.cache import (
    MANIFEST,
    THREADS,
    Guard,
    cache_folder,
    fingerprints,
    is_array_name,
    make_entry,
    mark_used,
    read_json,
    remove_least_used,
)
from hsf_tune.data.cases import Case
from hsf_tune.data.reading import Array, Grid, read_image, read_labels
from hsf_tune.errors import DataError
from hsf_tune.files import replacing, write_text

Progress = Callable[[int, int], None]  # cases done, cases in all

_VERSION = 1  # raise it whenever the arrays that are written change
_ARRAYS = ("image", "labels")


@dataclass(frozen=True)
class StoredCase:
    """One preprocessed case.

    Attributes:
        image: (1, X, Y, Z) float32, read-only; RAS+, z-normalised, zero where padded.
        labels: (X, Y, Z) uint8, read-only; 0 is background and padding.
        grid: how both lie on the input's own voxel grid; see `reading.to_original`.
    """

    id: str
    image: Array
    labels: Array
    grid: Grid

    @property
    def affine(self) -> Array:
        """(4, 4) voxel to mm, RAS+, of the padded arrays."""
        return self.grid.affine

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Voxel sides along the arrays' axes."""
        return self.grid.spacing_mm

    @property
    def size_before_padding(self) -> tuple[int, ...]:
        """(X, Y, Z) of the image inside the padded arrays, in RAS+."""
        return self.grid.size_before_padding

    @property
    def crop(self) -> tuple[slice, slice, slice]:
        """Where the image lies inside the padded arrays."""
        return self.grid.crop


@dataclass
class Store:
    """Preprocessed cases on this machine's disk; cheap to pickle and to open.

    Attributes:
        key: fingerprint of all source files and of how they were read.
        fingerprints: case id -> sha256 over the image's and the label map's sha256.
    """

    key: str
    folder: Path
    cases: Mapping[str, Mapping[str, Any]]
    guard: Guard = field(repr=False)
    _verified: set[str] = field(default_factory=set, repr=False)

    @property
    def case_ids(self) -> list[str]:
        """Ids of all cases, in discovery order."""
        return list(self.cases)

    @property
    def fingerprints(self) -> dict[str, str]:
        return {id: entry["fingerprint"] for id, entry in self.cases.items()}

    @property
    def size_bytes(self) -> int:
        return sum(entry[name]["bytes"] for entry in self.cases.values() for name in _ARRAYS)

    def largest(self, case_ids: Iterable[str] | None = None) -> str:
        """The id of the case with the most voxels, which needs the most memory."""
        return max(case_ids or self.cases, key=lambda id: int(np.prod(self.grid(id).padded_size)))

    def grid(self, case_id: str) -> Grid:
        """How a case lies on its file's voxel grid; opens no array."""
        return Grid.from_dict(self.cases[case_id]["grid"])

    def load(self, case_id: str) -> StoredCase:
        """Map one case's arrays; their checksums are compared on first use in a process.

        Raises:
            DataError: a file is damaged. Its time is changed, so that opening the store
                again looks at it and makes it anew.
        """
        entry = self.cases[case_id]
        arrays = [self._mapped(case_id, entry[name]) for name in _ARRAYS]
        self._verified.add(case_id)
        return StoredCase(case_id, arrays[0], arrays[1], Grid.from_dict(entry["grid"]))

    def _mapped(self, case_id: str, record: Mapping[str, Any]) -> Array:
        path = self.folder / record["file"]
        try:
            if case_id not in self._verified and _checksum(path) != record["checksum"]:
                raise ValueError("its checksum differs")
            return np.load(path, mmap_mode="r")
        except (OSError, ValueError, EOFError) as error:
            with contextlib.suppress(OSError):
                os.utime(path)
            raise DataError(
                f"{path}, the preprocessed copy of {case_id}, is damaged ({error}). Start again:"
                " it will be made anew. If it happens again, check the disk, or set store.path."
            ) from error


def open_store(
    cases: Sequence[Case],
    datasets: DatasetsConfig,
    store: StoreConfig,
    *,
    progress: Progress | None = None,
    make_room: bool = False,
) -> Store:
    """Open the store of these cases, building or repairing it where needed.

    Safe to call from several processes at once: one builds, the others wait. Opening
    what is built reads no image; it takes milliseconds.

    Args:
        make_room: remove the least recently used stores beyond `store.limit_gb`; for a
            training only. What looks, plans or reports removes nothing.

    Raises:
        DataError: an image or label map can't be read or does not fit (all such files in
            one message), or the cache's folder can't be written.
    """
    root = cache_folder(store.path)
    try:
        hashes = fingerprints((p for case in cases for p in (case.mri, case.label)), root)
        prints = {case.id: _digest([hashes[case.mri], hashes[case.label]]) for case in cases}
        key = _key(cases, datasets, prints)
        folder = root / key
        guard = Guard(folder)
        entries = _sound_entries(folder)
        if [id for id in prints if id not in entries]:
            with FileLock(f"{folder}.lock"):
                entries = _sound_entries(folder)
                wanting = [case for case in cases if case.id not in entries]
                entries |= _built(folder, wanting, datasets, prints, progress)
                _require_unchanged(wanting, hashes, root)
                ordered = {case.id: entries[case.id] for case in cases}
                write_text(folder / MANIFEST, json.dumps({"version": _VERSION, "cases": ordered}))
        else:
            mark_used(folder)
        if make_room:
            remove_least_used(root, folder, store.limit_gb * 1e9)
    except OSError as error:
        raise DataError(
            f"{root} can't hold the preprocessed images ({error}). Make room there, or set"
            " store.path to a folder on another local disk."
        ) from error
    return Store(key, folder, {case.id: entries[case.id] for case in cases}, guard)


def _require_unchanged(cases: Sequence[Case], hashes: Mapping[Path, str], root: Path) -> None:
    """Refuse what was written from files that changed between their hashing and their reading.

    Raises:
        DataError: names them; no store of them was made.
    """
    now = fingerprints((p for case in cases for p in (case.mri, case.label)), root)
    changed = [str(path) for path, found in now.items() if found != hashes[path]]
    if changed:
        raise DataError(
            f"{', '.join(changed)} changed while being read. Start again once nobody writes there."
        )


def _key(cases: Sequence[Case], datasets: DatasetsConfig, prints: Mapping[str, str]) -> str:
    mappings = {name: sorted(d.labels.items()) for name, d in datasets.datasets.items()}
    rows = sorted([case.id, prints[case.id], mappings[case.dataset]] for case in cases)
    return _digest([_VERSION, rows])[:32]


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _sound_entries(folder: Path) -> dict[str, Any]:
    """The manifest's cases whose files are as they were written."""
    manifest = read_json(folder / MANIFEST)
    try:
        if manifest["version"] != _VERSION:
            return {}
        return {
            id: entry
            for id, entry in manifest["cases"].items()
            if all(_sound(folder, entry[name]) for name in _ARRAYS)
        }
    except (TypeError, KeyError, AttributeError):  # none, or not as it is written here
        return {}


def _sound(folder: Path, record: Mapping[str, Any]) -> bool:
    """Same size and time as when written; else (copied, touched, damaged) the checksum."""
    if not is_array_name(record["file"]):
        return False
    path = folder / record["file"]
    try:
        status = path.stat()
        if status.st_size != record["bytes"]:
            return False
        return status.st_mtime_ns == record["mtime_ns"] or _checksum(path) == record["checksum"]
    except OSError:
        return False


def _built(
    folder: Path,
    cases: Sequence[Case],
    datasets: DatasetsConfig,
    prints: Mapping[str, str],
    progress: Progress | None,
) -> dict[str, Any]:
    """Manifest entries of newly written cases; threads, as reading is mostly unzipping."""
    make_entry(folder)
    entries: dict[str, Any] = {}
    faults: dict[str, str] = {}
    with ThreadPoolExecutor(THREADS) as pool:
        jobs = {pool.submit(_build_case, folder, case, datasets): case for case in cases}
        for done, job in enumerate(as_completed(jobs), start=1):
            id = jobs[job].id
            try:
                entries[id] = {**job.result(), "fingerprint": prints[id]}
            except DataError as error:
                faults[id] = str(error)
            except OSError:
                pool.shutdown(cancel_futures=True)
                raise
            if progress is not None:
                progress(done, len(jobs))
    if faults:
        raise DataError("\n".join(faults[case.id] for case in cases if case.id in faults))
    return entries


def _build_case(folder: Path, case: Case, datasets: DatasetsConfig) -> dict[str, Any]:
    image, grid = read_image(case.mri)
    key = f"datasets.datasets.{case.dataset}.labels"
    labels = read_labels(case.label, grid, datasets.datasets[case.dataset].labels, key)
    name = _digest(case.id)[:16]  # ids may be too long for a file's name
    return {
        "image": _written(folder / f"{name}.image.npy", image[None]),
        "labels": _written(folder / f"{name}.labels.npy", labels),
        "grid": grid.to_dict(),
    }


def _written(path: Path, array: Array) -> dict[str, Any]:
    with replacing(path) as temporary:
        np.save(temporary, np.ascontiguousarray(array))
        checksum = _checksum(temporary)
    status = path.stat()
    return {
        "file": path.name,
        "bytes": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "checksum": checksum,
    }


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        state = xxhash.xxh3_64()
        while block := file.read(1 << 20):
            state.update(block)
    return state.hexdigest()
