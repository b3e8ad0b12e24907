"""Simplifies ONNX graphs for runtimes that do not compute constants: folds them, takes copies out."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from fupruner.targets.runtime import Array

_NOT_FOLDED = {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}


def simplify(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose nodes all depend on the inputs: what depends on constants alone is computed, identities are gone.

    Optional inputs that are left out at the end of a node's list are dropped, which some importers insist on. Graphs with
    inner graphs stay as they are, because those refer to outer values by name.
    """
    simple = onnx.ModelProto()
    simple.CopyFrom(model)
    graph = simple.graph
    if any(attribute.HasField("g") for node in graph.node for attribute in node.attribute):
        return simple
    constants = {weight.name: weight for weight in graph.initializer}
    renamed: dict[str, str] = {}
    outputs = {value.name for value in graph.output}
    kept: list[onnx.NodeProto] = []
    for node in graph.node:
        node.input[:] = _trimmed(renamed.get(name, name) for name in node.input)
        if node.op_type == "Identity" and node.output[0] not in outputs:
            renamed[node.output[0]] = node.input[0]
        elif node.op_type not in _NOT_FOLDED and all(name in constants for name in node.input if name):
            for name, value in zip(node.output, _compute(node, constants, simple), strict=True):
                constants[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        else:
            kept.append(node)
    used = {name for node in kept for name in node.input}
    _replace(graph, kept, [weight for name, weight in constants.items() if name in used | outputs])
    return simple


def _trimmed(names: Iterable[str]) -> list[str]:
    kept = list(names)
    while kept and not kept[-1]:
        kept.pop()
    return kept


def _compute(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto], model: onnx.ModelProto) -> list[Array]:
    """Values of a node whose inputs are all constant."""
    inputs = [constants[name] for name in dict.fromkeys(node.input) if name]
    outputs = [helper.make_tensor_value_info(name, onnx.TensorProto.UNDEFINED, None) for name in node.output]
    graph = helper.make_graph([node], "constant", [], outputs, inputs)
    alone = helper.make_model(graph, opset_imports=list(model.opset_import), ir_version=model.ir_version)
    return [np.asarray(value) for value in ReferenceEvaluator(alone).run(None, {})]


def _replace(graph: onnx.GraphProto, nodes: list[onnx.NodeProto], weights: list[onnx.TensorProto]) -> None:
    """Put other nodes and weights into a graph; values are described anew by whoever needs them."""
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    tensors = [onnx.TensorProto.FromString(weight.SerializeToString()) for weight in weights]
    for field in (graph.node, graph.initializer, graph.value_info):
        del field[:]
    graph.node.extend(copies)
    graph.initializer.extend(tensors)
