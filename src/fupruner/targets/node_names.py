"""Gives nodes of ONNX Runtime's optimised graph the names of the nodes in the file that they came from."""

from __future__ import annotations

import re
from collections.abc import Sequence

import onnx

_MERGED = (
    "Relu",
    "Clip",
    "LeakyRelu",
    "Sigmoid",
    "Tanh",
    "HardSigmoid",
    "HardSwish",
    "Add",
    "Sum",
    "Mul",
    "BatchNormalization",
    "Pad",
)


def file_names(graph: onnx.GraphProto, nodes: Sequence[tuple[str, str]]) -> list[str]:
    """Names in the file for (name, operator) pairs of the runtime, in order.

    The runtime names a convolution in its blocked layout after the value it makes, which may be that of a merged
    activation; here it gets the name of the convolution. An operator that it turns to int8 has a number behind its name,
    which is taken off. Nodes that the runtime added (reorders of the layout) keep the runtime's name.
    """
    makers = {value: node for node in graph.node for value in node.output}
    by_name = {node.name: node for node in graph.node}
    taken: set[str] = set()
    names = []
    for name, kind in nodes:
        value = re.sub(r"_nchwc$|_token_\d+$", "", name)
        start = by_name.get(name) or makers.get(value) or by_name.get(value)
        origin = _origin(start, kind, makers, taken) if start is not None else None
        chosen = origin.name if origin is not None else name.removeprefix("fused ")
        taken.add(chosen)
        names.append(chosen)
    return names


def _origin(node: onnx.NodeProto, kind: str, makers: dict[str, onnx.NodeProto], taken: set[str]) -> onnx.NodeProto:
    """Walk back from what a merged node makes to the operator that gave it its kind; the first not yet named wins."""
    waiting, visited = [node], 0
    while waiting and visited < 16:
        current, visited = waiting.pop(0), visited + 1
        if current.op_type == kind and current.name not in taken:
            return current
        if current.op_type in _MERGED or current.op_type == kind:
            waiting += [makers[value] for value in current.input if value in makers]
    return node
