"""Keep folders of derived files on one machine: found by content, shared, bounded in size.

What is derived, and how it is checked, is `store.py`'s matter. Here: where the cache is,
fingerprints of source files without reading unchanged ones again, a guard that marks a
folder as in use by a living process, and the removal of what was least recently used. The
cache may be put into any folder, so it takes for its own only what it made: an *entry* is a
folder named by a key that holds a marker and nothing but files with the cache's own names.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import stat
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

from hsf_tune.errors import DataError
from hsf_tune.files import write_text
from hsf_tune.machine import cpu_count

try:
    import fcntl
except ImportError:  # Windows: its open files can't be removed anyway
    fcntl = None  # type: ignore[assignment]

FOLDER = "hsf_tune-cases"  # below the folder that is named as cache
MARKER = ".hsf_tune-entry"  # in each entry from its first moment; what lacks it is not removed
MANIFEST = "manifest.json"  # an entry without one is unfinished
THREADS = min(8, cpu_count())

_ENVIRONMENT = "HSF_TUNE_CACHE"
_INDEX = "sources.json"
_INDEX_ENTRIES = 100_000
_KEY = re.compile(r"[0-9a-f]{32}")
_ARRAY = re.compile(r"[0-9a-f]{16}\.(image|labels)\.npy")
_TEMPORARY = re.compile(r"^\.\d+\.")  # before the name of a file that is being written
_SETTLED_NS = 2_000_000_000  # a file changed later than this before hashing may change unseen


def cache_folder(configured: str | None) -> Path:
    """The cache's folder, created: `store.path`, else HSF_TUNE_CACHE, else the user's.

    Raises:
        DataError: it can't be created or written.
    """
    chosen = configured or os.environ.get(_ENVIRONMENT)
    if chosen is None:
        import pooch  # an import that only needs to happen where nothing is configured

        chosen = str(pooch.os_cache("hsf_tune"))
    folder = Path(chosen).expanduser().resolve() / FOLDER
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(13, "no permission to write")
    except OSError as error:
        raise DataError(
            f"{folder} can't be written ({error.strerror}), but preprocessed images are kept"
            f" there. Set store.path, or the variable {_ENVIRONMENT}, to a folder on local disk."
        ) from error
    return folder


def fingerprints(paths: Iterable[Path], folder: Path) -> dict[Path, str]:
    """sha256 of each file; one whose size and times are as when last hashed is not read.

    Raises:
        DataError: a file is gone or can't be read.
    """
    index_path = folder / _INDEX
    index = _read_index(index_path)
    found: dict[Path, str] = {}
    stale: dict[Path, list[int]] = {}
    for path in dict.fromkeys(paths):
        stamp = _stamp(path)
        known = index.get(str(path.absolute()))
        if known is not None and known[:3] == stamp and known[3] - max(stamp[1:]) > _SETTLED_NS:
            found[path] = known[4]
        else:
            stale[path] = stamp
    if stale:
        now = time.time_ns()
        with ThreadPoolExecutor(THREADS) as pool:
            hashes = dict(zip(stale, pool.map(_sha256, stale), strict=True))
        found |= hashes
        fresh = {str(p.absolute()): [*stale[p], now, hashes[p]] for p in stale}
        merged = {k: v for k, v in _read_index(index_path).items() if k not in fresh} | fresh
        kept = dict(list(merged.items())[-_INDEX_ENTRIES:])
        write_text(index_path, json.dumps(kept))
    return found


class Guard:
    """Marks `<folder>.use` as in use for as long as this object, and its process, live.

    Pickling keeps the mark's place, and unpickling takes it up again.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder.with_name(f"{folder.name}.use")
        self._file: IO[bytes] = self.path.open("ab")
        if fcntl is not None:
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(self._file, fcntl.LOCK_SH)

    def __del__(self) -> None:
        file = getattr(self, "_file", None)
        if file is not None:
            file.close()

    def __getstate__(self) -> Path:
        return self.path

    def __setstate__(self, path: Path) -> None:
        self.__init__(path.with_suffix(""))  # type: ignore[misc]


