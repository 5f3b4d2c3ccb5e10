"""Reference values, and weights that need no file: each is drawn from its name and shape."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from hsf_tune.model.arunet import Architecture, ARUNet

TINY = Architecture(f_maps=2)


def drawn_weight(name: str, shape: tuple[int, ...]) -> Tensor:
    """The weight that the reference values were computed with."""
    seed = [zlib.crc32(name.encode()), 0]
    noise = np.random.Generator(np.random.PCG64(seed)).standard_normal(shape)
    fan_in = max(1, math.prod(shape[1:]))
    if (len(shape) == 5 and shape[0] > 1) or name == "final_conv.weight":
        values = noise * (1.4 / math.sqrt(fan_in))
    elif name.endswith("psi.0.weight"):
        values = noise / math.sqrt(fan_in)
    elif name.endswith(("mean_weight", "var_weight")):
        values = noise * 0.5
    elif name.endswith("bias"):
        values = noise * 0.1
    else:  # the gain of a normalisation
        values = 1 + 0.2 * noise
    return torch.from_numpy(values.astype(np.float32))


@pytest.fixture(scope="session")
def draw_network() -> Callable[[Architecture], ARUNet]:
    """Architecture -> network with the reference's weights."""

    def draw(architecture: Architecture = TINY) -> ARUNet:
        network = ARUNet(architecture)
        drawn = {k: drawn_weight(k, tuple(v.shape)) for k, v in network.state_dict().items()}
        network.load_state_dict(drawn)
        return network

    return draw


@pytest.fixture(scope="session")
def draw_image() -> Callable[..., Tensor]:
    """Shape and seed -> (1, 1, X, Y, Z) noise, as the reference was given."""

    def draw(shape: tuple[int, int, int], seed: int = 0) -> Tensor:
        generator = np.random.Generator(np.random.PCG64([seed, *shape]))
        return torch.from_numpy(generator.standard_normal((1, 1, *shape)).astype(np.float32))

    return draw


@pytest.fixture(scope="session")
def reference_arrays() -> Mapping[str, np.ndarray]:
    with np.load(Path(__file__).parent / "fixtures" / "reference.npz") as arrays:
        return dict(arrays)
