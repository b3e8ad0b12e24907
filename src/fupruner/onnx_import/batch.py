"""Frees the batch of graphs that were exported for one batch size, where that size only sits in shapes."""

from __future__ import annotations

from dataclasses import replace

import onnx

from fupruner.onnx_import.graph import Graph
from fupruner.onnx_import.values import Array

_SHAPES = {"Reshape": 1, "Resize": 3}
"""Operators with a shape among their inputs, in which a zero stands for the size that the first input has."""


def fixed_batch(graph: Graph) -> int | None:
    """The batch size that the file's inputs ask for, None where it is open."""
    sizes = [entry.shape[0] for entry in graph.inputs if entry.shape]
    return next((size for size in sizes if size is not None), None)


def freed(graph: Graph, batch: int) -> Graph:
    """Let every constant shape that begins with the batch size take the batch from its input instead.

    Whether that is right shows when the network runs with another batch.
    """
    constants, nodes = dict(graph.constants), []
    for node in graph.nodes:
        position = _SHAPES.get(node.op_type, len(node.input))
        sizes = constants.get(node.input[position]) if position < len(node.input) else None
        if sizes is not None and sizes.size and sizes[0] == batch:
            name = f"{node.input[position]}:free:{node.output[0]}"
            constants[name] = _freed_shape(sizes, graph.shapes.get(node.input[0]), batch)
            nodes.append(_with_input(node, position, name))
        else:
            nodes.append(node)
    return replace(graph, nodes=tuple(nodes), constants=constants)


def _freed_shape(sizes: Array, known: tuple[int | None, ...] | None, batch: int) -> Array:
    changed = sizes.copy()
    if known and known[0] == batch:
        changed[0] = 0
    elif -1 not in sizes:
        changed[0] = -1
    return changed


def _with_input(node: onnx.NodeProto, position: int, name: str) -> onnx.NodeProto:
    changed = onnx.NodeProto()
    changed.CopyFrom(node)
    changed.input[position] = name
    return changed
