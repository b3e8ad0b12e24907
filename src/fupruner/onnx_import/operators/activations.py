"""Activations, softmax and dropout."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fupruner.onnx_import.node import Built, Node, UnsupportedError, operator
from fupruner.onnx_import.operators.layers import parameter
from fupruner.onnx_import.values import Value, operand

_PLAIN: dict[str, type[nn.Module]] = {
    "Relu": nn.ReLU, "Sigmoid": nn.Sigmoid, "Tanh": nn.Tanh, "Softplus": nn.Softplus, "Softsign": nn.Softsign, "HardSwish": nn.Hardswish,
    "Mish": nn.Mish, "Silu": nn.SiLU,
}  # fmt: skip


@operator(*_PLAIN)
def plain(node: Node) -> Built:
    """Activations without settings; Silu is not an ONNX operator but what a pattern makes of two."""
    return node.call(_PLAIN[node.op]())


@operator("Clip")
def clip(node: Node) -> Built:
    """A clip; from 0 it is a ReLU, from 0 to 6 a ReLU6."""
    if node.opset >= 11 and any(node.input(i) and node.constant(i) is None for i in (1, 2)):
        return node.call(_clip)
    low, high = (_bound(node, i, name) for i, name in ((1, "min"), (2, "max")))
    if (low, high) == (0.0, None):
        return node.call(nn.ReLU(), 1)
    if (low, high) == (0.0, 6.0):
        return node.call(nn.ReLU6(), 1)
    if low is None or high is None or low >= high:
        return node.call(partial(torch.clamp, min=low, max=high) if (low, high) != (None, None) else nn.Identity(), 1)
    return node.call(nn.Hardtanh(low, high), 1)


def _bound(node: Node, position: int, name: str) -> float | None:
    value = node.attribute(name) if node.opset < 11 else node.constant(position)
    number = None if value is None else float(value.item() if hasattr(value, "item") else value)
    return None if number is None or abs(number) >= torch.finfo(torch.float32).max else number


def _clip(x: Tensor, low: Value | None = None, high: Value | None = None) -> Tensor:
    return torch.clamp(x, *(None if bound is None else operand(bound, x) for bound in (low, high)))


@operator("LeakyRelu")
def leaky_relu(node: Node) -> Built:
    """Leaky ReLU with its slope."""
    return node.call(nn.LeakyReLU(node.attribute("alpha", 0.01)))


@operator("Elu")
def elu(node: Node) -> Built:
    """ELU with its alpha."""
    return node.call(nn.ELU(node.attribute("alpha", 1.0)))


@operator("Selu")
def selu(node: Node) -> Built:
    """SELU with the constants of its paper."""
    given = (node.attribute("alpha", 1.67326319), node.attribute("gamma", 1.05070102))
    if any(abs(a - b) > 1e-5 for a, b in zip(given, (1.67326319, 1.05070102), strict=True)):
        raise UnsupportedError("with other constants than its paper's")
    return node.call(nn.SELU())


@operator("Celu")
def celu(node: Node) -> Built:
    """CELU with its alpha."""
    return node.call(nn.CELU(node.attribute("alpha", 1.0)))


@operator("ThresholdedRelu")
def thresholded_relu(node: Node) -> Built:
    """Zero up to a threshold, the identity above it."""
    return node.call(nn.Threshold(node.attribute("alpha", 1.0), 0.0))


@operator("HardSigmoid")
def hard_sigmoid(node: Node) -> Built:
    """PyTorch's hard sigmoid has slope 1/6 and offset 1/2; others are computed."""
    alpha, beta = node.attribute("alpha", 0.2), node.attribute("beta", 0.5)
    if abs(alpha - 1 / 6) < 1e-6 and beta == 0.5:
        return node.call(nn.Hardsigmoid())
    return node.call(partial(_hard_sigmoid, alpha=alpha, beta=beta))


def _hard_sigmoid(x: Tensor, alpha: float, beta: float) -> Tensor:
    return torch.clamp(alpha * x + beta, 0.0, 1.0)


@operator("Gelu")
def gelu(node: Node) -> Built:
    """GELU, exact or by tanh."""
    return node.call(nn.GELU(approximate=node.attribute("approximate", "none")))


@operator("PRelu")
def prelu(node: Node) -> Built:
    """PReLU with a slope per channel as a layer; any other slope is computed."""
    slope = node.required(1, "slope")
    rank = node.rank()
    per_channel = slope.size == 1 or (rank is not None and slope.ndim == rank - 1 and slope.size == slope.shape[0])
    if not per_channel:
        return node.call(_prelu)
    layer = nn.PReLU(slope.size)
    layer.weight = parameter(slope.reshape(-1))
    return node.call(layer, 1)


def _prelu(x: Tensor, slope: Value) -> Tensor:
    return torch.where(x > 0, x, x * operand(slope, x))


@operator("Softmax", "LogSoftmax")
def softmax(node: Node) -> Built:
    """Softmax over one axis; before operator set 13 over this axis and all that follow."""
    layer = nn.Softmax if node.op == "Softmax" else nn.LogSoftmax
    axis = node.attribute("axis", 1 if node.opset < 13 else -1)
    if node.opset >= 13 or axis == -1 or (node.rank() is not None and axis + 1 == node.rank()):
        return node.call(layer(dim=axis))
    return node.call(partial(_flat_softmax, axis=axis, function=F.softmax if node.op == "Softmax" else F.log_softmax))


def _flat_softmax(x: Tensor, axis: int, function: Any) -> Any:
    return function(x.flatten(axis % x.dim()), dim=-1).reshape(x.shape)


@operator("Dropout")
def dropout(node: Node) -> Built:
    """Dropout, which does nothing in evaluation."""
    if len([name for name in node.proto.output if name]) > 1:
        raise UnsupportedError("with its mask as an output")
    ratio = node.attribute("ratio", 0.5) if node.opset < 12 else node.constant(1)
    return node.call(nn.Dropout(0.5 if ratio is None else float(ratio)), 1)
