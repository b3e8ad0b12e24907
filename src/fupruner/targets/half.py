"""ONNX models as a device with half-precision arithmetic computes them, emulated in single precision."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

LARGEST = 65504.0
"""The largest number in half precision."""


def in_half_precision(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which weights, inputs and the result of every operator are rounded to half precision.

    Sums inside an operator stay in single precision, as in hardware with wide accumulators. What does not fit into half
    precision becomes infinite, as it does there.
    """
    half = onnx.ModelProto()
    half.CopyFrom(model)
    graph = half.graph
    for weight in graph.initializer:
        if weight.data_type == TensorProto.FLOAT:
            with np.errstate(over="ignore"):
                rounded = numpy_helper.to_array(weight).astype(np.float16).astype(np.float32)
            weight.CopyFrom(numpy_helper.from_array(rounded, weight.name))
    outputs = {value.name for value in graph.output}
    floats = _float_values(model)
    nodes: list[onnx.NodeProto] = []
    renamed: dict[str, str] = {}
    for value in graph.input:
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            nodes += _rounding(value.name, f"{value.name}/half")
            renamed[value.name] = f"{value.name}/half"
    for node in graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        nodes.append(node)
        for i, name in enumerate(node.output):
            if name not in floats:
                continue
            if name in outputs:
                node.output[i] = f"{name}/full"
                nodes += _rounding(f"{name}/full", name)
            else:
                renamed[name] = f"{name}/half"
                nodes += _rounding(name, f"{name}/half")
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:], graph.value_info[:]
    graph.node.extend(copies)
    return half


def _rounding(source: str, result: str) -> list[onnx.NodeProto]:
    return [
        helper.make_node("Cast", [source], [f"{result}/16"], name=f"{result}/to_half", to=TensorProto.FLOAT16),
        helper.make_node("Cast", [f"{result}/16"], [result], name=f"{result}/to_full", to=TensorProto.FLOAT),
    ]


def _float_values(model: onnx.ModelProto) -> set[str]:
    """Names of values in single precision."""
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    values = (*inferred.value_info, *inferred.output)
    return {value.name for value in values if value.type.tensor_type.elem_type == TensorProto.FLOAT}
