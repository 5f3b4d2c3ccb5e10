"""Base models: load one from wherever it is, build a network from it, save what was trained.

What a file holds is read in `formats.py`, where it comes from is decided in `published.py`.
Here is decided whether weights fit a network: all names and shapes must, except the final
convolution's where another number of classes is asked for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from hsf_tune.errors import ModelError, did_you_mean, printable
from hsf_tune.files import replacing
from hsf_tune.model.formats import read_weights
from hsf_tune.model.network import Architecture, Network
from hsf_tune.model.networks import infer_architecture, new_network
from hsf_tune.model.published import PUBLISHED, fetch, file_checksum, verify

FROM_SCRATCH = "none"  # in place of a checkpoint: random weights
_SHOWN = 6  # differences that an error lists
_LONGEST_NAME = 100  # characters


@dataclass(frozen=True)
class BaseModel:
    """Weights to start from, and what is known about them.

    Args:
        name: its published name, or its file's.
        source: the address or path that it came from.
        sha256: of the file.
        architecture: inferred from the shapes.
        state_dict: float32 tensors by the network's names, not to be written to; empty where
            training starts from random weights.
        labels_names: channel 1..N -> name, or None where nobody says.
        training: the file's notes on how it was made, or None.
    """

    name: str
    source: str
    sha256: str
    architecture: Architecture
    state_dict: Mapping[str, Tensor]
    labels_names: Mapping[int, str] | None = None
    training: Mapping[str, Any] | None = None


def load_base(
    source: str | Path, *, checksum: str | None = None, cache_dir: Path | None = None
) -> BaseModel:
    """Load a base model by name, path or https address.

    Args:
        source: a name in `PUBLISHED`, the path of a .ckpt, .pt, .safetensors or .onnx file, or an
            https address of one. A copy of a published file is known by its checksum.
        checksum: xxh3_64 or sha256; needed for an address, verified where given.
        cache_dir: where downloads are kept; None is $HSF_TUNE_CACHE, else the user's cache folder.

    Raises:
        ModelError: it can't be found, fetched, verified or read, or it is no ARUNet.
    """
    path = _locate(str(source), checksum, cache_dir)
    name = str(source) if source in PUBLISHED else _published_name(path)
    state_dict, notes = read_weights(path)
    try:
        architecture = infer_architecture(state_dict)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None
    _require_match(f"{path}", state_dict, architecture)
    labels = _labels_in(notes, architecture.out_channels)
    return BaseModel(
        name=name or _one_line(notes.get("name", path.stem)),
        source=PUBLISHED[str(source)].url if source in PUBLISHED else str(source),
        sha256=file_checksum(path).removeprefix("sha256:"),
        architecture=architecture,
        state_dict=state_dict,
        labels_names=PUBLISHED[name].labels_names if name else labels,
        training=_training_in(notes),
    )


def random_base(architecture: Architecture) -> BaseModel:
    """A base without weights: networks built from it start at random, as their seed says."""
    digest = sha256(f"random weights of {architecture}".encode()).hexdigest()
    return BaseModel("random weights", FROM_SCRATCH, digest, architecture, {})


def build_network(base: BaseModel, out_channels: int, *, seed: int = 0) -> Network:
    """A network with the base's weights, on the CPU, in training mode.

    Args:
        out_channels: classes, background included. Where it is not the base's own number, the final
            convolution is new, drawn from `seed` alone as PyTorch initialises one.

    Raises:
        ModelError: the base's weights are not those of its architecture.
    """
    architecture = replace(base.architecture, out_channels=out_channels)
    if not base.state_dict:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return new_network(architecture)
    weights = {key: value.clone() for key, value in base.state_dict.items()}
    if out_channels != base.architecture.out_channels:
        weights |= _new_final_conv(architecture, seed)
    _require_match(f"Base model {base.name}", weights, architecture)
    with torch.device("meta"):
        network = new_network(architecture)
    network.load_state_dict(weights, assign=True)
    return network


def save(
    path: Path, weights: Network | Mapping[str, Tensor], metadata: Mapping[str, Any] | None = None
) -> None:
    """Write weights as safetensors: whole under its name, or not at all.

    Args:
        path: the file; its folder is made if need be.
        weights: a network or its state dict.
        metadata: notes kept in the file. `labels_names` (channel 1..N -> name), `training` (a
            dictionary) and `name` are read back by `load_base`. What is not text is written as
            JSON.

    Raises:
        OSError: it can't be written, for example as the disk is full.
    """
    tensors = weights.state_dict() if isinstance(weights, Network) else weights
    notes = {
        key: value if isinstance(value, str) else json.dumps(value)
        for key, value in (metadata or {}).items()
    }
    arrays = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    with replacing(path) as temporary:
        try:
            save_file(arrays, temporary, {"format": "pt", **notes})
        except SafetensorError as error:
            raise _system_error(error) from error
        temporary.chmod(0o644)


def _system_error(error: SafetensorError) -> Exception:
    """The system's error that safetensors hands on as text; any other as it is."""
    code = re.search(r"\(os error (\d+)\)", str(error))
    return OSError(int(code[1]), str(error)) if code else error


