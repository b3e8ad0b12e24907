"""What the vendor's compiler makes of a network: stages, and the engine cycles behind them.

A stage is one operation of the device's schedule: a convolution on an engine, an addition on the vector processors, a copy
between memories. Numbers of stages are held against the compiler's in the tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, isqrt, prod

from fupruner.graph.layer_shape import LayerShape
from fupruner.targets.myriad.hardware import OUTPUT_BYTES, Cut, Window, cut_convolution, cut_pool

_LARGEST_KERNEL = 15
_FROM_OUTSIDE = 4
"""A convolution with at most so many input channels is the first one: its input comes from outside and is copied."""


@dataclass(frozen=True)
class Stages:
    """How one layer is run.

    Attributes:
        count: stages of the schedule.
        cost: engine cycles per output pixel, as the compiler counts them, summed over pieces; 0 without an engine.
        cycles: engine cycles in all.
        moved: bytes that the vector processors read and write.
        pooled: bytes that pools read and write.
        depthwise, dense: operations (two per multiply-add) of depthwise convolutions and of linear layers.
    """

    count: int
    cost: int = 0
    cycles: float = 0.0
    moved: int = 0
    pooled: int = 0
    depthwise: int = 0
    dense: int = 0


def total_stages(layers: Sequence[LayerShape], *, engine: bool = True) -> int:
    """Stages of a network: those of its layers, and the conversion of input and output.

    Args:
        layers: in order.
        engine: whether the device has convolution engines (Myriad X) or not (Myriad 2).
    """
    ends = 2 if engine else 3  # without an engine the input is also brought to channels-last
    tight = (
        sum(_averages_in_software(pool) and after.kind == "linear" for pool, after in pairwise(layers)) if engine else 0
    )
    return ends - tight + sum(layer_stages(layer, engine=engine).count for layer in layers)


def _averages_in_software(layer: LayerShape) -> bool:
    """A global average over a plane larger than an engine's kernel: its result is packed, and is not copied to be reshaped."""
    whole = layer.kind.replace("_", "").lower() == "adaptiveavgpool2d" and layer.out_shape[1:] == (1, 1)
    return whole and max(layer.in_shape[1:], default=0) > _LARGEST_KERNEL


def layer_stages(layer: LayerShape, *, engine: bool = True) -> Stages:
    """How one layer is run, with its Add and its activation."""
    kind = layer.kind.replace("_", "").lower()
    if kind == "conv":
        own = _convolution(layer, engine)
    elif kind == "linear":
        own = _linear(layer, engine)
    elif kind in ("maxpool2d", "avgpool2d", "adaptiveavgpool2d", "mean"):
        own = _pool(layer, engine)
    elif kind in ("cat", "flatten", "reshape"):
        own = Stages(1)
    elif kind in ("add", "sub", "mul") and layer.inputs > 1:
        own = Stages(_sums(layer, engine), moved=_bytes(layer.in_shape) * layer.inputs + _bytes(layer.out_shape))
    else:
        own = Stages(1, moved=_bytes(layer.in_shape) + _bytes(layer.out_shape))
    return own


def _convolution(layer: LayerShape, engine: bool) -> Stages:
    cut = _cut(layer) if engine else None
    add = _sums(layer, engine) if layer.fused_add else 0
    moved = 3 * _bytes(layer.out_shape) if layer.fused_add else 0
    if layer.groups > 1 and layer.groups == layer.in_shape[0]:
        carried = _bytes(layer.in_shape) + _bytes(layer.out_shape) if engine else 0
        return Stages(1 + add, moved=moved + carried, depthwise=2 * layer.macs)
    if cut is None:
        apart = 1  # bias, and a ReLU with it; a ReLU behind an Add belongs to the Add
        return Stages(1 + apart + add, moved=moved + 2 * _bytes(layer.out_shape), cycles=_vector_cycles(layer))
    count = layer.groups * _pieces(cut, _bytes(layer.out_shape), bool(layer.activation) and not layer.fused_add)
    if layer.groups > 1:
        count += 2
    if layer.in_shape[0] % cut.block:
        count += 2 if layer.in_shape[0] <= _FROM_OUTSIDE else 1
    pieces = cut.rows * cut.columns * cut.depths * layer.groups
    return Stages(count + add, cut.cost * pieces, cut.cycles * layer.groups, moved)


