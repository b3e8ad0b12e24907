"""Puts layers onto a sheet, each in conditions like those inside a network."""

from __future__ import annotations

from fupruner.graph.layer_shape import LayerShape
from fupruner.targets.probe_ops import build_layer, second_operands, stands_alone
from fupruner.targets.sheet import Sheet

_SOURCE_CHANNELS = 16
_IMAGE_CHANNELS = 4


def add_layer(sheet: Sheet, index: int, layer: LayerShape) -> None:
    """Put one layer onto a sheet.

    A layer with at most four input channels reads the sheet's input, as the first layer of a network does. Any other
    reads what a 1x1 convolution made. Element-wise layers read a pooled copy of that: the runtime would merge them into
    the convolution, and in a network they stand alone for want of one.
    """
    pooled = stands_alone(layer)
    others = [_source(sheet, f"s{index}_{k}", shape, pooled) for k, shape in enumerate(second_operands(layer))]
    source = _source(sheet, f"p{index}", layer.in_shape, pooled)
    output = build_layer(sheet, f"q{index}", layer, source, others)
    if len(layer.out_shape) == 3:
        sheet.node("GlobalAveragePool", [output], f"t{index}")
    else:
        sheet.node("ReduceMean", [output], f"t{index}", axes=list(range(1, len(layer.out_shape) + 1)), keepdims=1)


def _source(sheet: Sheet, name: str, shape: tuple[int, ...], pooled: bool) -> str:
    channels, spatial = shape[0], shape[1:]
    if len(spatial) != 2 or channels <= _IMAGE_CHANNELS:
        return sheet.node("Abs", [sheet.input(shape, owner=name)], name)  # the runtime makes equal nodes one
    weight = sheet.weight(f"{name}_w", (channels, _SOURCE_CHANNELS, 1, 1))
    made = sheet.node("Conv", [sheet.input((_SOURCE_CHANNELS, *spatial)), weight], f"{name}_c" if pooled else name)
    return sheet.node("MaxPool", [made], name, kernel_shape=[1, 1]) if pooled else made
