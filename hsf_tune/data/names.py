"""Read what a file's name and folder say: its stem, its subject, its side.

Text in, text out; no file is touched, and no name is refused here (`cases.py` does that).
"""

from __future__ import annotations

import re
import unicodedata
from itertools import pairwise
from pathlib import PurePath
from typing import Literal

Side = Literal["left", "right"]

_SUFFIX = re.compile(r"\.nii(\.gz)?$", re.IGNORECASE)
_BIDS_SUBJECT = re.compile(r"(?:^|[_/])(sub-[A-Za-z0-9]+)")
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_SIDE_WORDS: dict[str, Side] = {"left": "left", "lh": "left", "right": "right", "rh": "right"}
_HEMI: dict[str, Side] = {"l": "left", "r": "right"}


def is_nifti(path: PurePath) -> bool:
    """Whether the name ends in `.nii` or `.nii.gz`, in any case."""
    return bool(_SUFFIX.search(path.name))


def stem(path: PurePath) -> str:
    """A file's name without `.nii` or `.nii.gz`; other dots stay."""
    return _SUFFIX.sub("", path.name)


def subject_of(relative: PurePath, regex: re.Pattern[str] | None) -> str | None:
    """Who an image shows, from its path below the dataset's folder.

    The regex's first group (or whole match) where there is a regex; else the first
    folder; else, for a file outside any folder, the BIDS `sub-` entity of its name.
    None where that says nothing.
    """
    if regex is not None:
        hit = regex.search(relative.as_posix())
        return (hit.group(1 if regex.groups else 0) or None) if hit else None
    if len(relative.parts) > 1:
        return relative.parts[0]
    return bids_subject(relative.name)


def bids_subject(path: str) -> str | None:
    """The last `sub-<name>` entity of a path, or None."""
    hits = _BIDS_SUBJECT.findall(path)
    return hits[-1] if hits else None


def side_of(text: str) -> Side | None:
    """The side a name tells, as left/right, lh/rh or hemi-L/hemi-R; None if none or both."""
    words = [word.lower() for word in _WORD.findall(text)]
    sides = {_SIDE_WORDS[word] for word in words if word in _SIDE_WORDS}
    sides |= {_HEMI[b] for a, b in pairwise(words) if a == "hemi" and b in _HEMI}
    return sides.pop() if len(sides) == 1 else None


def file_safe(text: str) -> str:
    """ASCII letters, digits, dot, plus, minus and underscore; accents are dropped."""
    ascii_only = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9._+-]+", "_", ascii_only).strip("_.") or "_"
