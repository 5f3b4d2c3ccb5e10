"""The networks that can be finetuned: one row each, under the name that `models.modeltype` has."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from hsf_tune.errors import ModelError, did_you_mean
from hsf_tune.model.arunet import ARUNet
from hsf_tune.model.network import Architecture, Network

NETWORKS: dict[str, type[Network]] = {"ResidualUNet3D": ARUNet}


def new_network(architecture: Architecture) -> Network:
    """A network with random weights.

    Raises:
        ModelError: there is no network of that type.
    """
    kind = NETWORKS.get(architecture.modeltype)
    if kind is None:
        raise ModelError(
            f"models.modeltype is '{architecture.modeltype}'; expected"
            f" {' or '.join(NETWORKS)}.{did_you_mean(architecture.modeltype, NETWORKS)}"
        )
    return kind(architecture)


def infer_architecture(weights: Mapping[str, Tensor]) -> Architecture:
    """The architecture whose weights have these names and shapes.

    Raises:
        ModelError: no known network has such weights.
    """
    for kind in NETWORKS.values():
        architecture = kind.recognised(weights)
        if architecture is not None:
            return architecture
    raise ModelError(
        f"The base model is none of {', '.join(NETWORKS)}. It holds"
        f" {', '.join(sorted(weights)[:3])} ..."
    )
