"""`fetch [NAME ...]`: bring base models into the cache beforehand.

For machines whose compute nodes reach no network: run it once where there is one. How a
file is downloaded and verified is `model/published.py`'s business.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlparse

from rich.text import Text

from hsf_tune.cli.shell import Screen
from hsf_tune.errors import ModelError, did_you_mean
from hsf_tune.model.published import PUBLISHED, cache_folder, fetch

ALL, BUNDLED = "all", "demo"


def fetch_models(args: argparse.Namespace, _: Sequence[str], console: Screen) -> int:
    """Download what is not there yet; the exit code."""
    wanted = list(PUBLISHED) if ALL in args.names else list(dict.fromkeys(args.names))
    if args.checksum and len(wanted) > 1:
        raise ModelError("--checksum belongs to one file. Fetch the others by a call of their own.")
    for source in wanted:
        if source == BUNDLED:
            console.print("demo: comes with hsf_tune; nothing to fetch")
            continue
        url, checksum = _address(source, args.checksum)
        with console.status(Text(f"{source}: {url}")):
            path = fetch(url, checksum)
        size_mb = path.stat().st_size / 1e6
        console.print(f"{source}: {path} ({size_mb:.0f} MB, checksum verified)")
    console.print(
        f"Runs find them in {cache_folder()} wherever HSF_TUNE_CACHE is as it is here.",
    )
    return 0


def _address(source: str, checksum: str | None) -> tuple[str, str]:
    """Where a base model is and what it must be.

    Raises:
        ModelError: no known name, or an address without a checksum.
    """
    if source in PUBLISHED:
        return PUBLISHED[source].url, checksum or PUBLISHED[source].checksum
    if not urlparse(source).scheme:
        there = " That file is on this machine already." if Path(source).exists() else ""
        raise ModelError(
            f"'{source}' is no published model and no https address.{there}"
            f"{did_you_mean(source, [*PUBLISHED, ALL])}"
        )
    if checksum is None:
        raise ModelError(
            f"{source} needs --checksum, its xxh3_64 (`xxhsum -H3`) or sha256 (`sha256sum`), from"
            " somebody you trust."
        )
    return source, checksum
