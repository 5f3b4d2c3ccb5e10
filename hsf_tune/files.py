"""Write a file whole under its name, or not at all; keep one that can't be read; write a table."""

from __future__ import annotations

import csv
import io
import itertools
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path in the folder of `path`, which is made if need be; to be written to.

    At the end of the block what was written goes to the disk and takes the place of `path` at
    once, so that readers see the old or the new file, never a part, also after a power cut. After
    an error `path` is as it was. The temporary name is hidden, belongs to this process and has the
    suffixes of `path`, by which many writers choose their format.

    Raises:
        OSError: the folder can't be made, or the file not be put there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield temporary
        with temporary.open("r+b") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def set_aside(path: Path) -> Path:
    """Give a file or folder that can't be read another name beside its own; the new path."""
    names = (path.with_name(f"{path.name}.unreadable-{n}") for n in itertools.count(1))
    free = next(name for name in names if not os.path.lexists(name))
    path.rename(free)
    return free


def write_text(path: Path, text: str) -> None:
    """Replace a file at once: readers see the old or the new text, never a part."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table as text; None and nan are empty.

    A name that a spreadsheet would take for a formula gets an apostrophe in front.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_cell(value) for value in row] for row in rows)
    return text.getvalue()


def _cell(value: Any) -> Any:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    formula = isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r"))
    return f"'{value}" if formula else value
