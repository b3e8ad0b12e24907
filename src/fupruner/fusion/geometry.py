"""Windows of convolutions that are to become one: which taps of the common window each of them fills."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from fupruner.fusion.algebra import padding_of, weight_of


@dataclass(frozen=True)
class Window:
    """A window over the input, per spatial axis: taps at ``-padding + dilation * i`` for i < kernel."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]


def window_of(conv: Any) -> Window | None:
    """A convolution's window; None where its sides are padded differently."""
    padding = padding_of(conv)
    return (
        None if padding is None else Window(tuple(conv.kernel_size), tuple(conv.stride), padding, tuple(conv.dilation))
    )


def point(stride: tuple[int, ...]) -> Window:
    """The window of a 1x1 convolution with a stride."""
    ones = (1,) * len(stride)
    return Window(ones, stride, (0,) * len(stride), ones)


def common_window(a: Window, b: Window) -> Window | str:
    """The smallest window that holds both, or why there is none."""
    if a.stride != b.stride:
        return f"strides {a.stride} and {b.stride} differ"
    axes = []
    for k1, p1, d1, k2, p2, d2 in zip(a.kernel, a.padding, a.dilation, b.kernel, b.padding, b.dilation, strict=True):
        if k1 > 1 and k2 > 1 and d1 != d2:
            return f"dilations {a.dilation} and {b.dilation} differ"
        step = d1 if k1 > 1 else d2
        if (k1 - 1) * d1 - 2 * p1 != (k2 - 1) * d2 - 2 * p2:
            return f"paddings {a.padding} and {b.padding} give outputs of different sizes"
        if (p1 - p2) % step:
            return f"the taps of windows {a.kernel} and {b.kernel} do not fall on one grid"
        padding = max(p1, p2)
        end = max((k1 - 1) * d1 - p1, (k2 - 1) * d2 - p2)
        axes.append(((padding + end) // step + 1, padding, step))
    return Window(tuple(x[0] for x in axes), a.stride, tuple(x[1] for x in axes), tuple(x[2] for x in axes))


def place(weight: Tensor, window: Window, wider: Window) -> Tensor:
    """Weights (out, in, *kernel) of one window, put into a wider one, with zeros around them."""
    placed = weight.new_zeros(*weight.shape[:2], *wider.kernel)
    starts = [(w - p) // d for w, p, d in zip(wider.padding, window.padding, wider.dilation, strict=True)]
    inside = tuple(slice(s, s + k) for s, k in zip(starts, window.kernel, strict=True))
    placed[(slice(None), slice(None), *inside)] = weight
    return placed


def placed_weight(conv: Any, wider: Window) -> Tensor:
    """A convolution's weights in a window that holds its own."""
    window = window_of(conv)
    return weight_of(conv) if window is None or window == wider else place(weight_of(conv), window, wider)
