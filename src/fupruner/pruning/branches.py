"""Residual branches: the operand of an Add that can be switched off as a whole."""

from __future__ import annotations

from dataclasses import dataclass

from torch import fx

from fupruner.graph import edit
from fupruner.graph.cost import is_add, layer_shapes
from fupruner.pruning.groups import WEIGHTED


@dataclass(frozen=True)
class Branch:
    """One operand of an Add with everything that is computed for it alone.

    Attributes:
        name: dotted prefix that the branch's layers have in common.
        add: the Add.
        operand: the node that the branch ends with.
        other: what is left when the branch is closed.
        nodes: the nodes that then have no reader any more.
    """

    name: str
    add: fx.Node
    operand: fx.Node
    other: fx.Node
    nodes: frozenset[fx.Node]


def find_branches(graph_module: fx.GraphModule) -> list[Branch]:
    """All branches of a graph whose shapes were propagated, in graph order.

    Of the two operands of an Add the one with more multiply-adds of its own is the branch.
    """
    macs = {layer.node: layer.shape.macs for layer in layer_shapes(graph_module)}
    branches: list[Branch] = []
    names: set[str] = set()
    for node in graph_module.graph.nodes:
        if not is_add(node) or node.args[0] is node.args[1]:
            continue
        owned = {operand: private_nodes(operand, node) for operand in node.args[:2]}
        operand = max(owned, key=lambda o: sum(macs.get(n, 0) for n in owned[o]))
        layers = [
            n
            for n in graph_module.graph.nodes
            if n in owned[operand] and isinstance(edit.module_of(graph_module, n), WEIGHTED)
        ]
        if not layers:
            continue
        other = node.args[1] if operand is node.args[0] else node.args[0]
        name = _unique(_common_prefix([str(n.target) for n in layers]) or node.name, names)
        branches.append(Branch(name, node, operand, other, frozenset(owned[operand])))
    return branches


def private_nodes(end: fx.Node, reader: fx.Node) -> set[fx.Node]:
    """Nodes that nobody but ``reader`` sees, and only through ``end``."""
    owned: set[fx.Node] = set()
    if set(end.users) != {reader}:
        return owned
    waiting = [end]
    while waiting:
        node = waiting.pop()
        if node in owned or node.op in ("placeholder", "get_attr"):
            continue
        if node is end or all(user in owned for user in node.users):
            owned.add(node)
            waiting.extend(node.all_input_nodes)
    return owned


def _common_prefix(names: list[str]) -> str:
    prefix: list[str] = []
    for parts in zip(*(name.split(".") for name in names), strict=False):
        if len(set(parts)) > 1:
            break
        prefix.append(parts[0])
    return ".".join(prefix)


def _unique(name: str, taken: set[str]) -> str:
    unique, count = name, 1
    while unique in taken:
        count += 1
        unique = f"{name}#{count}"
    taken.add(unique)
    return unique
