"""Reads an ONNX file as a list of layers, the way runtimes run it, so that a file can be priced without its module."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import helper, shape_inference

from fupruner.errors import InputError, TargetError
from fupruner.graph.layer_shape import LayerShape
from fupruner.targets.onnx_clean import simplify

_KINDS = {
    "Conv": "conv", "ConvTranspose": "conv_transpose", "Gemm": "linear", "MatMul": "linear", "Add": "add", "Sum": "add", "Sub": "sub",
    "Mul": "mul", "Div": "div", "MaxPool": "max_pool2d", "AveragePool": "avg_pool2d", "GlobalAveragePool": "adaptive_avg_pool2d",
    "GlobalMaxPool": "adaptive_max_pool2d", "ReduceMean": "mean", "Concat": "cat", "Slice": "slice", "Pad": "pad", "Relu": "relu",
    "Resize": "upsample", "Transpose": "permute",
}  # fmt: skip
_FREE = {"Flatten", "Reshape", "Squeeze", "Unsqueeze", "Identity", "Dropout", "Shape", "Constant", "Cast"}
_ACTIVATIONS = {
    "Relu": "relu", "Clip": "clip", "LeakyRelu": "leaky_relu", "Sigmoid": "sigmoid", "Tanh": "tanh", "HardSigmoid": "hardsigmoid",
}  # fmt: skip


@dataclass(frozen=True)
class FileLayer:
    """A layer of a file.

    Attributes:
        name: of the node that gave the layer its kind.
        operator: as the file format calls it.
        shape: with what runtimes merge into it.
    """

    name: str
    operator: str
    shape: LayerShape


def load_model(path: Path) -> onnx.ModelProto:
    """Read an ONNX file.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return onnx.load(str(path))
    except (OSError, DecodeError) as error:
        raise InputError(f"Cannot read {path} as ONNX: {error}.") from None


def file_layers(path: Path) -> list[FileLayer]:
    """Layers of an ONNX file in order; a convolution takes the Add and the activation that follow it.

    Raises:
        InputError: the file cannot be read.
        TargetError: a shape besides the batch is open.
    """
    model = simplify(load_model(path))
    shapes = _shapes(model, path)
    graph, weights = model.graph, {tensor.name for tensor in model.graph.initializer}
    readers = Counter(name for node in graph.node for name in node.input)
    readers.update(value.name for value in graph.output)
    following = {name: node for node in graph.node for name in node.input}
    position = {name: i for i, node in enumerate(graph.node) for name in node.output}
    taken: set[str] = set()
    layers = []
    for node in graph.node:
        if node.op_type in _FREE or node.output[0] in taken:
            continue
        layer = _layer(node, shapes, weights)
        value = node.output[0]
        while layer.kind in ("conv", "conv_transpose", "linear", "add") and readers[value] == 1 and value in following:
            merged = _merge(layer, following[value], value, shapes, position)
            if merged is None:
                break
            layer, value = merged, following[value].output[0]
            taken.add(value)
        layers.append(FileLayer(node.name or node.output[0], node.op_type, layer))
    return layers


def _take_one_image(model: onnx.ModelProto, path: Path) -> None:
    """Set an open batch to one; a fixed batch of more is not what a device is timed at."""
    weights = {tensor.name for tensor in model.graph.initializer}
    for value in model.graph.input:
        dims = value.type.tensor_type.shape.dim
        if len(dims) and not dims[0].dim_value:
            dims[0].dim_value = 1
        if len(dims) and dims[0].dim_value != 1 and value.name not in weights:
            raise TargetError(
                f"{path} takes {dims[0].dim_value} images at once; devices are timed at one.",
                hint="Export it for one image.",
            )


def _shapes(model: onnx.ModelProto, path: Path) -> dict[str, tuple[int, ...]]:
    """Shape of every value at batch 1."""
    _take_one_image(model, path)
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    try:
        inferred = shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    except Exception as error:
        raise TargetError(f"The shapes in {path} cannot be told: {error}") from None
    shapes = {tensor.name: tuple(tensor.dims) for tensor in inferred.initializer}
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        dims = value.type.tensor_type.shape.dim
        if all(dim.dim_value for dim in dims):
            shapes[value.name] = tuple(dim.dim_value for dim in dims)
    for node in inferred.node:
        for name in (*node.input, *node.output):
            if name and name not in shapes and node.op_type not in _FREE:
                raise TargetError(
                    f"{path}: the shape of {name!r} at {node.op_type} {node.name!r} is not fixed.",
                    hint="Export with one fixed input size; sizes must not depend on the data.",
                )
    return shapes


def _layer(node: onnx.NodeProto, shapes: dict[str, tuple[int, ...]], weights: set[str]) -> LayerShape:
    settings = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    sources = [name for name in node.input if name and name not in weights]
    source = shapes[sources[0]][1:] if sources else ()
    out = shapes[node.output[0]][1:]
    kind = _KINDS.get(node.op_type, node.op_type.lower())
    if node.op_type == "MatMul" and not weights.intersection(node.input):
        kind = "matmul"
    window: dict[str, Any] = {}
    dims = max(0, len(out) - 1)
    if node.op_type in ("Conv", "ConvTranspose", "MaxPool", "AveragePool"):
        kernel = tuple(settings.get("kernel_shape") or shapes[node.input[1]][2:])
        window = {
            "kernel": kernel,
            "stride": tuple(settings.get("strides", (1,) * dims)),
            "padding": tuple(settings.get("pads", (0,) * 2 * dims))[:dims],
        }
    if node.op_type in ("Conv", "ConvTranspose"):
        window |= {"dilation": tuple(settings.get("dilations", (1,) * dims)), "groups": int(settings.get("group", 1))}
    weighted = kind in ("conv", "conv_transpose", "linear")
    inputs = 1 if weighted else max(1, len(sources))
    return LayerShape(kind, source, out, bias=weighted, inputs=inputs, **window)


def _merge(
    layer: LayerShape, node: onnx.NodeProto, value: str, shapes: dict[str, tuple[int, ...]], position: dict[str, int]
) -> LayerShape | None:
    """The layer with the operator that follows it, or None where that stands alone."""
    if node.op_type in _ACTIVATIONS and not layer.activation:
        return replace(layer, activation=_ACTIVATIONS[node.op_type])
    if node.op_type != "Add" or layer.activation or layer.fused_add or layer.kind in ("linear", "add"):
        return None
    others = [name for name in node.input if name != value]
    if len(others) != 1 or shapes[others[0]] != shapes[value]:
        return None
    computed_last = position.get(others[0], -1) <= position[value]
    return replace(layer, fused_add=True) if computed_last else None
