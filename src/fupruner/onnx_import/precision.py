"""Brings a model into float32, the precision in which networks are fused, pruned and trained."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

_NAMES = {TensorProto.FLOAT16: "float16", TensorProto.BFLOAT16: "bfloat16", TensorProto.DOUBLE: "float64"}


def to_float32(model: onnx.ModelProto) -> list[str]:
    """Turn every number of another floating-point type into float32, in place.

    Returns:
        Names of the types that were turned; none when inputs and weights are float32 already.
    """
    held = {tensor.data_type for tensor in model.graph.initializer}
    held |= {value.type.tensor_type.elem_type for value in model.graph.input}
    found = [kind for kind in _NAMES if kind in held]
    if not found:
        return []
    for tensor in _tensors(model.graph):
        if tensor.data_type in _NAMES:
            array = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    for value in _values(model.graph):
        if value.type.tensor_type.elem_type in _NAMES:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name in ("to", "dtype") and attribute.i in _NAMES:
                attribute.i = TensorProto.FLOAT
    return [_NAMES[kind] for kind in found]


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        yield from (attribute.t for attribute in node.attribute if attribute.HasField("t"))


def _values(graph: onnx.GraphProto) -> Iterable[onnx.ValueInfoProto]:
    return (*graph.input, *graph.output, *graph.value_info)
