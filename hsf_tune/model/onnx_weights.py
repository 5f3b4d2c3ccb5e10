"""Read a network's weights out of the ONNX file that HSF runs.

PyTorch keeps the names of most weights when it exports; what it folds into constants or
merges because two tensors are equal is found again by the place where it is used. Only the graph is
read, nothing is run.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import onnx
import torch
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import numpy_helper
from torch import Tensor

from hsf_tune.errors import ModelError

_MIXTURE = ("mean_weight", "var_weight")  # of a switchable normalisation, in the order of use


def read_onnx(path: Path) -> dict[str, Tensor]:
    """Weights by their name in the exported module, `_model.encoders.0...` in HSF's files.

    Switchable normalisation's two pairs of mixing weights are only in the file as the shares
    that a softmax made of them; their logarithms give the same shares.

    Raises:
        ModelError: the file is damaged, or keeps its weights in another file.
    """
    graph = load_onnx(path).graph
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Identity" and node.input[0] in values:  # a weight equal to another
            values[node.output[0]] = values[node.input[0]]
    # a module's weight has a dotted name; those with slashes, colons or digits are the exporter's
    weights = {
        name: value
        for name, value in values.items()
        if "." in name and "/" not in name and "::" not in name
    }
    values |= _constants(graph)
    for scope, nodes in _nodes_by_module(graph).items():
        for name, value in _used_by(nodes, values).items():
            weights.setdefault(f"{scope}.{name}", value)
    return {name: torch.from_numpy(np.array(value)) for name, value in weights.items()}


def load_onnx(path: Path) -> onnx.ModelProto:
    """A model that is whole in its own file.

    Raises:
        ModelError: the file is damaged, or any tensor of it, wherever it stands, is to be read
            from another file, which may be any file of the user's.
    """
    try:
        model = onnx.load(str(path), load_external_data=False)
    except (DecodeError, ValueError, OSError) as error:
        raise ModelError(
            f"{path} can't be read as an ONNX model ({error}). Expected a complete .onnx file; copy"
            " or export it again."
        ) from error
    nodes = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    for tensor in chain(_tensors_of(model.graph), _tensors_in(nodes)):
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
            raise ModelError(
                f"{path} keeps its weights in a second file; expected one self-contained ONNX file."
            )
    return model


def _tensors_of(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)


def _tensors_in(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    """Those of attributes, and of the graphs that branches and loops have as attributes."""
    for node in nodes:
        for attribute in node.attribute:
            yield attribute.t
            yield from attribute.tensors
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)
            for graph in (attribute.g, *attribute.graphs):
                yield from _tensors_of(graph)
                yield from _tensors_in(graph.node)


def _nodes_by_module(graph: onnx.GraphProto) -> dict[str, list[onnx.NodeProto]]:
    """`/_model/decoders.0/attention/W_g/W_g.1/Mul` is of `_model.decoders.0.attention.W_g.1`."""
    modules: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in graph.node:
        parts = node.name.strip("/").split("/")
        # a member of a sequence repeats the sequence's own name
        own = [a for a, b in pairwise(parts) if not b.startswith(f"{a}.")]
        modules[".".join(own)].append(node)
    return modules


def _used_by(nodes: list[onnx.NodeProto], values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A module's weights by the operations that use them."""
    found: dict[str, np.ndarray] = {}
    shares: list[float] = []
    for node in nodes:
        constants = [values[name] for name in node.input if name in values]
        if node.op_type in ("Conv", "ConvTranspose"):
            found |= dict(zip(("weight", "bias"), constants, strict=False))
        elif node.op_type in ("Mul", "Div", "Add", "Sub") and len(constants) == 1:
            (value,) = constants
            if value.ndim == 5:
                found["weight" if node.op_type in ("Mul", "Div") else "bias"] = value
            elif node.op_type == "Mul" and value.size == 1:
                shares.append(float(value.reshape(())))
    is_mixture = len(shares) == 4 and {"weight", "bias"} <= set(found)
    if is_mixture and all(math.isclose(sum(shares[i : i + 2]), 1, abs_tol=1e-4) for i in (0, 2)):
        for i, name in enumerate(_MIXTURE):
            found[name] = np.log(np.maximum(shares[2 * i : 2 * i + 2], 1e-30)).astype(np.float32)
    return found


def _constants(graph: onnx.GraphProto) -> dict[str, np.ndarray]:
    return {
        node.output[0]: numpy_helper.to_array(attribute.t)
        for node in graph.node
        if node.op_type == "Constant"
        for attribute in node.attribute
        if attribute.name == "value"
    }
