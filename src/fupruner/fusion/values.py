"""What the graph says about values: constants, per-channel affine maps, bounds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from fupruner.fusion.algebra import has_statistics, norm_affine
from fupruner.fusion.rule import Context
from fupruner.graph import edit
from fupruner.graph.channelwise import ChannelClip
from fupruner.graph.shapes import shape_of

aten = torch.ops.aten

ANY = (-math.inf, math.inf)

_FIXED_BOUNDS: dict[type[nn.Module], tuple[float, float]] = {
    nn.Sigmoid: (0, 1), nn.Hardsigmoid: (0, 1), nn.Tanh: (-1, 1), nn.Softplus: (0, math.inf), nn.SiLU: (-0.2785, math.inf),
    nn.Hardswish: (-0.375, math.inf), nn.GELU: (-0.17, math.inf), nn.Mish: (-0.31, math.inf),
}  # fmt: skip
_INSIDE = (
    nn.MaxPool1d,
    nn.MaxPool2d,
    nn.MaxPool3d,
    nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d,
    nn.Dropout,
    nn.Identity,
    nn.Flatten,
)
_INSIDE_OPERATORS = {aten.reshape.default, aten.permute.default, aten.transpose.int, aten.slice.Tensor, aten.channel_shuffle.default,
                     aten.flip.default, aten.select.int, aten.contiguous.default}  # fmt: skip


@dataclass(frozen=True)
class Affine:
    """y = scale * x + shift along one axis of x.

    Attributes:
        source: x.
        axis: the axis along which scale and shift (C,) run; None when both are single numbers.
    """

    source: fx.Node
    scale: Tensor
    shift: Tensor
    axis: int | None


def affine_of(context: Context, node: object) -> Affine | None:
    """Understand a node as a per-channel affine map of one tensor: a norm, or arithmetic with a constant."""
    if not isinstance(node, fx.Node):
        return None
    module = context.module(node)
    if has_statistics(module):
        return Affine(node.all_input_nodes[0], *norm_affine(module), axis=1)
    if node.op != "call_function" or set(node.kwargs) - {"alpha"} or node.kwargs.get("alpha", 1) != 1:
        return None
    if node.target is aten.neg.default:
        return _affine(node.args[0], -1.0, 0.0)
    if len(node.args) != 2 or node.target not in _ARITHMETIC:
        return None
    left, right = (_constant(context, a) for a in node.args)
    return _ARITHMETIC[node.target](node, left, right)


def _constant(context: Context, value: Any) -> Any:
    """The tensor or number behind an argument, or None for one that depends on the input."""
    if isinstance(value, int | float):
        return float(value)
    if isinstance(value, fx.Node) and value.op == "get_attr":
        tensor = edit.get_attribute(context.graph_module, str(value.target))
        return tensor.detach().double() if isinstance(tensor, Tensor) and tensor.is_floating_point() else None
    return None


def _multiply(node: fx.Node, left: Any, right: Any) -> Affine | None:
    return _affine(node.args[0], right, 0.0) if left is None else _affine(node.args[1], left, 0.0)


def _add(node: fx.Node, left: Any, right: Any) -> Affine | None:
    return _affine(node.args[0], 1.0, right) if left is None else _affine(node.args[1], 1.0, left)


def _subtract(node: fx.Node, left: Any, right: Any) -> Affine | None:
    return (
        _affine(node.args[0], 1.0, None if right is None else -right)
        if left is None
        else _affine(node.args[1], -1.0, left)
    )


def _divide(node: fx.Node, left: Any, right: Any) -> Affine | None:
    if left is not None or right is None:
        return None
    return _affine(node.args[0], 1.0 / right, 0.0)


_ARITHMETIC = {
    aten.mul.Tensor: _multiply, aten.mul.Scalar: _multiply, aten.add.Tensor: _add, aten.add.Scalar: _add, aten.sub.Tensor: _subtract,
    aten.sub.Scalar: _subtract, aten.div.Tensor: _divide, aten.div.Scalar: _divide,
}  # fmt: skip


def _affine(source: Any, scale: Any, shift: Any) -> Affine | None:
    if not isinstance(source, fx.Node) or scale is None or shift is None or not shape_of(source):
        return None
    rank = len(shape_of(source))
    tensors = [torch.as_tensor(t, dtype=torch.float64) for t in (scale, shift)]
    axes = set()
    for tensor in tensors:
        if tensor.dim() > rank or not bool(torch.isfinite(tensor).all()):
            return None
        axes |= {i + rank - tensor.dim() for i, size in enumerate(tensor.shape) if size != 1}
    if not axes:
        return Affine(source, tensors[0].reshape(1), tensors[1].reshape(1), None)
    axis = next(iter(axes))
    size = shape_of(source)[axis]
    if len(axes) > 1 or axis == 0 or any(t.numel() not in (1, size) for t in tensors):
        return None
    wide = [t.reshape(-1).expand(size).clone() for t in tensors]
    return Affine(source, wide[0], wide[1], axis)


def bounds(context: Context, node: fx.Node, depth: int = 12) -> tuple[float, float]:
    """Bounds that the graph guarantees for every element of a value, looking back over at most ``depth`` operators."""
    if depth == 0 or not node.all_input_nodes:
        return ANY
    module = context.module(node)
    if module is None:
        return _operator_bounds(context, node, depth)
    if type(module) in _FIXED_BOUNDS:
        return _FIXED_BOUNDS[type(module)]
    low, high = clip_bounds(module) or ANY
    if not isinstance(module, (*_INSIDE, nn.AvgPool1d, nn.AvgPool2d)) and (low, high) == ANY:
        return ANY
    inner = bounds(context, node.all_input_nodes[0], depth - 1)
    if isinstance(module, nn.AvgPool1d | nn.AvgPool2d):  # padding mixes zeros in
        inner = (min(inner[0], 0.0), max(inner[1], 0.0)) if getattr(module, "divisor_override", None) is None else ANY
    return min(max(inner[0], low), high), max(min(inner[1], high), low)


def clip_bounds(module: nn.Module | None) -> tuple[float, float] | None:
    """Bounds to which an activation clips, the same for all channels; None for everything else."""
    if isinstance(module, nn.ReLU):
        return 0.0, math.inf
    if isinstance(module, nn.Hardtanh):  # ReLU6 is one
        return float(module.min_val), float(module.max_val)
    if (
        isinstance(module, ChannelClip)
        and float(module.low.max()) == float(module.low.min())
        and float(module.high.max()) == float(module.high.min())
    ):
        return float(module.low[0]), float(module.high[0])
    return None


def _operator_bounds(context: Context, node: fx.Node, depth: int) -> tuple[float, float]:
    if node.target in _INSIDE_OPERATORS:
        return bounds(context, node.all_input_nodes[0], depth - 1)
    if node.target is aten.cat.default:
        each = [bounds(context, n, depth - 1) for n in node.all_input_nodes]
        return min(low for low, _ in each), max(high for _, high in each)
    if node.target is aten.add.Tensor and len(node.args) == 2 and not node.kwargs and len(node.all_input_nodes) == 2:
        (a, b), (c, d) = (bounds(context, n, depth - 1) for n in node.all_input_nodes)
        return a + c, b + d
    return ANY


def is_nonnegative(context: Context, node: fx.Node) -> bool:
    """Whether the graph guarantees that a value is at least zero."""
    return bounds(context, node)[0] >= 0