def make_entry(folder: Path) -> None:
    """Make an entry's folder, or what an interrupted process left of it, the cache's own."""
    folder.mkdir(exist_ok=True)
    (folder / MARKER).touch()


def is_array_name(name: object) -> bool:
    """Whether it is the name of an array in an entry, and so no path to anywhere else."""
    return isinstance(name, str) and _ARRAY.fullmatch(name) is not None


def mark_used(folder: Path) -> None:
    """Remember that the folder was used now."""
    with contextlib.suppress(OSError):  # another user's folder, which may be read
        os.utime(folder / MANIFEST)


def remove_least_used(root: Path, keep: Path, limit_bytes: float) -> list[Path]:
    """Remove entries of `root`, least recently used first, until they fit the limit.

    `keep`, any entry that a living process guards, and whatever is no entry stay, whatever
    their size.

    Returns:
        The entries removed.
    """
    sizes = {folder: _size_bytes(folder) for folder in root.iterdir() if _files_of(folder)}
    total = sum(sizes.values())
    removed = []
    for folder in sorted(sizes, key=_last_used):
        if total <= limit_bytes:
            break
        if folder == keep:
            continue
        with _unused(folder) as free:
            if free and _remove(folder):
                total -= sizes[folder]
                removed.append(folder)
    return removed


def read_json(path: Path) -> Any:
    """The content of a JSON file; None where there is none or it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


@contextlib.contextmanager
def _unused(folder: Path) -> Iterator[bool]:
    """Whether no living process guards the folder; while True is held, none can begin to."""
    with folder.with_name(f"{folder.name}.use").open("ab") as file:
        if fcntl is None:
            yield True
            return
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        yield True


def _files_of(folder: Path) -> list[Path]:
    """The files of an entry, its manifest first and its marker last; none where it is no entry."""
    try:
        if not _KEY.fullmatch(folder.name) or folder.is_symlink():
            return []
        files = {path: _rank(path) for path in folder.iterdir()}
    except OSError:  # no folder, or gone at this moment
        return []
    own = None not in files.values() and folder / MARKER in files
    return sorted(files, key=lambda path: files[path] or 0) if own else []


def _rank(path: Path) -> int | None:
    """When a file of an entry goes; None for what the cache did not write."""
    if not stat.S_ISREG(path.lstat().st_mode):
        return None
    if path.name in (MANIFEST, MARKER):
        return 0 if path.name == MANIFEST else 2
    name = _TEMPORARY.sub("", path.name)
    return 1 if name == MANIFEST or is_array_name(name) else None


def _remove(folder: Path) -> bool:
    """Remove an entry file by file, so that what somebody puts there meanwhile stays."""
    try:
        for path in _files_of(folder):
            path.unlink(missing_ok=True)
        folder.rmdir()
    except OSError:
        return False
    return True


def _size_bytes(folder: Path) -> int:
    """Of an entry; 0 for what another process removes at this moment."""
    total = 0
    with contextlib.suppress(OSError):
        for path in _files_of(folder):
            total += path.lstat().st_size
    return total


def _last_used(folder: Path) -> float:
    with contextlib.suppress(OSError):
        return (folder / MANIFEST).stat().st_mtime
    return 0.0  # unfinished and abandoned, or being built: then it is guarded


def _read_index(path: Path) -> dict[str, list[Any]]:
    index = read_json(path)
    return index if isinstance(index, dict) else {}


def _stamp(path: Path) -> list[int]:
    try:
        status = path.stat()
    except OSError as error:
        raise _unreadable(path, error) from error
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> DataError:
    return DataError(
        f"{path} can't be read ({error.strerror}); expected a file that is there and may be read."
        " Bring it back, or correct its permissions."
    )
