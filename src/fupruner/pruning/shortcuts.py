"""Shortcuts that fusion can turn into filters of their block: one gate per channel that they carry.

Reserved identity filters set loose as weights are soon destroyed by training. So a network trains in its residual form with a
gate on every carried channel, which is the same function as reserved filters that stay exact diracs; the form that ships is
what a plan prices (see ``pricing``), and fusion writes the filters down at the end, for the channels that are left.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import fx

from fupruner.graph import edit
from fupruner.graph.cost import CONVS
from fupruner.graph.shapes import shape_of
from fupruner.pruning.branches import Branch, private_nodes
from fupruner.pruning.groups import Group
from fupruner.pruning.labels import Labelling, Labels, varies_only_along


@dataclass(frozen=True)
class Shortcut:
    """What carries a residual block's input past its branch.

    Attributes:
        branch: the other operand of the Add.
        source: the tensor that is carried.
        entry: reads the source on the shortcut's side: the Add itself where the shortcut is the identity.
        path: nodes of the shortcut alone; they disappear once it has become filters.
        convs: of the branch, in order: the first one gets the reserved filters, the last one reads them.
        group: a unit for each channel of the source, the gates of the shortcut.
        carried: (channels,) the unit of the source's channel itself; where that closes there is nothing to carry. None where the
            source's channels are not followed.
    """

    branch: Branch
    source: fx.Node
    entry: fx.Node
    path: frozenset[fx.Node]
    convs: tuple[fx.Node, ...]
    group: Group
    carried: Labels | None

    @property
    def is_plain(self) -> bool:
        """Whether nothing is left of it when all of its channels are closed: it has no weights of its own."""
        return all(node.op == "call_function" for node in self.path)

    def alive(self, is_open: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """(channels,) which channels are carried: their gates are open, and so are the channels themselves."""
        mask = is_open[self.group.units]
        return mask if self.carried is None else mask & is_open[self.carried]


def find_shortcuts(
    graph_module: fx.GraphModule, branches: list[Branch], labelling: Labelling, adds: Collection[str]
) -> list[Shortcut]:
    """Shortcuts past a branch that is one chain of convolutions, in graph order; each gets units of its own.

    Bottlenecks are left alone: carrying a channel through a dense convolution in the middle costs more than its Add.

    Args:
        graph_module: shapes must have been propagated.
        branches: of the graph.
        labelling: of the graph; the new units are added to it.
        adds: names of the Adds that fusion knows how to turn into filters.
    """
    found = []
    for branch in branches:
        if branch.add.name not in adds or branch.operand is branch.other:
            continue
        path = private_nodes(branch.other, branch.add)
        entry, source = branch.add, branch.other
        while source in path and len(source.all_input_nodes) == 1:
            entry, source = source, source.all_input_nodes[0]
        convs = tuple(n for n in edit.in_order(branch.nodes) if isinstance(edit.module_of(graph_module, n), CONVS))
        if source in path or not _is_chain(graph_module, convs, source):
            continue
        group = Group(f"{branch.name} shortcut", labelling.add_units(shape_of(source)[1]), (), ())
        found.append(Shortcut(branch, source, entry, frozenset(path), convs, group, _units_of(labelling, source)))
    return found


def _is_chain(graph_module: fx.GraphModule, convs: tuple[fx.Node, ...], source: fx.Node) -> bool:
    """Whether convolutions lead from a source to a branch's end, those in the middle with a group for every channel."""
    if len(convs) < 2 or convs[0].all_input_nodes[0] is not source or len(shape_of(source)) < 3:
        return False
    middle = [edit.module_of(graph_module, conv) for conv in convs[1:-1]]
    return all(m.groups == m.in_channels == m.out_channels for m in middle)  # type: ignore[union-attr]


def _units_of(labelling: Labelling, source: fx.Node) -> Labels | None:
    labels = labelling.labels.get(source)
    if labels is None or not varies_only_along(labels, 1):
        return None
    units = labelling.units_along(source, 1)
    return units if units is not None and len(units) == shape_of(source)[1] else None
