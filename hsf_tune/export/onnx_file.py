"""Write a network as the one ONNX file that HSF wants, and prove that it computes the same.

What HSF wants: float32, one input (B, 1, X, Y, Z), one output (B, C, X, Y, Z) of
probabilities, any batch and any sides that are multiples of 8, nothing beside the file.
The weights keep the names of the state dict (`_model.encoders.0...`), so that the file
can serve as a base model again. Which weights are exported is decided in `weights.py`.
"""

from __future__ import annotations

import copy
import inspect
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch
import xxhash
from scipy import ndimage
from torch import Tensor, nn

from hsf_tune.errors import ModelError
from hsf_tune.files import replacing
from hsf_tune.model.network import Network
from hsf_tune.model.onnx_weights import load_onnx

OPSET = 17  # onnxruntime 1.16 reads opsets up to 19 and files up to IR version 9
NEWEST_OPSET, NEWEST_IR = 19, 9
INPUT, OUTPUT = "mri", "probabilities"
CHECKED_SHAPES = ((1, 32, 40, 48), (2, 24, 32, 40), (1, 48, 64, 40))  # batch, X, Y, Z
LARGEST_DIFFERENCE = 1e-4  # of a probability
LEAST_SAME_LABEL = 0.9999  # share of voxels

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Parity:
    """How far ONNX Runtime and PyTorch are apart on one input of `shape` (B, X, Y, Z)."""

    shape: tuple[int, ...]
    largest_difference: float
    same_label: float  # share of voxels whose most probable class is the same


@dataclass(frozen=True)
class OnnxFile:
    """An exported network, checked.

    Attributes:
        xxh3_64: what HSF compares before it uses the file.
        parity: one entry a shape checked.
    """

    path: Path
    xxh3_64: str
    size_bytes: int
    parity: tuple[Parity, ...]


