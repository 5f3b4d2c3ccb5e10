"""What a network has to offer to be finetuned, and the table of those that do.

Everything outside of this package asks a `Network`: its blocks by name, its architecture, its
weights. Another network is a class in a file of its own and a row in `networks.py`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import Tensor, nn

from hsf_tune.errors import ConfigError, ModelError, did_you_mean
from hsf_tune.modes import MODES, Halves


@dataclass(frozen=True)
class Architecture:
    """What fixes every name and shape of a network's weights.

    Args:
        in_channels: images per case, 1.
        out_channels: classes, background included.
        f_maps: channels of the first level; each level below has twice as many.
        num_levels: encoders; there is one decoder fewer.
        layer_order: "cgs", convolution, GELU, switchable normalisation.
        use_attention: whether each decoder weighs what comes across from its encoder.
        modeltype: which network of `networks.NETWORKS`.
    """

    in_channels: int = 1
    out_channels: int = 6
    f_maps: int = 64
    num_levels: int = 4
    layer_order: str = "cgs"
    use_attention: bool = True
    modeltype: str = "ResidualUNet3D"

    def __post_init__(self) -> None:
        if self.layer_order != "cgs":
            raise ModelError(
                f"models.layer_order is '{self.layer_order}'; only 'cgs' (convolution, GELU, "
                "switchable normalisation) is supported, the order of all published HSF networks."
            )
        bounds = {
            "in_channels": (1, 16), "out_channels": (2, 256), "f_maps": (1, 512),
            "num_levels": (1, 8),
        }  # fmt: skip
        for key, (least, most) in bounds.items():
            value = getattr(self, key)
            if not least <= value <= most:
                words = f"at least {least}" if value < least else f"at most {most}"
                raise ModelError(f"models.{key} is {value}; it must be {words}.")

    @property
    def halves(self) -> Halves:
        """Names of the blocks that can open."""
        n = self.num_levels
        encoders, decoders = range(n), range(n - 1)
        return Halves(
            tuple(f"encoders.{i}" for i in encoders), tuple(f"decoders.{i}" for i in decoders)
        )

    @property
    def multiple_of(self) -> int:
        """What each side of an input should be a multiple of, in voxels: 8 for 4 levels."""
        return int(2 ** (self.num_levels - 1))


class Network(nn.Module):
    """(B, 1, X, Y, Z) z-normalised MRI -> (B, C, X, Y, Z) logits.

    Attributes:
        architecture: what it was built from.
        final_conv: the last layer, whose channels are the labels; it always trains.
        checkpointing: keep only each block's input for the backward pass and compute the block
            again there: about a third more time for a fraction of the memory, and the same numbers.
    """

    final_conv: nn.Module

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.checkpointing = False

    @staticmethod
    @abstractmethod
    def recognised(weights: Mapping[str, Tensor]) -> Architecture | None:
        """The architecture that has weights of these names and shapes; None if it is not one."""

    def probabilities(self, x: Tensor) -> Tensor:
        """(B, C, X, Y, Z) class probabilities in float32, summing to 1 over C."""
        return self(x).float().softmax(dim=1)

    def blocks(self, mode: str) -> tuple[tuple[str, nn.Module], ...]:
        """Name and module of each block in the order in which `mode` opens them.

        Raises:
            ConfigError: there is no such mode.
        """
        if mode not in MODES:
            raise ConfigError(
                f"finetuning.mode is '{mode}', which names no part of the network."
                + did_you_mean(mode, MODES)
            )
        order = MODES[mode].opening_order(self.architecture.halves)
        return tuple((name, self.block(name)) for name in order)

    def block(self, name: str) -> nn.Module:
        """The module of that name; those that it matches, where it is a pattern."""
        if "*" not in name:
            return self.get_submodule(name)
        return nn.ModuleList(m for own, m in self.named_modules() if fnmatchcase(own, name))
