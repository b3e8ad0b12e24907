"""Shapes, types and the order of axes."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from fupruner.onnx_import.node import Built, Node, UnsupportedError, operator
from fupruner.onnx_import.values import Value, host, integers, on_host, product, settle, tensor

_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE, onnx.TensorProto.BFLOAT16)
_TYPES = {
    onnx.TensorProto.INT64: torch.int64, onnx.TensorProto.INT32: torch.int32, onnx.TensorProto.BOOL: torch.bool,
    onnx.TensorProto.UINT8: torch.uint8, onnx.TensorProto.INT8: torch.int8, onnx.TensorProto.INT16: torch.int16,
}  # fmt: skip


@operator("Identity")
def identity(node: Node) -> Built:
    """The value itself."""
    return node.call(_identity)


def _identity(x: Value) -> Value:
    return x


@operator("Shape")
def shape(node: Node) -> Built:
    """Sizes of a tensor, or some of them."""
    return node.call(partial(_shape, start=node.attribute("start", 0), end=node.attribute("end"), rank=node.rank()))


def _shape(x: Value, start: int, end: int | None, rank: int | None) -> Value:
    return host([x.shape[i] for i in range(len(x.shape) if rank is None else rank)][start:end])


@operator("Size")
def size(node: Node) -> Built:
    """Number of elements."""
    return node.call(_size)


def _size(x: Value) -> Value:
    return host([product(x.shape)]).reshape(())


@operator("Cast")
def cast(node: Node) -> Built:
    """Another type; between floating-point types nothing happens, since the whole network has one precision."""
    to = node.attribute("to")
    if to not in _FLOATS and to not in _TYPES:
        raise UnsupportedError(f"to {onnx.TensorProto.DataType.Name(to)}")
    return node.call(partial(_cast, to=None if to in _FLOATS else _TYPES[to]))


@operator("CastLike")
def cast_like(node: Node) -> Built:
    """The type of another tensor."""
    return node.call(_cast_like)


def _cast_like(x: Value, like: Value) -> Value:
    floating = like.is_floating_point() if isinstance(like, Tensor) else np.issubdtype(like.dtype, np.floating)
    return _cast(x, None if floating else torch.int64)


def _cast(x: Value, to: torch.dtype | None) -> Value:
    if not isinstance(x, np.ndarray):
        floating = x.is_floating_point() and to is None
        return x if floating else x.to(to or torch.get_default_dtype())
    if x.dtype == object:
        return x
    return x.astype(np.float32 if to is None else bool if to == torch.bool else np.int64)


@operator("Reshape")
def reshape(node: Node) -> Built:
    """Another shape with the same elements."""
    if _is_flatten(node):
        return node.call(nn.Flatten(1), 1)
    return node.call(partial(_reshape, keep_zeros=bool(node.attribute("allowzero", 0))))


def _is_flatten(node: Node) -> bool:
    """Whether a shape says, with or without numbers, that everything but the batch becomes one axis.

    Said without numbers it also holds once channels are removed.
    """
    sizes, shape = node.constant(1), node.shape(0)
    if sizes is None or shape is None or sizes.size != 2 or len(shape) < 2 or node.attribute("allowzero", 0):
        return False
    rows, columns = sizes.tolist()
    rest = [size for size in shape[1:] if size is not None]
    whole = len(rest) == len(shape) - 1 and product(rest) == columns
    return (rows == 0 and (columns == -1 or whole)) or (rows == -1 and whole)


def _reshape(x: Value, sizes: Value, keep_zeros: bool) -> Any:
    wanted = integers(sizes)
    if not keep_zeros:
        wanted = [x.shape[i] if _is(size, 0) else size for i, size in enumerate(wanted)]
    return x.reshape(wanted)


def _is(size: Any, number: int) -> bool:
    return isinstance(size, int) and size == number


@operator("Flatten")
def flatten(node: Node) -> Built:
    """A matrix."""
    axis = node.attribute("axis", 1)
    return node.call(nn.Flatten(1) if axis == 1 else partial(_flatten, axis=axis))


def _flatten(x: Tensor, axis: int) -> Tensor:
    axis = axis if axis >= 0 else x.dim() + axis
    return x.reshape(product(x.shape[:axis]), product(x.shape[axis:]))


@operator("Transpose")
def transpose(node: Node) -> Built:
    """Another order of axes, by default the reverse one."""
    return node.call(partial(_transpose, order=node.attribute("perm")))


def _transpose(x: Value, order: list[int] | None) -> Value:
    order = order or list(range(len(x.shape)))[::-1]
    return x.transpose(order) if isinstance(x, np.ndarray) else x.permute(order)


@operator("Squeeze")
def squeeze(node: Node) -> Built:
    """Without axes of size one: those given, or all but the batch."""
    return node.call(partial(_squeeze, axes=node.axes(1)), 1)


def _squeeze(x: Value, axes: tuple[int, ...]) -> Value:
    axes = axes or tuple(i for i, size in enumerate(x.shape) if _is(size, 1))
    return x.squeeze(axis=axes) if isinstance(x, np.ndarray) else x.squeeze(axes)


@operator("Unsqueeze")
def unsqueeze(node: Node) -> Built:
    """With further axes of size one."""
    return node.call(partial(_unsqueeze, axes=node.axes(1)), 1)


def _unsqueeze(x: Value, axes: tuple[int, ...]) -> Value:
    if isinstance(x, np.ndarray):
        return np.expand_dims(x, axes)
    for axis in sorted(axis if axis >= 0 else axis + x.dim() + len(axes) for axis in axes):
        x = x.unsqueeze(axis)
    return x


@operator("Expand")
def expand(node: Node) -> Built:
    """Broadcast to a shape that may itself be smaller than the input."""
    return node.call(_expand)


def _expand(x: Value, sizes: Value) -> Any:
    wanted, known = integers(sizes), list(x.shape)
    rank = max(len(wanted), len(known))
    wanted, known = ([1] * (rank - len(side)) + side for side in (wanted, known))
    shape = [have if _is(want, 1) else want for want, have in zip(wanted, known, strict=True)]
    if not isinstance(x, np.ndarray):
        return x.expand(shape)
    if all(isinstance(want, int) for want in shape):
        return np.broadcast_to(x, shape)
    return tensor(x, torch.empty(0)).expand(shape)


@operator("Tile")
def tile(node: Node) -> Built:
    """Copies side by side."""
    return node.call(_tile)


def _tile(x: Value, repeats: Value) -> Any:
    return np.tile(x, integers(repeats)) if isinstance(x, np.ndarray) else x.repeat(integers(repeats))


@operator("ConstantOfShape")
def constant_of_shape(node: Node) -> Built:
    """A tensor filled with one number."""
    given = node.attribute("value")
    value = np.zeros(1, np.float32) if given is None else onnx.numpy_helper.to_array(given)
    return node.call(partial(_filled, value=value.reshape(-1)[0].item()))


def _filled(sizes: Value, value: float) -> Any:
    shape = integers(sizes)
    plain = all(isinstance(size, int) for size in shape)
    return np.full(shape, value) if plain and not isinstance(value, float) else torch.full(shape, value)


@operator("Range")
def numbers(node: Node) -> Built:
    """Numbers at equal distances."""
    return node.call(_range)


def _range(start: Value, end: Value, step: Value) -> Any:
    limits = [integers(value)[0] for value in (start, end, step)]
    if not on_host(start, end, step) or not all(isinstance(limit, int | float) for limit in limits):
        return torch.arange(*limits)
    return settle(np.arange(*limits))
