"""Arithmetic on convolutions and linear layers: pure functions from layers to new layers, nothing about graphs."""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fupruner.graph import edit
from fupruner.graph.channelwise import ReservedNorm
from fupruner.graph.cost import CONVS, NORMS, TRANSPOSED

_CONV_OF_RANK: dict[int, type[nn.Module]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSE_OF_RANK: dict[int, Any] = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def with_tensors(layer: Any, weight: Tensor, bias: Tensor | None) -> Any:
    """A copy of a layer with other weights of the same layout; channel counts follow from the weights."""
    changed: Any = edit.shallow(layer)
    changed._parameters = {"weight": nn.Parameter(weight), "bias": None if bias is None else nn.Parameter(bias)}
    if isinstance(layer, CONVS):
        changed.out_channels, changed.in_channels = weight.shape[0], weight.shape[1] * layer.groups
    elif isinstance(layer, TRANSPOSED):
        changed.in_channels, changed.out_channels = weight.shape[0], weight.shape[1] * layer.groups
    elif isinstance(layer, nn.Linear):
        changed.out_features, changed.in_features = weight.shape
    return changed


def make_conv(
    weight: Tensor,
    bias: Tensor | None,
    *,
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
    groups: int = 1,
) -> Any:
    """A zero-padded convolution around given weights (out, in / groups, *kernel)."""
    kind = _CONV_OF_RANK[weight.dim() - 2]
    settings: dict[str, Any] = {
        "stride": stride,
        "padding": padding,
        "dilation": dilation,
        "groups": groups,
        "device": "meta",
    }
    conv = kind(weight.shape[1] * groups, weight.shape[0], tuple(weight.shape[2:]), bias=bias is not None, **settings)
    return with_tensors(conv, weight, bias)


def weight_of(layer: Any) -> Tensor:
    """A layer's weights without gradient."""
    return layer.weight.detach()  # type: ignore[no-any-return]


def bias_of(layer: Any) -> Tensor:
    """A layer's bias without gradient; zeros when it has none."""
    if layer.bias is not None:
        return layer.bias.detach()  # type: ignore[no-any-return]
    return layer.weight.new_zeros(outputs_of(layer)).detach()  # type: ignore[no-any-return]


def outputs_of(layer: Any) -> int:
    """How many output channels or features a layer has."""
    return int(layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels)


def inputs_of(layer: Any) -> int:
    """How many input channels or features a layer has."""
    return int(layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels)


def padding_of(conv: Any) -> tuple[int, ...] | None:
    """Zeros added on each side per spatial axis; None when sides differ or the padding is not zeros."""
    if conv.padding == "valid":
        return (0,) * len(conv.kernel_size)
    if conv.padding == "same":
        total = [d * (k - 1) for d, k in zip(conv.dilation, conv.kernel_size, strict=True)]
        padding = None if any(t % 2 for t in total) else tuple(t // 2 for t in total)
    else:
        padding = tuple(conv.padding)
    return padding if conv.padding_mode == "zeros" or padding == (0,) * len(conv.kernel_size) else None


def is_pointwise(conv: Any) -> bool:
    """Whether a convolution is 1x1 without padding."""
    return math.prod(conv.kernel_size) == 1 and padding_of(conv) == (0,) * len(conv.kernel_size)


def is_depthwise(module: Any) -> bool:
    """Whether a convolution maps every channel to itself alone."""
    return (
        isinstance(module, CONVS) and module.groups == module.in_channels == module.out_channels and module.groups > 1
    )


def is_centred(conv: Any) -> bool:
    """Whether output pixel i lies over input pixel i * stride: odd kernel and matching zero padding."""
    padding = padding_of(conv)
    return padding is not None and all(
        k % 2 == 1 and p == d * (k - 1) // 2 for k, p, d in zip(conv.kernel_size, padding, conv.dilation, strict=True)
    )


def centre_of(conv: Any) -> Any:
    """Index of the kernel's centre tap."""
    return tuple(k // 2 for k in conv.kernel_size)


def norm_affine(norm: Any) -> tuple[Tensor, Tensor]:
    """Scale and shift (C,) that a batch norm applies in eval mode, in float64."""
    if isinstance(norm, ReservedNorm):
        scale, shift = norm.affine(torch.float64)
        return scale.detach(), shift.detach()
    scale = torch.rsqrt(norm.running_var.double() + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight
    shift = -norm.running_mean * scale
    return scale.detach(), (shift if norm.bias is None else shift + norm.bias).detach()


def has_statistics(norm: Any) -> bool:
    """Whether a norm is a batch norm with running statistics, that is, affine in eval mode."""
    return isinstance(norm, ReservedNorm) or (
        isinstance(norm, NORMS) and norm.running_mean is not None and norm.running_var is not None
    )


def scale_outputs(layer: Any, scale: Tensor, shift: Tensor, *, reuse: bool = False) -> nn.Module:
    """A copy of a convolution or linear layer whose output channels are scaled and shifted.

    Args:
        layer: convolution, transposed convolution or linear layer with C output channels.
        scale: (C,).
        shift: (C,).
        reuse: let the copy have the memory of the layer's weights, which are lost by that.
    """
    weight = weight_of(layer)
    if reuse and not isinstance(layer, TRANSPOSED):
        weight = weight.mul_(scale.view(-1, *[1] * (weight.dim() - 1)))
    elif isinstance(layer, TRANSPOSED):
        grouped = weight.unflatten(0, (layer.groups, -1))  # (groups, in per group, out per group, *kernel)
        factor = scale.view(layer.groups, 1, -1, *[1] * (weight.dim() - 2))
        weight = (grouped * factor).flatten(0, 1)
    else:
        weight = weight * scale.view(-1, *[1] * (weight.dim() - 1))
    return with_tensors(layer, weight, bias_of(layer) * scale + shift)  # type: ignore[no-any-return]


def scale_inputs(layer: Any, scale: Tensor, shift: Tensor) -> nn.Module:
    """A copy of a layer that scales and shifts what it reads; the shift is exact where no padding enters.

    Args:
        layer: convolution, transposed convolution (only with a zero shift) or linear layer with C inputs.
        scale: (C,).
        shift: (C,).
    """
    weight = weight_of(layer)
    if isinstance(layer, TRANSPOSED):
        scaled = weight * scale.view(-1, *[1] * (weight.dim() - 1))
        return with_tensors(layer, scaled, layer.bias if layer.bias is None else bias_of(layer))  # type: ignore[no-any-return]
    groups = layer.groups if isinstance(layer, CONVS) else 1
    tail = [1] * (weight.dim() - 2)
    grouped = weight.unflatten(0, (groups, -1))  # (groups, out per group, in per group, *kernel)
    bias = (grouped.flatten(3).sum(3) if tail else grouped) * shift.view(groups, 1, -1)
    scaled = (grouped * scale.view(groups, 1, -1, *tail)).flatten(0, 1)
    return with_tensors(layer, scaled, bias_of(layer) + bias.sum(2).flatten())  # type: ignore[no-any-return]


def dense_weight(conv: Any) -> Tensor:
    """Weights (out, in, *kernel) of a grouped convolution, with zeros between the groups."""
    return spread_groups(weight_of(conv), conv.groups, 1)


def spread_groups(weight: Tensor, groups: int, wanted: int) -> Tensor:
    """Weights of the same function with fewer groups.

    Args:
        weight: (out, in / groups, *kernel).
        groups: as they are.
        wanted: divides ``groups``.

    Returns:
        (out, in / wanted, *kernel) with zeros where groups do not meet.
    """
    if groups == wanted:
        return weight
    inside = groups // wanted  # old groups in each new one
    out, per = weight.shape[0] // groups, weight.shape[1]
    spread = weight.new_zeros(wanted, inside, out, inside, per, *weight.shape[2:])
    blocks = weight.unflatten(0, (wanted, inside, out))
    for i in range(inside):
        spread[:, i, :, i] = blocks[:, i]
    return spread.flatten(3, 4).flatten(0, 2)


def compose_kernels(first: Tensor, second: Tensor, *, spacing: tuple[int, ...], dilation: tuple[int, ...]) -> Tensor:
    """Kernel of two convolutions in a row, without their biases.

    Args:
        first: (mid, in, *k1).
        second: (out, mid, *k2).
        spacing: input pixels between neighbouring taps of the second kernel, per axis.
        dilation: input pixels between neighbouring taps of the first kernel.

    Returns:
        (out, in, *k), k = (k2 - 1) * spacing + (k1 - 1) * dilation + 1.
    """
    if math.prod(second.shape[2:]) == 1 and math.prod(first.shape[2:]) == 1:
        return (second.flatten(1) @ first.flatten(1)).view(second.shape[0], first.shape[1], *first.shape[2:])
    return TRANSPOSE_OF_RANK[first.dim() - 2](second, first, stride=spacing, dilation=dilation)  # type: ignore[no-any-return]


def compose_with_depthwise(
    dense: Tensor, taps: Tensor, *, spacing: tuple[int, ...], dilation: tuple[int, ...]
) -> Tensor:
    """Kernel of a dense and a depthwise convolution in a row, tap by tap.

    Args:
        dense: (out, in, *k1); channel axis 1 or 0 is the one that the depthwise filters act on, as ``taps`` says by its shape.
        taps: (1, in, *k2) or (out, 1, *k2).
        spacing: input pixels between neighbouring taps of ``dense``, per axis.
        dilation: input pixels between neighbouring taps of ``taps``.

    Returns:
        (out, in, *k), k = (k1 - 1) * spacing + (k2 - 1) * dilation + 1.
    """
    k1, k2 = dense.shape[2:], taps.shape[2:]
    wide = dense.new_zeros(
        *dense.shape[:2], *((a - 1) * s + (b - 1) * d + 1 for a, b, s, d in zip(k1, k2, spacing, dilation, strict=True))
    )
    for i, tap in enumerate(itertools.product(*map(range, k2))):
        where = tuple(
            slice(at * d, at * d + (k - 1) * s + 1, s) for at, d, k, s in zip(tap, dilation, k1, spacing, strict=True)
        )
        one = taps.flatten(2)[..., i]
        inside: Any = (slice(None), slice(None), *where)
        wide[inside] += dense * one.view(*one.shape, *[1] * len(k1))
    return wide


def macs_of(layer: Any, out_shape: tuple[int, ...]) -> int:
    """Multiply-adds of one sample of a convolution or linear layer whose output has this shape, batch included."""
    if isinstance(layer, nn.Linear):
        return math.prod(out_shape[1:]) * layer.in_features
    return int(math.prod(out_shape[1:]) * (layer.in_channels // layer.groups) * math.prod(layer.kernel_size))


def reserved_filters(conv: Any) -> Tensor:
    """(out,) which filters of a convolution are exact diracs without bias: channels that fusion reserved carry a shortcut."""
    weight = weight_of(conv)
    if not is_centred(conv):
        return torch.zeros(len(weight), dtype=torch.bool)
    centre = weight[(slice(None), slice(None), *centre_of(conv))]
    single = (weight != 0).flatten(1).sum(1) == 1
    return single & ((centre == 1).sum(1) == 1) & (bias_of(conv) == 0)
