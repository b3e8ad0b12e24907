"""Operators with weights: convolutions, linear layers, norms."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fupruner.onnx_import.node import Built, Node, UnsupportedError, operator
from fupruner.onnx_import.operators.padding import window
from fupruner.onnx_import.values import Array

_CONVS: dict[int, type[nn.Module]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED: dict[int, type[nn.Module]] = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_FUNCTIONS: dict[int, Callable[..., Tensor]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_NORMS: dict[int | None, type[nn.Module]] = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
_INSTANCE: dict[int | None, type[nn.Module]] = {3: nn.InstanceNorm1d, 4: nn.InstanceNorm2d, 5: nn.InstanceNorm3d}


def parameter(value: Array) -> nn.Parameter:
    """A trainable copy of a constant."""
    return nn.Parameter(torch.from_numpy(np.array(value)))


def _fill(module: nn.Module, **tensors: Array | None) -> nn.Module:
    """Give a module made on the meta device its weights."""
    for name, value in tensors.items():
        if value is None:
            continue
        if name in module._buffers:
            module._buffers[name] = torch.from_numpy(np.array(value))
        else:
            module._parameters[name] = parameter(value)
    return module


@operator("Conv")
def conv(node: Node) -> Built:
    """A convolution layer; a function where the weights are computed."""
    weight, bias = node.constant(1), node.constant(2)
    groups = node.attribute("group", 1)
    shape = weight.shape if weight is not None else node.shape(1)
    if shape is None or len(shape) - 2 not in _CONVS:
        raise UnsupportedError("with other than 1, 2 or 3 spatial axes")
    kernel = node.attribute("kernel_shape", shape[2:])
    if None in kernel:
        raise UnsupportedError("with a kernel of unknown size")
    geometry = window(node, kernel)
    settings = {"stride": geometry.stride, "padding": geometry.padding, "dilation": geometry.dilation, "groups": groups}
    if weight is None or (bias is None and node.input(2)):
        return Built(partial(_FUNCTIONS[len(kernel)], **settings), tuple(node.proto.input), geometry.before(0.0))
    layer = _CONVS[len(kernel)](
        weight.shape[1] * groups, weight.shape[0], tuple(kernel), bias=bias is not None, device="meta", **settings
    )
    return Built(_fill(layer, weight=weight, bias=bias), (node.input(0),), geometry.before(0.0))


@operator("ConvTranspose")
def conv_transpose(node: Node) -> Built:
    """A transposed convolution layer; padding on one side only becomes output padding where it can."""
    weight = node.required(1, "weight")
    bias = node.required(2, "bias") if node.input(2) else None
    n = weight.ndim - 2
    if n not in _TRANSPOSED:
        raise UnsupportedError("with other than 1, 2 or 3 spatial axes")
    if node.attribute("output_shape") or node.attribute("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        raise UnsupportedError("with a given output shape or automatic padding")
    stride, dilation = node.attribute("strides", [1] * n), node.attribute("dilations", [1] * n)
    pads, extra = node.attribute("pads", [0] * (2 * n)), node.attribute("output_padding", [0] * n)
    begin, end = pads[:n], pads[n:]
    extra = [more + b - e for more, b, e in zip(extra, begin, end, strict=True)]
    if any(not 0 <= more < max(s, d) for more, s, d in zip(extra, stride, dilation, strict=True)):
        raise UnsupportedError("with padding that differs between the two sides")
    groups = node.attribute("group", 1)
    layer = _TRANSPOSED[n](
        weight.shape[0], weight.shape[1] * groups, tuple(weight.shape[2:]), stride=tuple(stride), padding=tuple(begin),
        output_padding=tuple(extra), dilation=tuple(dilation), groups=groups, bias=bias is not None, device="meta",
    )  # fmt: skip
    return Built(_fill(layer, weight=weight, bias=bias), (node.input(0),))


@operator("Gemm")
def gemm(node: Node) -> Built:
    """A linear layer with alpha and beta in its weights; a function where these are computed."""
    alpha, beta = node.attribute("alpha", 1.0), node.attribute("beta", 1.0)
    turn_a, turn_b = bool(node.attribute("transA", 0)), bool(node.attribute("transB", 0))
    weight, bias = node.constant(1), node.constant(2)
    if (
        weight is None
        or turn_a
        or (bias is None and node.input(2))
        or not _is_bias(bias, weight.shape[0 if turn_b else 1])
    ):
        return node.call(partial(_general_gemm, alpha=alpha, beta=beta, turn_a=turn_a, turn_b=turn_b))
    weight = alpha * (weight if turn_b else weight.T)
    return Built(_linear(weight, None if bias is None else beta * bias), (node.input(0),))


@operator("MatMul")
def matmul(node: Node) -> Built:
    """A linear layer where the right side is a constant matrix; a third input, put there by a pattern, is its bias."""
    weight = node.constant(1)
    if weight is None or weight.ndim != 2:
        return node.call(torch.matmul, 2)
    return Built(_linear(weight.T, node.constant(2)), (node.input(0),))


@operator("Einsum")
def einsum(node: Node) -> Built:
    """A sum of products, as its equation says."""
    return node.call(partial(torch.einsum, str(node.attribute("equation", ""))))


def _is_bias(bias: Array | None, features: int) -> bool:
    return bias is None or bias.size == 1 or (bias.size == features and bias.shape[-1] == features)


def _linear(weight: Array, bias: Array | None) -> nn.Module:
    outputs, inputs = weight.shape
    layer = nn.Linear(inputs, outputs, bias=bias is not None, device="meta")
    wide = None if bias is None else np.broadcast_to(bias.reshape(-1), (outputs,)).astype(weight.dtype)
    return _fill(layer, weight=np.ascontiguousarray(weight, dtype=np.float32), bias=wide)


def _general_gemm(
    a: Tensor, b: Tensor, c: Any = None, *, alpha: float, beta: float, turn_a: bool, turn_b: bool
) -> Tensor:
    product = alpha * ((a.t() if turn_a else a) @ (b.t() if turn_b else b))
    if c is None:
        return product
    return product + beta * (c if isinstance(c, Tensor) else torch.as_tensor(c, dtype=product.dtype))


class _AnyRankNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm for a value whose number of axes the file does not tell."""

    def _check_input_dim(self, input: Tensor) -> None:
        pass


