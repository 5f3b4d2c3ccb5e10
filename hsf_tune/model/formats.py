"""Read weights from a file without ever running code from it.

Lightning checkpoints, plain state dicts, safetensors and ONNX come out alike: names as
the network has them, float32 tensors, and the file's own notes. Whether they fit a network is
decided in `weights.py`.
"""

from __future__ import annotations

import pickle
import pickletools
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import torch
from safetensors import safe_open
from torch import Tensor

from hsf_tune.errors import ModelError
from hsf_tune.model.onnx_weights import read_onnx

MOST_VALUES = 10_000_000  # in a pickle, what is shared counted each time
LAST_LAYER = "final_conv.weight"  # what stands before it is the prefix of all names
_CONTAINERS = {("collections", "OrderedDict"), ("torch", "Size"), ("torch", "device")}
_TENSORS = {
    ("torch._utils", "_rebuild_tensor"),
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_parameter"),
    ("torch.serialization", "_get_layout"),
}


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Names and tensors of a network's weights, and what the file says about them.

    Args:
        path: `.ckpt` or `.pt` as torch.save writes it, `.safetensors`, or `.onnx`; told apart by
            their first bytes.

    Returns:
        Contiguous float32 tensors by their name in the network (a prefix such as `_model.` is cut),
        and a safetensors file's metadata (empty for other kinds).

    Raises:
        ModelError: the file is damaged, of another kind, holds more than tensors and plain
            containers, or weights that are no finite numbers.
    """
    try:
        weights, notes = _read(path)
        return _cleaned(path, weights), notes
    except ModelError:
        raise
    except Exception as error:  # whatever a malformed file sets off is a fault of the file
        raise _damaged(path, error) from error


def _read(path: Path) -> tuple[Mapping[str, Any], dict[str, str]]:
    with path.open("rb") as file:
        head = file.read(9)
    notes: dict[str, str] = {}
    weights: Mapping[str, Any]
    if head[8:9] == b"{":  # first: the length before it may begin with any byte, also a pickle's
        weights, notes = _read_safetensors(path)
    elif head.startswith((b"PK", b"\x80")):
        weights = _read_pickle(path)
    elif head.startswith(b"\x08") or path.suffix == ".onnx":
        weights = read_onnx(path)
    else:
        raise ModelError(
            f"{path} is no base model: it is neither a checkpoint (.ckpt, .pt), nor safetensors, "
            "nor ONNX."
        )
    return weights, notes


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    with safe_open(path, framework="pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118


def _read_pickle(path: Path) -> Mapping[str, Any]:
    wanted = sorted(".".join(name) for name in imports_of(path) if not _harmless(*name))
    if wanted:
        raise ModelError(
            f"{path} is a pickle that wants to import {', '.join(wanted)}. A base model may hold "
            "tensors and plain containers only, as anything else could run code, so it was not "
            "opened. Ask its author for the state dict alone, best as safetensors."
        )
    content = torch.load(path, map_location="cpu", weights_only=True)
    weights = content.get("state_dict", content) if isinstance(content, Mapping) else None
    if not isinstance(weights, Mapping):
        raise ModelError(
            f"{path} holds a {type(weights or content).__name__}; expected a Lightning checkpoint "
            "(a 'state_dict' in a dictionary) or a state dict."
        )
    return weights


def imports_of(path: Path) -> set[tuple[str, str]]:
    """Module and name of everything that a torch.save or pickle file would import.

    The file is only looked through, never unpickled.

    Raises:
        zipfile.BadZipFile: a truncated or tampered archive, or one that unpacks to more than it is.
        pickle.UnpicklingError: parts that hold each other stand for more than can be gone through.
        ValueError: no pickle.
    """
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            if file.read(2) == b"PK":
                raise zipfile.BadZipFile("the archive has no end")
            file.seek(0)
            return set(_imports(file))
    found: set[tuple[str, str]] = set()
    with zipfile.ZipFile(path) as archive:
        parts = archive.infolist()
        if any(part.compress_type != zipfile.ZIP_STORED for part in parts):
            raise zipfile.BadZipFile("it is compressed, which torch.save never does")
        if sum(part.file_size for part in parts) > path.stat().st_size:
            raise zipfile.BadZipFile("its parts are larger than the whole")
        broken = archive.testzip()
        if broken:
            raise zipfile.BadZipFile(f"{broken} does not match its checksum")
        pickles = [name for name in archive.namelist() if name.endswith(".pkl")]
        if not pickles:
            raise zipfile.BadZipFile("the archive holds no data.pkl")
        for name in pickles:
            with archive.open(name) as file:
                found.update(_imports(file))
    return found


def _imports(file: IO[bytes]) -> Iterator[tuple[str, str]]:
    """Names in the pickles that a file begins with (old torch.save files hold several in a row)."""
    n_pickles = 0
    while True:
        words: list[str] = []  # strings pushed so far; STACK_GLOBAL takes the last two
        sizes = _Sizes()
        try:
            for code, argument, _ in pickletools.genops(file):
                sizes.step(code, argument)
                if code.name in ("GLOBAL", "INST"):
                    module, _, name = str(argument).partition(" ")
                    yield module, name
                elif code.name == "STACK_GLOBAL":
                    yield (words[-2], words[-1]) if len(words) > 1 else ("?", "?")
                elif isinstance(argument, str):
                    words.append(argument)
        except ValueError:
            if n_pickles == 0:
                raise
            return  # raw numbers follow the pickles
        n_pickles += 1


class _Sizes:
    """How many values each object on a pickle's stack stands for, shared parts counted each time.

    Sixty tuples, each twice the one before, are a few hundred bytes; to hash or show the last
    takes for ever.
    """

    def __init__(self) -> None:
        self._stack: list[int] = []
        self._marks: list[int] = []
        self._memo: dict[Any, int] = {}

    def step(self, code: pickletools.OpcodeInfo, argument: Any) -> None:
        """Follow one instruction."""
        if code.name in ("GET", "BINGET", "LONG_BINGET"):
            self._stack.append(self._memo.get(argument, 1))
        elif code.name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            place = len(self._memo) if code.name == "MEMOIZE" else argument
            self._memo[place] = self._stack[-1]
        elif code.name == "MARK":
            self._marks.append(len(self._stack))
        elif code.name == "POP" and self._marks and self._marks[-1] == len(self._stack):
            self._marks.pop()
        else:
            size = 1 + self._taken(code)
            if size > MOST_VALUES:
                raise pickle.UnpicklingError(f"it stands for more than {MOST_VALUES:,} values")
            self._stack += [size] * len(code.stack_after)

    def _taken(self, code: pickletools.OpcodeInfo) -> int:
        """Take what an instruction works on from the stack; its size."""
        before = code.stack_before
        beside, start = len(before), len(self._stack)
        if pickletools.markobject in before:
            beside, start = before.index(pickletools.markobject), self._marks.pop()
        start = max(0, start - beside)
        taken = sum(self._stack[start:])
        del self._stack[start:]
        return taken


def _harmless(module: str, name: str) -> bool:
    if (module, name) in _CONTAINERS | _TENSORS:
        return True
    return module in ("torch", "torch.storage") and (
        name.endswith("Storage") or isinstance(getattr(torch, name, None), torch.dtype)
    )


def _cleaned(path: Path, weights: Mapping[str, Any]) -> dict[str, Tensor]:
    """Cut the prefix, check that all are finite tensors, make them float32."""
    last = [key for key in weights if str(key).endswith(LAST_LAYER)]
    if len(last) != 1:
        raise ModelError(
            f"{path} holds {len(last)} tensors named *{LAST_LAYER}, expected one: it is no ARUNet. "
            f"It has {', '.join(sorted(map(str, weights))[:4]) or 'no tensors'} ..."
        )
    prefix = last[0].removesuffix(LAST_LAYER)
    for key, value in weights.items():
        if not isinstance(key, str) or not isinstance(value, Tensor) or value.is_complex():
            kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
            raise ModelError(
                f"{path}: '{key}' is a {kind}, expected a tensor of numbers with a name."
            )
    claimed = sum(value.numel() for value in weights.values())
    if claimed > path.stat().st_size:  # as a stride of 0 can claim it
        raise ModelError(
            f"{path} claims {claimed:.2g} weights, more than its bytes can hold. Get it again."
        )
    cleaned = {
        key.removeprefix(prefix): value.detach().to(torch.float32).contiguous()
        for key, value in weights.items()
    }
    broken = [key for key, value in cleaned.items() if not value.isfinite().all()]
    if broken:
        raise ModelError(
            f"{path}: {len(broken)} tensors hold NaN or infinite numbers, {broken[0]} among them. "
            "The training that wrote it diverged; use an earlier checkpoint."
        )
    return cleaned


def _damaged(path: Path, error: Exception) -> ModelError:
    reason = (str(error) or type(error).__name__).split("\n")[0][:200]
    return ModelError(
        f"{path} is a truncated, tampered or foreign model file ({reason}). Get it again."
    )
