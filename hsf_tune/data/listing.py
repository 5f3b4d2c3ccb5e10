"""List what lies below a dataset's folder, through links, and match it with glob patterns.

pathlib's `**` passes over folders that are links, and its other patterns over links to
nothing, both without a word. Here every link is followed or told of: a file counts
whichever way leads to it, and what may hold one but can't be looked into is a gap.
Hidden names are passed over. What a file is for is decided in `cases.py`.
"""

from __future__ import annotations

import fnmatch
import os
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from hsf_tune.data.names import is_nifti

MOST_REPEATED = 100_000  # entries listed again below links to what was listed already
_NOT_OURS = "lost+found"  # of the file system, and closed to users
_FETCH = "Fetch what it stands for (datalad get, git annex get), or remove the link."
_OPEN = "Correct its permissions, or take it out of the dataset."


@dataclass(frozen=True)
class Gap:
    """A place that can't be looked into; `found` goes on from its path."""

    path: Path
    found: str
    todo: str


@dataclass
class _Folder:
    folders: dict[str, _Folder] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    gaps: dict[str, Gap] = field(default_factory=dict)
    closed: Gap | None = None  # where the folder itself can't be read


class Listing:
    """The files below a folder, read once.

    A link to a folder on the way to it is not entered: there is no end to it.

    Attributes:
        endless: a folder to which links lead again and again, or None; the listing is then
            not complete.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.endless: Path | None = None
        self._top = _Folder()
        self._read()

    def match(self, start: Path, pattern: str) -> tuple[list[Path], list[Gap]]:
        """Sorted files below `start` that a pattern matches, and gaps where more may be.

        Args:
            start: the listed folder, or one below it.
            pattern: `**` stands for any folders.

        Raises:
            ValueError: it is no pattern of files below a folder.
        """
        steps = _steps(pattern)
        node = self._top
        for part in start.relative_to(self.folder).parts:
            node = node.folders[part]
        files: list[Path] = []
        gaps: list[Gap] = []
        todo = [(start, node, _onward({0}, steps))]
        while todo:
            path, node, places = todo.pop()
            gaps += [node.closed] if node.closed else []
            for name in node.files:
                if len(steps) in _taken(name, places, steps):
                    files.append(path / name)
            for name, gap in node.gaps.items():
                if _may_hold(name, _taken(name, places, steps), len(steps)):
                    gaps.append(gap)
            for name, below in node.folders.items():
                reached = _taken(name, places, steps)
                if reached:
                    todo.append((path / name, below, reached))
        return sorted(files), sorted(gaps, key=lambda gap: gap.path)

    def _read(self) -> None:
        own = os.stat(self.folder)
        seen = {(own.st_dev, own.st_ino)}
        repeated = 0
        todo = [(self.folder, self._top, frozenset(seen))]
        while todo:
            path, node, above = todo.pop()
            try:
                entries = [e for e in os.scandir(path) if not e.name.startswith(".")]
            except OSError as error:
                node.closed = Gap(path, f"can't be listed ({error.strerror})", _OPEN)
                continue
            for entry in entries:
                key = _look(entry, node)
                if key is None or key in above:
                    continue
                repeated += key in seen
                seen.add(key)
                below = node.folders.setdefault(entry.name, _Folder())
                todo.append((path / entry.name, below, above | {key}))
            if repeated > MOST_REPEATED:
                self.endless = path
                return


def _look(entry: os.DirEntry[str], node: _Folder) -> tuple[int, int] | None:
    """Note an entry in its folder; device and inode where it is a folder itself."""
    if entry.name == _NOT_OURS:
        return None
    try:
        if entry.is_file(follow_symlinks=False):
            node.files.append(entry.name)
            return None
        status = os.stat(entry.path)
    except FileNotFoundError:
        if entry.is_symlink():
            node.gaps[entry.name] = Gap(Path(entry.path), "is a link to nothing", _FETCH)
        return None
    except OSError as error:
        kind = "is a link that can't be followed" if entry.is_symlink() else "can't be looked at"
        node.gaps[entry.name] = Gap(Path(entry.path), f"{kind} ({error.strerror})", _OPEN)
        return None
    if stat.S_ISDIR(status.st_mode):
        return status.st_dev, status.st_ino
    if stat.S_ISREG(status.st_mode):
        node.files.append(entry.name)
    return None


def _steps(pattern: str) -> list[re.Pattern[str] | None]:
    """An expression for each part of a pattern, None for `**`."""
    path = PurePath(pattern)
    if path.is_absolute() or path.drive:
        raise ValueError("it begins at the root")
    if not path.parts:
        raise ValueError("it is empty")
    for part in path.parts:
        if part == "..":
            raise ValueError("'..' leads out of the folder")
        if "**" in part and part != "**":
            raise ValueError("'**' stands for whole folders")
    return [None if p == "**" else re.compile(fnmatch.translate(p)) for p in path.parts]


Steps = Sequence[re.Pattern[str] | None]


def _onward(places: set[int], steps: Steps) -> set[int]:
    """Places in a pattern, and those that follow where `**` stands for no folder."""
    for place in sorted(places):
        while place < len(steps) and steps[place] is None:
            place += 1
            places.add(place)
    return places


def _taken(name: str, places: set[int], steps: Steps) -> set[int]:
    """The places reached by going through one more name."""
    reached = set()
    for place in places:
        if place < len(steps):
            step = steps[place]
            if step is None:
                reached.add(place)
            elif step.match(name):
                reached.add(place + 1)
    return _onward(reached, steps)


def _may_hold(name: str, reached: set[int], end: int) -> bool:
    """Whether a gap of that name may be an image, or a folder with one, that a pattern asks for."""
    if is_nifti(PurePath(name)):
        return end in reached
    return "." not in name and any(place < end for place in reached)
