"""A stable text form of graphs for people, golden tests and logs."""

from __future__ import annotations

import re

import torch
from torch import fx, nn

from fupruner.graph import edit
from fupruner.graph.shapes import shape_of


def kind_of(graph_module: fx.GraphModule, node: fx.Node) -> str:
    """What a node is called in tables: the layer's class name, or the operator's name."""
    module = edit.module_of(graph_module, node)
    if module is not None:
        return type(module).__name__
    if isinstance(node.target, torch._ops.OpOverload):
        return str(node.target._schema.name).split("::")[1]
    return str(getattr(node.target, "__name__", node.target))


def to_text(graph_module: fx.GraphModule) -> str:
    """One line per node: name, what it is, what it reads, its shape without the batch."""
    lines = []
    for node in graph_module.graph.nodes:
        if node.op == "output":
            lines.append(f"return {', '.join(n.name for n in node.all_input_nodes)}")
            continue
        module = edit.module_of(graph_module, node)
        kind = (
            f"{kind_of(graph_module, node)}({_settings(module)})" if module is not None else kind_of(graph_module, node)
        )
        kind = "input" if node.op == "placeholder" else kind
        reads = ", ".join(n.name for n in node.all_input_nodes)
        shape = "x".join(map(str, shape_of(node)[1:]))
        lines.append(f"{node.name} = {kind}" + (f" <- {reads}" if reads else "") + (f" : {shape}" if shape else ""))
    return "\n".join(lines)


def _settings(module: nn.Module) -> str:
    """The settings that a module prints of itself, without what follows from its weights' dtype."""
    return re.sub(r"\s+", " ", module.extra_repr())
