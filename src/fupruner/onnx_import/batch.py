"""Frees the batch of graphs that were exported for one batch size, where that size only sits in shapes."""

from __future__ import annotations

from dataclasses import replace

import onnx

from fupruner.onnx_import.graph import Graph
from fupruner.onnx_import.values import Array


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
        sizes = constants.get(node.input[1]) if node.op_type == "Reshape" else None
        if sizes is not None and sizes.size and sizes[0] == batch:
            name = f"{node.input[1]}:free:{node.output[0]}"
            changed = _freed_shape(sizes, graph.shapes.get(node.input[0]), batch)
            constants[name] = changed
            nodes.append(_with_input(node, 1, name))
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
