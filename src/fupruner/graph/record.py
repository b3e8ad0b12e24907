"""A graph as a plain record, for the run folder and whoever draws it."""

from __future__ import annotations

from torch import Tensor, fx

from fupruner.graph import edit, shapes
from fupruner.graph.text import kind_of
from fupruner.records import GraphNode, GraphRecord


def graph_record(graph_module: fx.GraphModule, inputs: tuple[Tensor, ...]) -> GraphRecord:
    """Operators in order, with shapes for the given inputs; fetched weights are not listed.

    Args:
        graph_module: a canonical graph; it is left as it is.
        inputs: tensors, batch first.
    """
    graph_module = edit.twin(graph_module)  # shapes are written to nodes
    shapes.propagate(graph_module, inputs)
    return GraphRecord(
        nodes=tuple(_record(graph_module, node) for node in graph_module.graph.nodes if node.op != "get_attr")
    )


def _record(graph_module: fx.GraphModule, node: fx.Node) -> GraphNode:
    module = edit.module_of(graph_module, node)
    ends = {"placeholder": "input", "output": "output"}
    return GraphNode(
        name=node.name,
        kind=ends.get(node.op) or kind_of(graph_module, node),
        inputs=tuple(each.name for each in node.all_input_nodes if each.op != "get_attr"),
        layer=str(node.target) if module is not None else "",
        shape=shapes.shape_of(node)[1:],
        params=sum(p.numel() for p in module.parameters()) if module is not None else 0,
    )