def _published_name(path: Path) -> str | None:
    """The name of the published model that this file is a copy of."""
    checksum = file_checksum(path, "xxh3_64:")
    return next((name for name, known in PUBLISHED.items() if known.checksum == checksum), None)


def _locate(source: str, checksum: str | None, cache_dir: Path | None) -> Path:
    if source in PUBLISHED:
        known = PUBLISHED[source]
        return fetch(known.url, checksum or known.checksum, cache_dir)
    if urlparse(source).scheme in ("http", "https", "ftp"):
        if checksum is None:
            raise ModelError(
                f"models.checkpoint is {source}, and a file from the network needs a checksum: "
                "give models.checksum, its xxh3_64 (`xxhsum -H3`) or sha256 (`sha256sum`), from "
                "somebody you trust."
            )
        return fetch(source, checksum, cache_dir)
    path = Path(source).expanduser()
    if not path.is_file():
        found = "is a folder" if path.is_dir() else "does not exist"
        raise ModelError(
            f"models.checkpoint is {source}, which {found}. Expected a .ckpt, .pt, .safetensors or "
            ".onnx file, an https address, or a published model's name."
            + did_you_mean(source, PUBLISHED)
        )
    if checksum:
        verify(path, checksum)
    return path


def _require_match(what: str, weights: Mapping[str, Tensor], architecture: Architecture) -> None:
    """Refuse weights that differ from the architecture's in any name or shape."""
    with torch.device("meta"):
        expected = {k: tuple(v.shape) for k, v in new_network(architecture).state_dict().items()}
    found = {key: tuple(value.shape) for key, value in weights.items()}
    differences = [
        *(f"{key} is missing" for key in expected if key not in found),
        *(f"{key} is unexpected" for key in found if key not in expected),
        *(
            f"{key} is {'x'.join(map(str, found[key]))}, expected {'x'.join(map(str, shape))}"
            for key, shape in expected.items()
            if key in found and found[key] != shape
        ),
    ]
    if differences:
        more = len(differences) - _SHOWN
        raise ModelError(
            f"{what} does not hold the weights of an ARUNet with f_maps {architecture.f_maps}, "
            f"{architecture.num_levels} levels and {architecture.out_channels} channels: "
            + "; ".join(differences[:_SHOWN])
            + (f"; and {more} more" if more > 0 else "")
            + ". Use a checkpoint of HSF's ARUNet, whole and unchanged."
        )


def _new_final_conv(architecture: Architecture, seed: int) -> dict[str, Tensor]:
    """As `nn.Conv3d` initialises a 1x1x1 convolution, from a seed of its own."""
    generator = torch.Generator().manual_seed(seed)
    bound = architecture.f_maps**-0.5
    shapes = {
        "final_conv.weight": (architecture.out_channels, architecture.f_maps, 1, 1, 1),
        "final_conv.bias": (architecture.out_channels,),
    }
    return {
        key: torch.empty(shape).uniform_(-bound, bound, generator=generator)
        for key, shape in shapes.items()
    }


def _labels_in(notes: Mapping[str, str], out_channels: int) -> dict[int, str] | None:
    """A file's labels, if there is one for each channel."""
    labels = _json(notes.get("labels_names"))
    if not isinstance(labels, dict):
        return None
    wanted = [str(label) for label in range(1, out_channels)]
    if set(labels) != set(wanted):
        return None
    return {int(label): _one_line(labels[label]) for label in wanted}


def _training_in(notes: Mapping[str, str]) -> dict[str, Any] | None:
    training = _json(notes.get("training"))
    return training if isinstance(training, dict) else None


def _json(text: str | None) -> object:
    try:
        return json.loads(text) if text else None
    except (ValueError, RecursionError):
        return None


def _one_line(name: object) -> str:
    """A name from a file as it can be shown."""
    return " ".join(printable(str(name)).split())[:_LONGEST_NAME]
