"""The network of HSF, an attention residual U-Net in 3D, and the order in which its blocks open.

Names and shapes of the weights are those of HSF's published checkpoints. Which blocks train at
which epoch is decided in `finetuning/schedule.py`; weights come and go through `weights.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from hsf_tune.errors import ConfigError, ModelError, did_you_mean
from hsf_tune.model.layers import Conv3d, SwitchNorm3d, being_exported

MODES = ("encoder", "decoder", "full")


@dataclass(frozen=True)
class Architecture:
    """What fixes every name and shape of an `ARUNet`'s weights.

    Args:
        in_channels: images per case, 1.
        out_channels: classes, background included.
        f_maps: channels of the first level; each level below has twice as many.
        num_levels: encoders; there is one decoder fewer.
        layer_order: "cgs", convolution, GELU, switchable normalisation.
        use_attention: whether each decoder weighs what comes across from its encoder.
    """

    in_channels: int = 1
    out_channels: int = 6
    f_maps: int = 64
    num_levels: int = 4
    layer_order: str = "cgs"
    use_attention: bool = True

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
    def multiple_of(self) -> int:
        """What each side of an input should be a multiple of, in voxels: 8 for 4 levels."""
        return int(2 ** (self.num_levels - 1))


class ARUNet(nn.Module):
    """Attention residual U-Net: (B, 1, X, Y, Z) z-normalised MRI -> (B, C, X, Y, Z) logits.

    Attributes:
        architecture: what it was built from.
        checkpointing: keep only each block's input for the backward pass and compute the block
            again there: about a third more time for a fraction of the memory, and the same numbers.

    Source: Lee et al. 2017, doi:10.48550/arXiv.1706.00120 (residual U-Net); Oktay et al. 2018,
    doi:10.48550/arXiv.1804.03999 (attention gates); Poiret et al. 2023,
    doi:10.3389/fninf.2023.1130845 (HSF).
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.checkpointing = False
        widths = [architecture.f_maps * 2**level for level in range(architecture.num_levels)]
        self.encoders = nn.ModuleList(
            Encoder(below, width, pooling=level > 0)
            for level, (below, width) in enumerate(
                zip([architecture.in_channels, *widths], widths, strict=False)
            )
        )
        self.decoders = nn.ModuleList(
            Decoder(2 * width, width, architecture.use_attention) for width in reversed(widths[:-1])
        )
        self.final_conv = nn.Conv3d(widths[0], architecture.out_channels, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits. Any size will do; once exported to ONNX, sides must be multiples of 8."""
        skips: list[Tensor] = []
        for encoder in self.encoders:
            x = self._run(encoder, x)
            skips.append(x)
        for decoder, skip in zip(self.decoders, reversed(skips[:-1]), strict=True):
            x = self._run(decoder, skip, x)
        logits: Tensor = self.final_conv(x)
        return logits

    def probabilities(self, x: Tensor) -> Tensor:
        """(B, C, X, Y, Z) class probabilities in float32, summing to 1 over C."""
        return self(x).float().softmax(dim=1)

    def blocks(self, mode: str) -> tuple[tuple[str, nn.Module], ...]:
        """Name and module of each block in the order in which `mode` opens them.

        `encoder` goes from the input inwards, `decoder` from the output inwards, `full` from the
        output through both halves to the input. The final convolution is no block: it always
        trains.
        """
        encoders = [(f"encoders.{i}", block) for i, block in enumerate(self.encoders)]
        decoders = [(f"decoders.{i}", block) for i, block in enumerate(self.decoders)]
        if mode == "encoder":
            return tuple(encoders)
        if mode == "decoder":
            return tuple(reversed(decoders))
        if mode == "full":
            return (*reversed(decoders), *reversed(encoders))
        raise ConfigError(
            f"finetuning.mode is '{mode}', which names no part of the network."
            + did_you_mean(mode, MODES)
        )

    def n_blocks(self, mode: str) -> int:
        """Blocks that `mode` can open: 4, 3 and 7 in the published network."""
        return len(self.blocks(mode))

    def _run(self, block: nn.Module, *inputs: Tensor) -> Tensor:
        if self.checkpointing and torch.is_grad_enabled() and not being_exported():
            out = checkpoint(block, *inputs, use_reentrant=False, preserve_rng_state=False)
        else:
            out = block(*inputs)
        assert isinstance(out, Tensor)
        return out


class Encoder(nn.Module):
    """One level down: halve by a strided convolution, save at the top, then a residual block."""

    def __init__(self, in_channels: int, out_channels: int, pooling: bool) -> None:
        super().__init__()
        self.pooling = (
            Conv3d(in_channels, in_channels, 3, stride=2, padding=1, bias=False)
            if pooling
            else None
        )
        self.basic_module = ResidualBlock(in_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        if self.pooling is not None:
            x = self.pooling(x)
        out: Tensor = self.basic_module(x)
        return out


class Decoder(nn.Module):
    """One level up: double, add what the encoder of this level saw, then a residual block."""

    def __init__(self, in_channels: int, out_channels: int, use_attention: bool) -> None:
        super().__init__()
        self.upsampling = Upsampling(in_channels, out_channels)
        self.basic_module = ResidualBlock(out_channels, out_channels)
        self.attention = AttentionGate(out_channels) if use_attention else None

    def forward(self, skip: Tensor, x: Tensor) -> Tensor:
        """skip (B, C, X, Y, Z) from the encoder, x (B, 2C, X/2, Y/2, Z/2) -> (B, C, X, Y, Z)."""
        x = self.upsampling(x, skip.shape[2:])
        if self.attention is not None:
            skip = self.attention(skip, x)
        out: Tensor = self.basic_module(skip + x)
        return out


class Upsampling(nn.Module):
    """Doubles each side, to the voxel of the size asked for."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.upsample = TransposedConv3d(in_channels, out_channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor, size: torch.Size) -> Tensor:
        out: Tensor = self.upsample(x, size)
        return out


class TransposedConv3d(nn.ConvTranspose3d):
    """A transposed convolution to a given size, without what ONNX can't record."""

    def forward(self, x: Tensor, size: torch.Size) -> Tensor:  # type: ignore[override]
        # n voxels become 2n - 1 + output_padding. Sizes recorded for ONNX must be constants: 1 is
        # right for the even sides that multiples of 8 have at every level.
        padding = (
            [1, 1, 1]
            if being_exported()
            else [wanted - (2 * n - 1) for wanted, n in zip(size, x.shape[2:], strict=True)]
        )
        return F.conv_transpose3d(
            x, self.weight, self.bias, stride=2, padding=1, output_padding=padding
        )


class AttentionGate(nn.Module):
    """Weigh each voxel of the encoder's features by what encoder and decoder say of it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = channels // 2
        self.W_g = nn.Sequential(nn.Conv3d(channels, inner, 1), SwitchNorm3d(inner))
        self.W_x = nn.Sequential(nn.Conv3d(channels, inner, 1), SwitchNorm3d(inner))
        self.psi = nn.Sequential(nn.Conv3d(inner, 1, 1), SwitchNorm3d(1), nn.Sigmoid())

    def forward(self, skip: Tensor, x: Tensor) -> Tensor:
        gate: Tensor = self.psi(F.gelu(self.W_g(x) + self.W_x(skip)))
        return skip * gate


class ResidualBlock(nn.Module):
    """Three convolutions; the first one's output is added to the third one's before its GELU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = ConvGeluNorm(in_channels, out_channels)
        self.conv2 = ConvGeluNorm(out_channels, out_channels)
        self.conv3 = ConvGeluNorm(out_channels, out_channels, gelu=False)

    def forward(self, x: Tensor) -> Tensor:
        first: Tensor = self.conv1(x)
        return F.gelu(self.conv3(self.conv2(first)) + first)


class ConvGeluNorm(nn.Module):
    """Convolution, GELU ("g" of "cgs", left out where the residual sum follows), normalisation."""

    def __init__(self, in_channels: int, out_channels: int, gelu: bool = True) -> None:
        super().__init__()
        self.gelu = gelu
        self.conv = Conv3d(in_channels, out_channels, 3, padding=1)
        self.SwitchNorm3d = SwitchNorm3d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        out: Tensor = self.SwitchNorm3d(F.gelu(x) if self.gelu else x)
        return out
