"""One builder per kind of layer: how it looks in an ONNX file."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from fupruner.graph.layer_shape import LayerShape
from fupruner.targets.sheet import Sheet

# Every builder adds nodes that turn the value ``x`` into a new value and returns that; ``name`` starts all its names.
Builder = Callable[[Sheet, str, LayerShape, str, Sequence[str]], str]


def build_layer(sheet: Sheet, name: str, layer: LayerShape, x: str, others: Sequence[str]) -> str:
    """Add the nodes of a layer.

    Args:
        sheet: where to.
        name: what the names of nodes and values start with.
        layer: must satisfy ``can_build``.
        x: the first operand, of shape ``layer.in_shape``.
        others: further operands, as ``second_operands`` asks for.

    Returns:
        The value that the layer makes.
    """
    y = _builder(layer)(sheet, name, layer, x, others)
    if layer.fused_add:
        y = sheet.node("Add", [y, others[-1]], f"{name}_sum")
    return _activation(sheet, f"{name}_act", layer.activation, y) if layer.activation else y


def can_build(layer: LayerShape) -> bool:
    """Whether there is a builder for such a layer."""
    kind = _key(layer.kind)
    if kind not in _BUILDERS or (layer.activation and _key(layer.activation) not in _ACTIVATIONS):
        return False
    if not all(n >= 1 for n in (*layer.in_shape, *layer.out_shape)) or not layer.in_shape or not layer.out_shape:
        return False
    return _CHECKS.get(kind, _same_shape)(layer)


def second_operands(layer: LayerShape) -> list[tuple[int, ...]]:
    """Shapes, without the batch, of the operands after the first."""
    shapes: list[tuple[int, ...]] = []
    kind = _key(layer.kind)
    if kind in ("add", "mul", "sub"):
        shapes = [layer.in_shape] * (layer.inputs - 1)
    if kind == "cat":
        rest = layer.out_shape[0] - layer.in_shape[0]
        parts = layer.inputs - 1
        shapes = [(rest // parts + (i < rest % parts), *layer.in_shape[1:]) for i in range(parts)]
    return [*shapes, layer.out_shape] if layer.fused_add else shapes


def stands_alone(layer: LayerShape) -> bool:
    """Whether a layer of this kind would be merged into a preceding convolution."""
    return _key(layer.kind) in {*_ACTIVATIONS, "add", "sub", "mul", "batchnorm2d", "batchnorm1d", "batchnorm"}


def _key(kind: str) -> str:
    """Spelling that does not depend on where underscores are: ``re_lu`` and ``relu`` are one."""
    return kind.replace("_", "").lower()


def _builder(layer: LayerShape) -> Builder:
    return _BUILDERS[_key(layer.kind)]


def _conv(sheet: Sheet, name: str, layer: LayerShape, x: str, _: Sequence[str]) -> str:
    channels = layer.in_shape[0] // layer.groups
    weight = sheet.weight(f"{name}_w", (layer.out_shape[0], channels, *layer.kernel))
    inputs = [x, weight, sheet.weight(f"{name}_b", (layer.out_shape[0],))] if layer.bias else [x, weight]
    return sheet.node(
        "Conv",
        inputs,
        name,
        kernel_shape=list(layer.kernel),
        strides=list(layer.stride),
        pads=[*layer.padding, *layer.padding],
        dilations=list(layer.dilation or (1,) * len(layer.kernel)),
        group=layer.groups,
    )


def _conv_transpose(sheet: Sheet, name: str, layer: LayerShape, x: str, _: Sequence[str]) -> str:
    weight = sheet.weight(f"{name}_w", (layer.in_shape[0], layer.out_shape[0] // layer.groups, *layer.kernel))
    inputs = [x, weight, sheet.weight(f"{name}_b", (layer.out_shape[0],))] if layer.bias else [x, weight]
    return sheet.node(
        "ConvTranspose",
        inputs,
        name,
        kernel_shape=list(layer.kernel),
        strides=list(layer.stride),
        pads=[*layer.padding, *layer.padding],
        dilations=list(layer.dilation or (1,) * len(layer.kernel)),
        output_shape=list(layer.out_shape[1:]),
        group=layer.groups,
    )


def _linear(sheet: Sheet, name: str, layer: LayerShape, x: str, _: Sequence[str]) -> str:
    features, outputs = layer.in_shape[-1], layer.out_shape[-1]
    bias = sheet.weight(f"{name}_b", (outputs,))
    if len(layer.in_shape) == 1:
        weight = sheet.weight(f"{name}_w", (outputs, features))
        return sheet.node("Gemm", [x, weight, bias], name, transB=1)
    product = sheet.node("MatMul", [x, sheet.weight(f"{name}_w", (features, outputs))], f"{name}_m")
    return sheet.node("Add", [product, bias], name)


def _binary(kind: str) -> Builder:
    def build(sheet: Sheet, name: str, layer: LayerShape, x: str, others: Sequence[str]) -> str:
        for i, other in enumerate(others):
            x = sheet.node(kind, [x, other], f"{name}_{i}")
        return x

    return build


def _pool(kind: str) -> Builder:
    def build(sheet: Sheet, name: str, layer: LayerShape, x: str, _: Sequence[str]) -> str:
        sizes = zip(layer.in_shape[1:], layer.out_shape[1:], layer.kernel, layer.stride, layer.padding, strict=True)
        ends = [max(0, (after - 1) * s + k - before - p) for before, after, k, s, p in sizes]
        extra = {"count_include_pad": 1} if kind == "AveragePool" else {}
        return sheet.node(
            kind,
            [x],
            name,
            kernel_shape=list(layer.kernel),
            strides=list(layer.stride),
            pads=[*layer.padding, *ends],
            **extra,
        )

    return build


def _adaptive_pool(sheet: Sheet, name: str, layer: LayerShape, x: str, _: Sequence[str]) -> str:
    if set(layer.out_shape[1:]) == {1}:
        return sheet.node("GlobalAveragePool", [x], name)
    window = [before // after for before, after in zip(layer.in_shape[1:], layer.out_shape[1:], strict=True)]
    return sheet.node("AveragePool", [x], name, kernel_shape=window, strides=window)


def _mean(sheet: Sheet, name: str, layer: LayerShape, x: str, _: Sequence[str]) -> str:
    keep = len(layer.out_shape) == len(layer.in_shape)
    return sheet.node("ReduceMean", [x], name, axes=list(range(2, len(layer.in_shape) + 1)), keepdims=int(keep))


def _cat(sheet: Sheet, name: str, layer: LayerShape, x: str, others: Sequence[str]) -> str:
    return sheet.node("Concat", [x, *others], name, axis=1)


def _pad(sheet: Sheet, name: str, layer: LayerShape, x: str, _: Sequence[str]) -> str:
    missing = [after - before for before, after in zip(layer.in_shape, layer.out_shape, strict=True)]
    pads = [0, *(n // 2 for n in missing), 0, *(n - n // 2 for n in missing)]
    return sheet.node("Pad", [x, sheet.constant(f"{name}_pads", np.asarray(pads, np.int64))], name)


def _batch_norm(sheet: Sheet, name: str, layer: LayerShape, x: str, _: Sequence[str]) -> str:
    ones = np.ones(layer.in_shape[0], np.float32)
    constants = [sheet.constant(f"{name}_{part}", ones) for part in ("scale", "shift", "mean", "variance")]
    return sheet.node("BatchNormalization", [x, *constants], name)


def _alone(sheet: Sheet, name: str, layer: LayerShape, x: str, _: Sequence[str]) -> str:
    return _activation(sheet, name, layer.kind, x)


def _activation(sheet: Sheet, name: str, activation: str, x: str) -> str:
    key = _key(activation)
    if key in ("relu6", "clip", "hardtanh"):
        bounds = [
            sheet.constant(f"{name}_{bound}", np.asarray(value, np.float32))
            for bound, value in (("low", 0), ("high", 6))
        ]
        return sheet.node("Clip", [x, *bounds], name)
    if key == "silu":
        return sheet.node("Mul", [x, sheet.node("Sigmoid", [x], f"{name}_s")], name)
    if key == "prelu":
        return sheet.node("PRelu", [x, sheet.constant(f"{name}_slope", np.full((1,), 0.25, np.float32))], name)
    return sheet.node(_ACTIVATIONS[key], [x], name)


_ACTIVATIONS = {
    "relu": "Relu",
    "relu6": "Clip",
    "clip": "Clip",
    "hardtanh": "Clip",
    "leakyrelu": "LeakyRelu",
    "sigmoid": "Sigmoid",
    "tanh": "Tanh",
    "hardsigmoid": "HardSigmoid",
    "hardswish": "HardSwish",
    "elu": "Elu",
    "silu": "Mul",
    "prelu": "PRelu",
}

_BUILDERS: dict[str, Builder] = {
    "conv": _conv,
    "convtranspose": _conv_transpose,
    "linear": _linear,
    "add": _binary("Add"),
    "sub": _binary("Sub"),
    "mul": _binary("Mul"),
    "maxpool2d": _pool("MaxPool"),
    "avgpool2d": _pool("AveragePool"),
    "adaptiveavgpool2d": _adaptive_pool,
    "mean": _mean,
    "cat": _cat,
    "pad": _pad,
    "constantpadnd": _pad,
    "zeropad2d": _pad,
    "batchnorm": _batch_norm,
    "batchnorm1d": _batch_norm,
    "batchnorm2d": _batch_norm,
    **dict.fromkeys(_ACTIVATIONS, _alone),
}


def _same_shape(layer: LayerShape) -> bool:
    return layer.in_shape == layer.out_shape


def _windowed(layer: LayerShape) -> bool:
    rank = len(layer.kernel)
    fits = rank >= 1 and all(
        len(entry) == rank for entry in (layer.stride, layer.padding, layer.in_shape[1:], layer.out_shape[1:])
    )
    return fits and layer.in_shape[0] % layer.groups == 0 and layer.out_shape[0] % layer.groups == 0


def _pooled(layer: LayerShape) -> bool:
    return _windowed(layer) and all(p < k for p, k in zip(layer.padding, layer.kernel, strict=True))


def _divides(layer: LayerShape) -> bool:
    ranks = len(layer.in_shape) == len(layer.out_shape) == 3
    return ranks and all(
        before % after == 0 for before, after in zip(layer.in_shape[1:], layer.out_shape[1:], strict=True)
    )


def _averages_pixels(layer: LayerShape) -> bool:
    return len(layer.in_shape) == 3 and math.prod(layer.out_shape) == layer.in_shape[0] == layer.out_shape[0]


def _joins_channels(layer: LayerShape) -> bool:
    parts = layer.inputs - 1
    return parts >= 1 and layer.in_shape[1:] == layer.out_shape[1:] and layer.out_shape[0] - layer.in_shape[0] >= parts


def _grows(layer: LayerShape) -> bool:
    ranks = len(layer.in_shape) == len(layer.out_shape)
    return ranks and all(before <= after for before, after in zip(layer.in_shape, layer.out_shape, strict=True))


_CHECKS: dict[str, Callable[[LayerShape], bool]] = {
    "conv": _windowed,
    "convtranspose": _windowed,
    "linear": lambda layer: layer.in_shape[:-1] == layer.out_shape[:-1],
    "maxpool2d": _pooled,
    "avgpool2d": _pooled,
    "adaptiveavgpool2d": _divides,
    "mean": _averages_pixels,
    "cat": _joins_channels,
    "pad": _grows,
    "constantpadnd": _grows,
    "zeropad2d": _grows,
}