@operator("BatchNormalization")
def batch_norm(node: Node) -> Built:
    """A batch norm with its running statistics."""
    if node.attribute("training_mode", 0) or len([name for name in node.proto.output if name]) > 1:
        raise UnsupportedError("in training mode")
    names = ("weight", "bias", "running_mean", "running_var")
    tensors = {name: node.required(i, name) for i, name in enumerate(names, 1)}
    momentum = 1 - node.attribute("momentum", 0.9)
    layer = _NORMS.get(node.rank(), _AnyRankNorm)(
        tensors["weight"].size, eps=node.attribute("epsilon", 1e-5), momentum=momentum
    )
    return Built(_fill(layer, **tensors), (node.input(0),))


@operator("InstanceNormalization")
def instance_norm(node: Node) -> Built:
    """An instance norm, or a function where the number of axes is not known."""
    weight, bias, eps = node.required(1, "scale"), node.required(2, "bias"), node.attribute("epsilon", 1e-5)
    if node.rank() not in _INSTANCE:
        return node.call(partial(_instance_norm, eps=eps))
    layer = _INSTANCE[node.rank()](weight.size, eps=eps, affine=True)
    return Built(_fill(layer, weight=weight, bias=bias), (node.input(0),))


def _instance_norm(x: Tensor, weight: Any, bias: Any, *, eps: float) -> Tensor:
    weight, bias = (torch.as_tensor(value, dtype=x.dtype).reshape(-1) for value in (weight, bias))
    return F.instance_norm(x, weight=weight, bias=bias, eps=eps)


@operator("LayerNormalization")
def layer_norm(node: Node) -> Built:
    """A layer norm over the last axes."""
    weight, bias = node.required(1, "scale"), node.required(2, "bias") if node.input(2) else None
    axis, rank = node.attribute("axis", -1), node.rank()
    axes = -axis if axis < 0 else rank - axis if rank is not None else weight.ndim
    if weight.ndim != axes:
        raise UnsupportedError("with a scale that has another shape than what is normalised")
    layer = nn.LayerNorm(weight.shape, eps=node.attribute("epsilon", 1e-5), bias=bias is not None)
    return Built(_fill(layer, weight=weight, bias=bias), (node.input(0),))


@operator("GroupNormalization")
def group_norm(node: Node) -> Built:
    """A group norm with a scale per channel; the form of operator set 18, with a scale per group, was withdrawn."""
    if node.opset < 21:
        raise UnsupportedError("of an operator set before 21")
    weight, bias = node.required(1, "scale"), node.required(2, "bias")
    layer = nn.GroupNorm(node.attribute("num_groups"), weight.size, eps=node.attribute("epsilon", 1e-5))
    return Built(_fill(layer, weight=weight, bias=bias), (node.input(0),))


@operator("LRN")
def local_response_norm(node: Node) -> Built:
    """Local response norm over neighbouring channels."""
    settings = [node.attribute(name, default) for name, default in (("alpha", 1e-4), ("beta", 0.75), ("bias", 1.0))]
    return node.call(nn.LocalResponseNorm(node.attribute("size"), *settings))
