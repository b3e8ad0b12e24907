"""Element-wise arithmetic, comparisons and reductions, on tensors and on sizes alike."""

from __future__ import annotations

import math
import operator as python
from collections.abc import Callable
from functools import partial, reduce
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fupruner.onnx_import.node import Built, Node, UnsupportedError, operator
from fupruner.onnx_import.values import Value, array, first_tensor, on_host, operand, settle, tensor

Function = Callable[..., Any]

_BINARY: dict[str, Function] = {
    "Add": python.add, "Sub": python.sub, "Mul": python.mul, "Pow": python.pow,
    "Equal": python.eq, "Greater": python.gt, "GreaterOrEqual": python.ge, "Less": python.lt, "LessOrEqual": python.le,
    "And": python.and_, "Or": python.or_, "Xor": python.xor,
}  # fmt: skip
_UNARY: dict[str, Function] = {
    "Abs": torch.abs, "Neg": torch.neg, "Exp": torch.exp, "Log": torch.log, "Sqrt": torch.sqrt, "Reciprocal": torch.reciprocal,
    "Erf": torch.erf, "Sin": torch.sin, "Cos": torch.cos, "Floor": torch.floor, "Ceil": torch.ceil, "Round": torch.round,
    "Sign": torch.sign, "Not": torch.logical_not,
}  # fmt: skip
_HOST_UNARY: dict[str, Function] = {
    "Abs": abs, "Neg": python.neg, "Floor": math.floor, "Ceil": math.ceil, "Round": round, "Sqrt": math.sqrt, "Not": python.not_
}  # fmt: skip
_REDUCTIONS: dict[str, Function] = {
    "ReduceMean": torch.mean, "ReduceSum": torch.sum, "ReduceMax": torch.amax, "ReduceMin": torch.amin,
    "ReduceL2": torch.linalg.vector_norm,
}  # fmt: skip
_HOST_REDUCTIONS: dict[str, Function] = {
    "ReduceProd": np.prod, "ReduceSum": np.sum, "ReduceMax": np.max, "ReduceMin": np.min
}  # fmt: skip
_MANY: dict[str, tuple[Function, Function]] = {
    "Sum": (python.add, python.add), "Max": (torch.maximum, np.maximum), "Min": (torch.minimum, np.minimum)
}  # fmt: skip


@operator(*_BINARY)
def binary(node: Node) -> Built:
    """Two operands that broadcast."""
    return node.call(partial(_binary, function=_BINARY[node.op]))


def _binary(a: Value, b: Value, function: Function) -> Any:
    if on_host(a, b):
        return array(function(a, b))
    like = first_tensor(a, b)
    return function(operand(a, like), operand(b, like))


@operator("Div")
def div(node: Node) -> Built:
    """Division, of integers towards zero."""
    return node.call(_div)


def _div(a: Value, b: Value) -> Any:
    if not on_host(a, b):
        like = first_tensor(a, b)
        if like.is_floating_point():
            return operand(a, like) / operand(b, like)
        return torch.div(tensor(a, like), tensor(b, like), rounding_mode="trunc")
    if np.issubdtype(np.asarray(a).dtype, np.floating):
        return array(python.truediv(a, b))
    return array(python.floordiv(a, b))  # sizes are not negative


@operator("Mod")
def mod(node: Node) -> Built:
    """The rest of a division."""
    return node.call(partial(_binary, function=torch.fmod if node.attribute("fmod", 0) else python.mod))


@operator(*_MANY)
def many(node: Node) -> Built:
    """Sum, maximum and minimum of any number of operands."""
    return node.call(partial(_many, functions=_MANY[node.op]))


def _many(*values: Value, functions: tuple[Function, Function]) -> Any:
    if on_host(*values):
        return array(reduce(functions[1], values))
    like = first_tensor(*values)
    return reduce(functions[0], [tensor(value, like) for value in values])


@operator("Mean")
def mean(node: Node) -> Built:
    """Mean of several operands."""
    return node.call(_mean)


def _mean(*values: Value) -> Any:
    return _many(*values, functions=_MANY["Sum"]) / len(values)


@operator(*_UNARY)
def unary(node: Node) -> Built:
    """One operand; rounding also of sizes."""
    return node.call(partial(_unary, function=_UNARY[node.op], name=node.op))


def _unary(x: Value, function: Function, name: str) -> Any:
    if not isinstance(x, np.ndarray):
        return function(x)
    made = np.empty(x.shape, dtype=object)
    made.reshape(-1)[:] = [_HOST_UNARY[name](item) for item in x.reshape(-1).tolist()]
    return made.astype(x.dtype) if x.dtype != object else settle(made)


@operator("Where")
def where(node: Node) -> Built:
    """Choice between two values, element by element."""
    return node.call(_where)


def _where(condition: Value, a: Value, b: Value) -> Any:
    if on_host(condition, a, b):
        return settle(np.where(np.asarray(condition, dtype=bool), a, b))
    like = first_tensor(a, b, condition)
    return torch.where(tensor(condition, like).bool(), tensor(a, like), tensor(b, like))


@operator(*{*_REDUCTIONS, *_HOST_REDUCTIONS})
def reduction(node: Node) -> Built:
    """A reduction over given axes, or over all."""
    axes = node.axes(1)
    if not axes and node.attribute("noop_with_empty_axes", 0):
        return node.call(_same, 1)
    return node.call(partial(_reduce, name=node.op, axes=axes, keep=bool(node.attribute("keepdims", 1))), 1)


def _same(x: Value) -> Value:
    return x


def _reduce(x: Value, name: str, axes: tuple[int, ...], keep: bool) -> Any:
    if isinstance(x, np.ndarray):
        return array(_HOST_REDUCTIONS[name](x, axis=axes or None, keepdims=keep))
    dims = list(axes) or list(range(x.dim()))
    if name == "ReduceProd":
        return reduce(lambda y, dim: y.prod(dim, keepdim=keep), sorted((d % x.dim() for d in dims), reverse=True), x)
    return _REDUCTIONS[name](x, dim=dims, keepdim=keep)


@operator("ReduceL1")
def reduce_l1(node: Node) -> Built:
    """Sum of absolute values."""
    return node.call(partial(_norm, order=1, axes=node.axes(1), keep=bool(node.attribute("keepdims", 1))), 1)


@operator("LpNormalization")
def lp_normalization(node: Node) -> Built:
    """Division by the norm over an axis."""
    return node.call(partial(_normalised, order=node.attribute("p", 2), axis=node.attribute("axis", -1)))


def _norm(x: Tensor, order: int, axes: tuple[int, ...], keep: bool) -> Any:
    return torch.linalg.vector_norm(x, order, list(axes) or None, keepdim=keep)


def _normalised(x: Tensor, order: int, axis: int) -> Any:
    return x / _norm(x, order, (axis,), keep=True)


@operator("ArgMax", "ArgMin")
def arg_extreme(node: Node) -> Built:
    """Position of the largest or smallest value along an axis; the first where several are equal."""
    if node.attribute("select_last_index", 0):
        raise UnsupportedError("with select_last_index")
    function = torch.argmax if node.op == "ArgMax" else torch.argmin
    keep = bool(node.attribute("keepdims", 1))
    return node.call(partial(function, dim=node.attribute("axis", 0), keepdim=keep))
