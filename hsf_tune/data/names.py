"""Read what a file's name and folder say: its stem, its subject, its side.

Text in, text out; no file is touched, and no name is refused here (`cases.py` does that).
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import unicodedata
from collections.abc import Sequence
from itertools import pairwise
from pathlib import PurePath
from typing import Literal

Side = Literal["left", "right"]
SLOWEST_S = 10.0  # for one expression on all names of a dataset

_SUFFIX = re.compile(r"\.nii(\.gz)?$", re.IGNORECASE)
_BIDS_SUBJECT = re.compile(r"(?:^|[_/])(sub-[A-Za-z0-9]+)")
_REPEATS = re.compile(
    r"[*+{|]\??|(?<!\()\?"
)  # with at most one of them, a search is done in no time
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_SIDE_WORDS: dict[str, Side] = {"left": "left", "lh": "left", "right": "right", "rh": "right"}
_HEMI: dict[str, Side] = {"l": "left", "r": "right"}


def is_nifti(path: PurePath) -> bool:
    """Whether the name ends in `.nii` or `.nii.gz`, in any case."""
    return bool(_SUFFIX.search(path.name))


def stem(path: PurePath) -> str:
    """A file's name without `.nii` or `.nii.gz`; other dots stay."""
    return _SUFFIX.sub("", path.name)


def subjects_of(relatives: Sequence[PurePath], regex: str | None) -> list[str | None]:
    """`subject_of` each path, for an expression that nobody vouches for.

    One that can run for ever is searched for in a process of its own.

    Raises:
        ValueError: it is no regular expression, or takes more than `SLOWEST_S`.
    """
    if regex is None:
        return [subject_of(path, None) for path in relatives]
    try:
        compiled = re.compile(regex)
        if len(_REPEATS.findall(regex)) < 2:
            return [subject_of(path, compiled) for path in relatives]
        return [hit or None for hit in _searched(regex, [p.as_posix() for p in relatives])]
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(str(error)) from error


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


_SEARCH = """
import json, re, sys
regex, texts = json.load(sys.stdin)
regex = re.compile(regex)
hits = [regex.search(text) for text in texts]
json.dump([hit and hit.group(1 if regex.groups else 0) for hit in hits], sys.stdout)
"""


def _searched(regex: str, texts: list[str]) -> list[str | None]:
    """The first group, or whole match, in each text; Python can't stop a search from within."""
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-c", _SEARCH],
            input=json.dumps([regex, texts]),
            capture_output=True,
            text=True,
            check=True,
            timeout=SLOWEST_S,
        )
    except subprocess.TimeoutExpired:
        raise ValueError(f"it takes more than {SLOWEST_S:g} s on these names") from None
    except subprocess.CalledProcessError as error:
        raise ValueError(" ".join(error.stderr.split())[-100:]) from None
    hits: list[str | None] = json.loads(done.stdout)
    return hits
