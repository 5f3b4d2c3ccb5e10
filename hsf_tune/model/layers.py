"""The network's two costly operations, written so that they cost little on a CPU and on a GPU.

Here is decided how switchable normalisation and 3x3x3 convolutions are computed; what
they are made into is decided in `arunet.py`. Every function equals the textbook one to rounding.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

EPS = 1e-5
SPACE = (2, 3, 4)  # the spatial axes of (B, C, X, Y, Z)
SMALL_LAYER = 9_000_000  # multiplications below which a convolution's memory layout matters little
ONEDNN_FLOOR = 20480  # see `Conv3d`


def being_exported() -> bool:
    """Whether PyTorch is recording the network for ONNX."""
    return torch.jit.is_tracing() or torch.onnx.is_in_onnx_export()


def plain_operations() -> bool:
    """Whether a recorder is at work, which hand-written gradients and layouts would confuse."""
    return being_exported() or torch.compiler.is_compiling()


class Conv3d(nn.Conv3d):
    """A 3x3x3 convolution, stride 1 or 2, that keeps PyTorch on its fast paths on a CPU.

    Channels-last memory halves the time of large volumes. Of one small crop PyTorch hands a float32
    convolution to oneDNN only where C * X * Y exceeds 20480; below, it takes a path 3 to 6 times
    slower, which is where most layers of a hippocampal crop are. Such a volume is cut along X
    into two halves, each with the one-voxel halo that it needs, convolved as a batch of two.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, X, Y, Z) -> (B, C', X / stride, ...), as `torch.nn.Conv3d`."""
        if plain_operations() or not self._worth_arranging(x):
            return super().forward(x)
        x = x.contiguous(memory_format=torch.channels_last_3d)
        # also of the weight: a single channel in x would leave the layout of the result open
        weight = self.weight.contiguous(memory_format=torch.channels_last_3d)
        if not _needs_halves(x, self.stride[0]):
            return F.conv3d(x, weight, self.bias, self.stride, self.padding)
        half = x.shape[2] // 2
        padded = F.pad(x, (0, 0, 0, 0, 1, 1))
        halves = torch.cat((padded[:, :, : half + 2], padded[:, :, half:]))
        y = F.conv3d(halves, weight, self.bias, self.stride, padding=(0, 1, 1))
        return torch.cat((y[:1], y[1:]), dim=2)

    def _worth_arranging(self, x: Tensor) -> bool:
        if x.device.type != "cpu" or x.dtype != torch.float32 or torch.is_autocast_enabled("cpu"):
            return False
        outputs = x[:1, 0].numel() // math.prod(self.stride)
        return outputs * self.weight.numel() >= SMALL_LAYER


def _needs_halves(x: Tensor, stride: int) -> bool:
    """Whether PyTorch would not choose oneDNN by itself, and the volume can be cut."""
    small = x.shape[0] == 1 and x[0, ..., 0].numel() <= ONEDNN_FLOOR
    return small and x.shape[2] % (2 * stride) == 0


class SwitchNorm3d(nn.Module):
    """Normalise each crop by a learned mixture of its channels' and the whole layer's statistics.

    Instance and layer statistics, no batch statistics, unbiased variance. With the statistics
    known this is one multiply-add per channel, and so it is computed.

    Source: Luo et al. 2019, doi:10.48550/arXiv.1806.10779; here without its batch statistics.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, channels, 1, 1, 1))
        self.bias = nn.Parameter(torch.zeros(1, channels, 1, 1, 1))
        self.mean_weight = nn.Parameter(torch.ones(2))  # instance, layer; a softmax weighs them
        self.var_weight = nn.Parameter(torch.ones(2))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, X, Y, Z) -> the same shape and dtype; statistics are taken in float32."""
        shares = torch.cat((self.mean_weight.softmax(dim=0), self.var_weight.softmax(dim=0)))
        if plain_operations():
            var, mean = _recorded_moments(x) if being_exported() else _var_mean(x)
            _, _, mixed_mean, std = _mixture(mean, var, shares)
            scale = self.weight / std
            return x * scale + (self.bias - mixed_mean * scale)
        out: Tensor = _SwitchNorm.apply(x, self.weight, self.bias, shares)
        return out


def _moments(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """x less its channel means, these means, and the unbiased variances (0 for a single voxel)."""
    n = x[0, 0].numel()
    if x.is_cuda and n > 1:
        var, mean = torch.var_mean(x, dim=SPACE, keepdim=True)
        return x - mean, mean, var
    mean = x.mean(dim=SPACE, keepdim=True)  # on a CPU two vectorised passes beat var_mean tenfold
    centred = x - mean
    return centred, mean, centred.square().sum(dim=SPACE, keepdim=True).div_(max(n - 1, 1))


def _var_mean(x: Tensor) -> tuple[Tensor, Tensor]:
    return torch.var_mean(x, dim=SPACE, keepdim=True)


def _recorded_moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Variances and means axis by axis, for ONNX Runtime: it adds up whatever it is given in one
    float32, and a whole volume at once cost the probabilities a digit (1e-4 instead of 1e-5)."""
    n = x[0, 0].numel()
    mean = x.mean(4, keepdim=True).mean(3, keepdim=True).mean(2, keepdim=True)
    square = (x - mean).square()
    var = square.mean(4, keepdim=True).mean(3, keepdim=True).mean(2, keepdim=True)
    return var * (n / (n - 1)), mean


def _mixture(mean: Tensor, var: Tensor, shares: Tensor) -> tuple[Tensor, ...]:
    """Mean and variance of the layer, the mixed mean, and the mixed standard deviation."""
    layer_mean = mean.mean(dim=1, keepdim=True)
    layer_var = (var + (mean - layer_mean).square()).mean(dim=1, keepdim=True)
    mixed_mean = shares[0] * mean + shares[1] * layer_mean
    std = torch.sqrt(shares[2] * var + shares[3] * layer_var + EPS)
    return layer_mean, layer_var, mixed_mean, std


class _SwitchNorm(Function):
    """`centred * scale + shift`, its gradient in closed form: two sums and two multiply-adds."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, shares: Tensor) -> Tensor:
        centred, mean, var = _moments(_wide(x))
        _, _, mixed_mean, std = _mixture(mean, var, shares)
        scale = weight / std
        shift = bias + (mean - mixed_mean) * scale
        ctx.save_for_backward(centred.to(x.dtype), mean, var, weight, shares)
        return torch.addcmul(shift, centred, scale).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        centred, mean, var, weight, shares = ctx.saved_tensors
        needs_x, needs_weight, needs_bias, needs_shares = ctx.needs_input_grad
        dtype, grad, centred = centred.dtype, _wide(grad), _wide(centred)
        n = centred[0, 0].numel()
        layer_mean, layer_var, mixed_mean, std = _mixture(mean, var, shares)
        scale = weight / std
        mean_own, mean_layer, var_own, var_layer = shares.unbind()

        d_shift = grad.sum(dim=SPACE, keepdim=True)
        d_scale = (grad * centred).sum(dim=SPACE, keepdim=True) + d_shift * (mean - mixed_mean)
        d_mixed_mean = -d_shift * scale
        d_mixed_var = -0.5 * d_scale * scale / std.square()

        d_x = d_shares = None
        if needs_x:
            # layer_var = mean over channels of var + (mean - layer_mean)^2
            d_layer_mean = mean_layer * d_mixed_mean.mean(dim=1, keepdim=True)
            d_layer_var = var_layer * d_mixed_var.mean(dim=1, keepdim=True)
            d_mean = mean_own * d_mixed_mean + d_layer_mean
            d_mean = d_mean + 2 * d_layer_var * (mean - layer_mean)
            d_var = var_own * d_mixed_var + d_layer_var
            d_x = torch.addcmul(d_mean / n, grad, scale)
            d_x = d_x.addcmul_(centred, d_var * (2 / max(n - 1, 1))).to(dtype)
        if needs_shares:
            of_mean = (d_mixed_mean * mean, d_mixed_mean * layer_mean)
            of_var = (d_mixed_var * var, d_mixed_var * layer_var)
            d_shares = torch.stack((*of_mean, *of_var)).flatten(1).sum(dim=1)
        d_weight = (d_scale / std).sum(dim=0, keepdim=True) if needs_weight else None
        d_bias = d_shift.sum(dim=0, keepdim=True) if needs_bias else None
        return d_x, d_weight, d_bias, d_shares


def _wide(x: Tensor) -> Tensor:
    """Half precision is too coarse for statistics; float32 and float64 stay as they are."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