def write_onnx(
    network: Network,
    path: Path,
    metadata: Mapping[str, str],
    shapes: Sequence[tuple[int, ...]] = CHECKED_SHAPES,
) -> OnnxFile:
    """Write a network and check the file before it gets its name.

    Args:
        network: left as it is; a float32 copy on the CPU is exported.
        path: must not exist; its stem must not hold dots, which HSF cuts off.
        metadata: text that travels inside the file.
        shapes: (B, X, Y, Z) on which the file must agree with PyTorch.

    Raises:
        ModelError: the name can't be used, the file exists, or it does not compute the same.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]+\.onnx", path.name):
        raise ModelError(
            f"{path.name} can't be the name of an exported model: HSF cuts names at dots. Use"
            " letters, digits, - and _ only."
        )
    if path.exists():
        raise ModelError(f"{path} exists; nothing was written. Choose another folder or name.")
    network = copy.deepcopy(network).float().cpu()
    with replacing(path) as temporary:
        _record(network, temporary)
        _describe(temporary, metadata)
        check_structure(temporary, network.architecture.out_channels)
        parity = check_parity(network, temporary, shapes)
        checksum, size = file_checksum(temporary), temporary.stat().st_size
    return OnnxFile(path, checksum, size, parity)


def check_structure(path: Path, out_channels: int) -> None:
    """Whether a file has the form that HSF and onnxruntime 1.16 read.

    Raises:
        ModelError: with every point in which it has not.
    """
    model = load_onnx(path)
    graph = model.graph
    faults = []
    if model.ir_version > NEWEST_IR:
        faults.append(f"IR version {model.ir_version}, expected at most {NEWEST_IR}")
    for used in model.opset_import:
        if used.domain not in ("", "ai.onnx") or used.version > NEWEST_OPSET:
            faults.append(f"operators {used.domain or 'ai.onnx'} {used.version}, expected at most"
                          f" ai.onnx {NEWEST_OPSET}")  # fmt: skip
    if len(graph.input) != 1:
        faults.append(f"{len(graph.input)} inputs, expected 1")
    for value, channels in ((graph.input[0], 1), (graph.output[0], out_channels)):
        kind, found = value.type.tensor_type.elem_type, _sides(value)
        if kind != onnx.TensorProto.FLOAT or len(found) != 5 or found[1] != channels:
            faults.append(f"{value.name} is {found}, expected float32 (B, {channels}, X, Y, Z)")
        elif any(isinstance(found[axis], int) for axis in (0, 2, 3, 4)):
            faults.append(f"{value.name} is {found}, expected batch and space to be dynamic")
    if faults:
        raise ModelError(f"{path} is no model that HSF can use: {'; '.join(faults)}.")
    onnx.checker.check_model(str(path))


def check_parity(
    network: Network, path: Path, shapes: Sequence[tuple[int, ...]] = CHECKED_SHAPES
) -> tuple[Parity, ...]:
    """Compare a file, run by ONNX Runtime, with the network it was written from.

    Raises:
        ModelError: probabilities or labels differ by more than rounding explains.
    """
    network = network.eval()
    run = open_session(path)
    found = []
    for number, shape in enumerate(shapes):
        image = example_input(shape, seed=number)
        with torch.inference_mode():
            ours = network.probabilities(torch.from_numpy(image)).numpy()
        theirs = run(image)
        difference = float(np.abs(ours - theirs).max())
        same = float((ours.argmax(1) == theirs.argmax(1)).mean())
        found.append(Parity(tuple(shape), difference, same))
    bad = [
        p
        for p in found
        if not (p.largest_difference <= LARGEST_DIFFERENCE and p.same_label >= LEAST_SAME_LABEL)
    ]
    if bad:
        raise ModelError(
            f"{path} does not compute what PyTorch computes: at {bad[0].shape} probabilities differ"
            f" by up to {bad[0].largest_difference:.2g} (expected at most {LARGEST_DIFFERENCE:g})"
            f" and {bad[0].same_label:.4%} of the voxels get the same label (expected at least"
            f" {LEAST_SAME_LABEL:.2%}). Nothing was exported; report this with the versions of"
            " torch and onnxruntime."
        )
    return tuple(found)


class Session:
    """An ONNX file as a function from (B, 1, X, Y, Z) to (B, C, X, Y, Z), float32."""

    def __init__(self, path: Path, providers: Sequence[str]) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 4
        load_onnx(path)
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=list(providers)
            )
        except Exception as error:
            raise ModelError(
                f"{path} can't be read as an ONNX model ({_first_line(error)}). Expected a"
                " complete .onnx file; copy or export it again."
            ) from error
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        sides = [value.shape for value in (*inputs, *outputs)]
        if [len(shape) for shape in sides] != [5, 5] or not isinstance(sides[1][1], int):
            raise ModelError(
                f"{path} maps inputs and outputs of shape {sides}; expected one image (B, 1, X, Y,"
                " Z) and its probabilities (B, C, X, Y, Z)."
            )
        self._path, self._input, self.out_channels = path, inputs[0].name, int(sides[1][1])
        self.metadata: dict[str, str] = dict(
            self._session.get_modelmeta().custom_metadata_map or {}
        )

    def __call__(self, image: Array) -> Array:
        try:
            output: Array = self._session.run(None, {self._input: image})[0]
        except Exception as error:
            raise ModelError(
                f"{self._path} can't be run on an image of {image.shape} ({_first_line(error)})."
                " Expected a network that takes any crop whose sides are multiples of 8."
            ) from error
        if output.shape != (len(image), self.out_channels, *image.shape[2:]):
            raise ModelError(
                f"{self._path} answers an image of {image.shape} with {output.shape}; expected"
                f" {self.out_channels} probabilities for each voxel."
            )
        return output


def open_session(path: Path, providers: Sequence[str] = ("CPUExecutionProvider",)) -> Session:
    """Load an ONNX file.

    Raises:
        ModelError: it is cut short or no ONNX file.
    """
    return Session(path, providers)


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]


def example_input(shape: tuple[int, ...], seed: int = 0) -> Array:
    """(B, 1, X, Y, Z) like a crop: smooth structure and noise, z-normalised, a rim of padding."""
    batch, *space = shape
    random = np.random.default_rng(seed)
    images = np.zeros((batch, 1, *space), np.float32)
    for image in images[:, 0]:
        tissue = ndimage.gaussian_filter(random.standard_normal(space), sigma=3)
        tissue = tissue / tissue.std() + 0.3 * random.standard_normal(space)
        inside = tissue[2:-2, 2:-2, 2:-2]
        image[2:-2, 2:-2, 2:-2] = (inside - inside.mean()) / inside.std(ddof=1)
    return images


def file_checksum(path: Path) -> str:
    """xxh3_64 of a file, in hex, as HSF writes it."""
    digest = xxhash.xxh3_64()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


class _Probabilities(nn.Module):
    """The network with the softmax inside; its prefix is that of Lightning's checkpoints."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self._model = network

    def forward(self, image: Tensor) -> Tensor:
        return self._model.probabilities(image)


def _record(network: Network, path: Path) -> None:
    """Record the network with PyTorch's older exporter, the one that keeps sizes dynamic.

    In training mode (which computes the same here) it neither folds weights nor merges equal
    ones, so that every weight keeps its name.
    """
    axes = {0: "batch", 2: "x", 3: "y", 4: "z"}
    older: dict[str, Any] = {}
    if "dynamo" in inspect.signature(torch.onnx.export).parameters:
        older["dynamo"] = False
    side = network.architecture.multiple_of * 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _Probabilities(network).train(),
            (torch.zeros(1, 1, side, side, side),),
            str(path),
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_axes={INPUT: axes, OUTPUT: axes},
            do_constant_folding=False,
            training=torch.onnx.TrainingMode.PRESERVE,
            **older,
        )


def _describe(path: Path, metadata: Mapping[str, str]) -> None:
    model = load_onnx(path)
    onnx.helper.set_model_props(model, dict(metadata))
    onnx.save(model, str(path))


def _sides(value: onnx.ValueInfoProto) -> list[int | str]:
    return [
        side.dim_value if side.HasField("dim_value") else side.dim_param
        for side in value.type.tensor_type.shape.dim
    ]
