"""The network of HSF, an attention residual U-Net in 3D.

Names and shapes of the weights are those of HSF's published checkpoints. Which blocks train at
which epoch is decided in `finetuning/schedule.py`; weights come and go through `weights.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from hsf_tune.model.layers import Conv3d, SwitchNorm3d, being_exported
from hsf_tune.model.network import Architecture, Network


class ARUNet(Network):
    """Attention residual U-Net: (B, 1, X, Y, Z) z-normalised MRI -> (B, C, X, Y, Z) logits.

    Source: Lee et al. 2017, doi:10.48550/arXiv.1706.00120 (residual U-Net); Oktay et al. 2018,
    doi:10.48550/arXiv.1804.03999 (attention gates); Poiret et al. 2023,
    doi:10.3389/fninf.2023.1130845 (HSF).
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__(architecture)
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

    @staticmethod
    def recognised(weights: Mapping[str, Tensor]) -> Architecture | None:
        first, last = "encoders.0.basic_module.conv1.conv.weight", "final_conv.weight"
        if any(key not in weights or weights[key].dim() != 5 for key in (first, last)):
            return None
        levels = {hit[1] for key in weights if (hit := re.match(r"encoders\.(\d+)\.", key))}
        return Architecture(
            in_channels=weights[first].shape[1],
            out_channels=weights[last].shape[0],
            f_maps=weights[first].shape[0],
            num_levels=len(levels),
            use_attention=any(".attention." in key for key in weights),
        )

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