def _pieces(cut: Cut, out_bytes: int, activated: bool) -> int:
    """Stages of a convolution that is cut: pieces, sums of partial results, copies to where the whole is put together."""
    planes = cut.rows * cut.columns
    count = planes * cut.depths
    if planes > 1 or cut.depths > 1:
        count += 1  # the view of the input
    if planes > 1:
        copies = planes if out_bytes > OUTPUT_BYTES else cut.trimmed
        count += 1 + copies + cut.trimmed * cut.depths
    if cut.depths > 1:
        count += planes * (cut.depths - 1 + activated)
    return count


def _cut(layer: LayerShape) -> Cut | None:
    """The cut of a convolution that an engine can run: square kernel, no dilation."""
    if len(layer.kernel) != 2 or layer.kernel[0] != layer.kernel[1] or layer.stride[0] != layer.stride[1]:
        return None
    if any(d > 1 for d in layer.dilation) or layer.kernel[0] > _LARGEST_KERNEL or layer.padding[0] != layer.padding[1]:
        return None
    (channels, height, width), (outputs, out_height, out_width) = layer.in_shape, layer.out_shape
    return cut_convolution(
        Window(channels // layer.groups, height, width, outputs // layer.groups, out_height, out_width,
               layer.kernel[0], layer.stride[0], layer.padding[0])
    )  # fmt: skip


def _linear(layer: LayerShape, engine: bool) -> Stages:
    """A linear layer: on an engine a convolution whose kernel covers its input, folded into a square."""
    inputs, outputs, dense = layer.in_shape[-1], layer.out_shape[-1], 2 * layer.macs
    activation = 1 if layer.activation and not engine else 0
    if not engine:
        return Stages(3 + activation, dense=dense)
    side = max(k for k in range(1, min(_LARGEST_KERNEL, isqrt(inputs)) + 1) if inputs % (k * k) == 0)
    cut = cut_convolution(Window(inputs // side**2, side, side, outputs, 1, 1, side, 1, 0))
    if cut is None:
        return Stages(5, dense=dense)
    expand = 1 if (inputs // side**2) % cut.block else 0
    align = 1 if side % 8 else 0
    return Stages(4 + expand + align + _pieces(cut, 2 * outputs, bool(layer.activation)), cut.cost, cut.cycles, dense=dense)  # fmt: skip


def _pool(layer: LayerShape, engine: bool) -> Stages:
    pooled = _bytes(layer.in_shape) + _bytes(layer.out_shape)
    whole = layer.kind.replace("_", "").lower() == "adaptiveavgpool2d" and len(layer.in_shape) == 3
    if engine and whole and layer.out_shape[1:] == (1, 1) and not _averages_in_software(layer):
        pixels = layer.in_shape[1] * layer.in_shape[2]
        return Stages(1, cycles=ceil(layer.in_shape[0] / 16) * float(pixels), pooled=pooled)
    if not engine or len(layer.kernel) != 2 or len(set(layer.kernel)) > 1:
        return Stages(1, pooled=pooled)
    (channels, height, width), (_, out_height, out_width) = layer.in_shape, layer.out_shape
    cut = cut_pool(
        Window(channels, height, width, channels, out_height, out_width, layer.kernel[0], layer.stride[0], layer.padding[0])
    )  # fmt: skip
    if cut is None:
        return Stages(1, pooled=pooled)
    return Stages(_pieces(cut, _bytes(layer.out_shape), False), cycles=cut.cycles, pooled=pooled)


def _sums(layer: LayerShape, engine: bool) -> int:
    """Stages of an Add: the ReLU behind it is merged where channels come last, or lines are whole units of 16 bytes."""
    aligned = not engine or (bool(layer.out_shape) and layer.out_shape[-1] % 8 == 0)
    return 1 if aligned or layer.activation != "relu" else 2


def _vector_cycles(layer: LayerShape) -> float:
    """Cycles of a convolution on the vector processors: 8 half-precision multiply-adds each."""
    return layer.macs / 8


def _bytes(shape: tuple[int, ...]) -> int:
    """Bytes in half precision, lines rounded up to 16 bytes."""
    return prod(shape[:-1]) * ceil(2 * shape[-1] / 16) * 16 if len(shape) == 3 else 2 * prod(shape)
