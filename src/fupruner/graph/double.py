"""Depthwise convolutions in float64, fast enough to prove rewrites with.

PyTorch computes them in double precision one channel at a time, which takes most of the time of a proof on a network of such layers.
Here they are one multiplication and addition per kernel tap.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


class FastDepthwise(TorchFunctionMode):
    """Computes zero-padded depthwise 2d convolutions of double precision tap by tap; leaves everything else alone."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Answer calls of ``conv2d``."""
        if func is torch.conv2d and not kwargs and _fits(*args):
            return depthwise_conv2d(*args)
        return func(*args, **(kwargs or {}))


def _fits(
    x: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> bool:
    is_depthwise = weight.shape[1] == 1 and 1 < groups == x.shape[-3]
    return is_depthwise and x.dim() == 4 and x.dtype == torch.float64 == weight.dtype and not isinstance(padding, str)


def depthwise_conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """The same as ``torch.conv2d`` for a filter per channel.

    Args:
        x: (N, C, H, W).
        weight: (O, 1, h, w), O a multiple of C.
        bias: (O,).
        stride: as of ``torch.conv2d``.
        padding: likewise, numbers only.
        dilation: likewise.
        groups: C.

    Raises:
        RuntimeError: the image is smaller than the kernel.
    """
    strides, pads, dilations = (_pair(v) for v in (stride, padding, dilation))
    kernel = weight.shape[2:]
    sizes = [
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, p, d, k, s in zip(x.shape[2:], pads, dilations, kernel, strides, strict=True)
    ]
    if min(sizes) <= 0:
        raise RuntimeError(f"the image {tuple(x.shape[2:])} is smaller than the kernel {tuple(kernel)}")
    padded = F.pad(x, (pads[1], pads[1], pads[0], pads[0])) if any(pads) else x
    wide = padded.repeat_interleave(weight.shape[0] // groups, 1) if weight.shape[0] > groups else padded
    spans = [(size - 1) * s + 1 for size, s in zip(sizes, strides, strict=True)]
    total: Any = 0 if bias is None else bias.view(1, -1, 1, 1)
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            top, left = i * dilations[0], j * dilations[1]
            part = wide[:, :, top : top + spans[0] : strides[0], left : left + spans[1] : strides[1]]
            total = total + part * weight[:, 0, i, j].view(1, -1, 1, 1)
    return total  # type: ignore[no-any-return]


def _pair(value: Any) -> tuple[int, int]:
    first, *rest = value if isinstance(value, tuple | list) else (value,)
    return int(first), int(rest[0] if rest else first)
