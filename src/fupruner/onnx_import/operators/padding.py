"""Strides, dilations and pads of sliding windows: what a layer can do by itself, and what is padded before it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from fupruner.onnx_import.node import Node, UnsupportedError


@dataclass(frozen=True)
class Window:
    """Geometry of a sliding window.

    Attributes:
        padding: by the layer, the same on both sides of an axis.
        explicit: (begin, end) per axis that the layer cannot do.
        same: which side gets the odd one when pads depend on the size of the image, else ''.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: tuple[int, ...]
    explicit: tuple[tuple[int, int], ...] = ()
    same: str = ""

    def before(self, value: float) -> Callable[[Tensor], Tensor] | None:
        """What pads the input with a value before the layer; None when the layer does it."""
        if self.same:
            return partial(pad_same, window=self, value=value)
        if self.explicit:
            return partial(F.pad, pad=_flat(self.explicit), value=value)
        return None


def window(node: Node, kernel: Sequence[int], *, within: bool = False) -> Window:
    """Read the geometry of a node.

    Args:
        node: with the attributes strides, dilations, pads and auto_pad.
        kernel: sizes of the window.
        within: whether the layer can only pad by up to half of its window.
    """
    n = len(kernel)
    stride = tuple(node.attribute("strides", [1] * n))
    dilation = tuple(node.attribute("dilations", [1] * n))
    auto = node.attribute("auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        if all(s == 1 for s in stride):
            totals = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
            return _placed(kernel, stride, dilation, [_halves(total, auto) for total in totals], within)
        return Window(tuple(kernel), stride, dilation, (0,) * n, same=auto)
    pads = [0] * (2 * n) if auto == "VALID" else node.attribute("pads", [0] * (2 * n))
    if any(pad < 0 for pad in pads):
        raise UnsupportedError("with negative pads")
    return _placed(kernel, stride, dilation, list(zip(pads[:n], pads[n:], strict=True)), within)


def _placed(
    kernel: Sequence[int], stride: tuple[int, ...], dilation: tuple[int, ...], pads: list[tuple[int, int]], within: bool
) -> Window:
    """Let the layer pad if it can."""
    even = all(begin == end for begin, end in pads)
    if even and (not within or all(2 * begin <= k for (begin, _), k in zip(pads, kernel, strict=True))):
        return Window(tuple(kernel), stride, dilation, tuple(begin for begin, _ in pads))
    return Window(tuple(kernel), stride, dilation, (0,) * len(kernel), tuple(pads))


def _halves(total: int, auto: str) -> tuple[int, int]:
    small, large = total // 2, total - total // 2
    return (small, large) if auto == "SAME_UPPER" else (large, small)


def pad_same(x: Tensor, window: Window, value: float) -> Tensor:
    """Pad so that a window with a stride gives ceil(size / stride) positions."""
    pads = []
    for size, k, s, d in zip(x.shape[2:], window.kernel, window.stride, window.dilation, strict=True):
        total = max((-(-size // s) - 1) * s + d * (k - 1) + 1 - size, 0)
        pads.append(_halves(total, window.same))
    return F.pad(x, _flat(pads), value=value) if any(map(any, pads)) else x


def _flat(pads: Sequence[tuple[int, int]]) -> list[Any]:
    """(begin, end) per axis in the order of ``F.pad``: last axis first."""
    return [side for pair in reversed(pads) for side in pair]
