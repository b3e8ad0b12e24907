"""Pooling, over windows and over everything."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fupruner.onnx_import.node import Built, Node, UnsupportedError, operator
from fupruner.onnx_import.operators.padding import Window, window

_MAX: dict[int, type[nn.Module]] = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}
_AVERAGE: dict[int, type[nn.Module]] = {1: nn.AvgPool1d, 2: nn.AvgPool2d, 3: nn.AvgPool3d}
_GLOBAL_AVERAGE: dict[int | None, type[nn.Module]] = {
    3: nn.AdaptiveAvgPool1d, 4: nn.AdaptiveAvgPool2d, 5: nn.AdaptiveAvgPool3d
}  # fmt: skip
_GLOBAL_MAX: dict[int | None, type[nn.Module]] = {
    3: nn.AdaptiveMaxPool1d, 4: nn.AdaptiveMaxPool2d, 5: nn.AdaptiveMaxPool3d
}  # fmt: skip


def _geometry(node: Node) -> Window:
    kernel = node.attribute("kernel_shape")
    if len(kernel) not in _MAX:
        raise UnsupportedError("with other than 1, 2 or 3 spatial axes")
    return window(node, kernel, within=True)


@operator("MaxPool")
def max_pool(node: Node) -> Built:
    """Max pooling; pads that the layer cannot do are filled with minus infinity."""
    if len([name for name in node.proto.output if name]) > 1:
        raise UnsupportedError("with indices as an output")
    geometry, ceil = _geometry(node), bool(node.attribute("ceil_mode", 0))
    layer = _MAX[len(geometry.kernel)](
        geometry.kernel, geometry.stride, geometry.padding, geometry.dilation, ceil_mode=ceil
    )
    return Built(layer, (node.input(0),), geometry.before(float("-inf")))


@operator("AveragePool")
def average_pool(node: Node) -> Built:
    """Average pooling; where pads do not count and differ between sides, by dividing by how many elements do."""
    geometry, ceil = _geometry(node), bool(node.attribute("ceil_mode", 0))
    counted = bool(node.attribute("count_include_pad", 0))
    if any(d != 1 for d in geometry.dilation):
        raise UnsupportedError("with a dilation")
    settings: dict[str, Any] = {"ceil_mode": ceil, "count_include_pad": counted or not any(geometry.padding)}
    layer = _AVERAGE[len(geometry.kernel)](geometry.kernel, geometry.stride, geometry.padding, **settings)
    before = geometry.before(0.0)
    if before is None or counted:
        return Built(layer, (node.input(0),), before)
    if ceil:
        raise UnsupportedError("with rounding up and padding that differs between the two sides")
    return Built(partial(_average_of_inside, window=geometry), (node.input(0),))


def _average_of_inside(x: Tensor, window: Window) -> Tensor:
    pool = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[len(window.kernel) - 1]
    pad = window.before(0.0)
    if pad is None:
        return pool(x, window.kernel, window.stride)
    share = pool(pad(torch.ones_like(x[:1, :1])), window.kernel, window.stride)
    return pool(pad(x), window.kernel, window.stride) / share


@operator("GlobalAveragePool")
def global_average_pool(node: Node) -> Built:
    """The mean over all spatial axes."""
    layer = _GLOBAL_AVERAGE.get(node.rank())
    return node.call(layer(1) if layer is not None else partial(_over_image, reduce=torch.mean))


@operator("GlobalMaxPool")
def global_max_pool(node: Node) -> Built:
    """The maximum over all spatial axes."""
    layer = _GLOBAL_MAX.get(node.rank())
    return node.call(layer(1) if layer is not None else partial(_over_image, reduce=torch.amax))


def _over_image(x: Tensor, reduce: Any) -> Any:
    return reduce(x, dim=list(range(2, x.dim())), keepdim=True)
