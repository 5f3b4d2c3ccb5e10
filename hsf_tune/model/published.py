"""The base models that HSF's authors publish, and how a file comes from the network.

What is downloaded is streamed to a temporary name, verified and only then given its own; a
cached file is verified each time. What is in a file is read in `formats.py`.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlparse

import pooch
import requests
import xxhash
from filelock import FileLock

from hsf_tune.errors import ModelError
from hsf_tune.model.labels import HSF_LABELS

_REPOSITORY = "https://huggingface.co/poiretclement/hsf/resolve/main"
_CHUNK_BYTES = 1 << 20
_TIMEOUT_S = 30


@dataclass(frozen=True)
class Published:
    """A base model that is known by name.

    Args:
        url: where it is.
        checksum: "xxh3_64:..." or "sha256:...".
        labels_names: channel 1..N -> name.
    """

    url: str
    checksum: str
    labels_names: Mapping[int, str]


def _bag(number: int, stamp: int, checksum: str) -> Published:
    url = f"{_REPOSITORY}/onnx/arunet_4.0.0b{number}_{stamp}.onnx"
    return Published(url, f"xxh3_64:{checksum}", HSF_LABELS)


PUBLISHED: Mapping[str, Published] = {
    "hsf": Published(
        f"{_REPOSITORY}/ckpt/arunet_4.0.0single_1706895706.ckpt",
        "xxh3_64:3165f610a375ba33",
        HSF_LABELS,
    ),
    "bag_0": _bag(0, 1706633574, "535af004dc7251af"),
    "bag_1": _bag(1, 1706699484, "ca97ac4be073149f"),
    "bag_2": _bag(2, 1706714241, "f9de9d5392460c3a"),
    "bag_3": _bag(3, 1706858428, "85259d3c0c8baa21"),
    "bag_4": _bag(4, 1706874562, "cb04f34305ec33af"),
}


def fetch(url: str, checksum: str, cache_dir: Path | None = None) -> Path:
    """The verified local copy of a file, downloaded once.

    Args:
        url: https, as must be every address that it redirects to.
        checksum: xxh3_64 or sha256.
        cache_dir: None is $HSF_TUNE_CACHE, else the user's cache folder.

    Raises:
        ModelError: the address is no https, the file can't be had, or it is not the one expected.
    """
    if urlparse(url).scheme != "https":
        raise ModelError(
            f"{url} is no https address, and a base model from the network must come by https. "
            "Download it yourself, check it, and give its path as models.checkpoint."
        )
    expected = normalise_checksum(checksum)
    folder = cache_folder(cache_dir)
    path = folder / f"{expected.split(':')[1][:16]}-{Path(urlparse(url).path).name}"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        if path.exists() and file_checksum(path, expected) != expected:
            path.unlink()
        if not path.exists():
            _download(url, path, expected)
    return path


def cache_folder(cache_dir: Path | None = None) -> Path:
    """Where downloads are kept: `cache_dir`, else $HSF_TUNE_CACHE, else the user's cache folder."""
    chosen = cache_dir or os.environ.get("HSF_TUNE_CACHE") or pooch.os_cache("hsf_tune")
    return Path(chosen).expanduser()


def verify(path: Path, checksum: str) -> None:
    """Compare a file with its checksum.

    Raises:
        ModelError: they differ.
    """
    expected = normalise_checksum(checksum)
    found = file_checksum(path, expected)
    if found != expected:
        raise ModelError(
            f"{path} has checksum {found}, expected {expected}. It is damaged or another file: get "
            "it again, or give the right models.checksum."
        )


def normalise_checksum(checksum: str) -> str:
    """'xxh3_64:<16 digits>' or 'sha256:<64 digits>', with or without its algorithm, in lower case.

    Raises:
        ModelError: it is neither.
    """
    text = checksum.strip().lower()
    digits = text.split(":")[-1]
    for name, length in (("xxh3_64", 16), ("sha256", 64)):
        if text in (digits, f"{name}:{digits}") and re.fullmatch(f"[0-9a-f]{{{length}}}", digits):
            return f"{name}:{digits}"
    raise ModelError(
        f"models.checksum is '{checksum}'; expected the 16 hexadecimal digits of an xxh3_64 "
        "checksum or the 64 of a sha256, with 'xxh3_64:' or 'sha256:' before them if you like."
    )


def file_checksum(path: Path, like: str = "sha256:") -> str:
    """The checksum of a file by the algorithm that `like` begins with, written the same way."""
    name = like.split(":")[0]
    digest = xxhash.xxh3_64() if name == "xxh3_64" else hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return f"{name}:{digest.hexdigest()}"


def _download(url: str, path: Path, expected: str) -> None:
    downloader = pooch.HTTPDownloader(
        chunk_size=_CHUNK_BYTES, timeout=_TIMEOUT_S, hooks={"response": _refuse_unsafe_redirect}
    )
    try:
        pooch.retrieve(
            url, known_hash=expected, fname=path.name, path=path.parent, downloader=downloader
        )
    except (requests.RequestException, OSError) as error:
        raise ModelError(
            f"Could not download the base model from {url} ({_reason(error)}). Without a "
            f"connection, download it on another machine and put it at {path}, or give its path as "
            f"models.checkpoint. Its checksum is {expected}."
        ) from error
    except ValueError as error:  # how pooch says that the checksum differs
        raise ModelError(
            f"{url} is not the file that was expected: its checksum is not {expected}. The "
            "download was removed. Try again; if it happens again, the file was changed, and the "
            "address or models.checksum is out of date."
        ) from error


def _refuse_unsafe_redirect(response: requests.Response, **_: Any) -> None:
    """Called by requests for each answer, before a redirect is followed."""
    if not response.is_redirect:
        return
    target = urljoin(response.url, response.headers["location"])
    if urlparse(target).scheme != "https":
        raise ModelError(
            f"{response.url} redirects to {target}, which is no https address; it was not "
            "followed. Download the base model yourself, check it, and give its path as "
            "models.checkpoint."
        )


def _reason(error: Exception) -> str:
    if isinstance(error, requests.HTTPError):
        return str(error).split(" for url")[0]
    return type(error).__name__ if isinstance(error, requests.RequestException) else str(error)
