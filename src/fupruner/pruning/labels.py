"""Labels of all tensors of a graph, which of them are tied together, and which must stay.

A label array has one axis per axis of its tensor (batch included); an axis has its full length where labels differ along
it and length 1 where they do not.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import fx

from fupruner.graph.text import kind_of

Labels = NDArray[np.int64]


class Labelling:
    """Labels of all tensors of a graph and the components that their ties form.

    Attributes:
        labels: label array of every node that has one.
        tuples: likewise, of nodes that return several tensors.
        unknown: how many operators of each kind froze what they read because they are not in the table.
        unit_of: (labels,) the component of each label; components are the units that pruning opens and closes.
        frozen: (units,) why a unit must stay, as an index of ``reasons``; 0 where it need not.
        reasons: in words; the first one is empty.
    """

    def __init__(self, graph_module: fx.GraphModule) -> None:
        self.graph_module = graph_module
        self.labels: dict[fx.Node, Labels] = {}
        self.tuples: dict[fx.Node, tuple[Labels | None, ...]] = {}
        self.unknown: dict[str, int] = {}
        self._count = 0
        self._edges: list[tuple[Labels, Labels]] = []
        self._frozen: list[tuple[Labels, str]] = []
        self.connect()

    # -- while labels are given --------------------------------------------------------------------------------------

    def fresh(self, length: int, axis: int, dims: int) -> Labels:
        """New labels along one axis of a tensor with ``dims`` axes."""
        labels = np.arange(self._count, self._count + length, dtype=np.int64)
        self._count += length
        return labels.reshape([length if d == axis else 1 for d in range(dims)])

    def tie(self, a: Labels, b: Labels) -> None:
        """Make labels at the same place live and die together."""
        a, b = np.broadcast_arrays(a, b)
        self._edges.append((a.ravel(), b.ravel()))

    def freeze(self, labels: Labels | None, reason: str) -> None:
        """Keep these labels open for good."""
        if labels is not None:
            self._frozen.append((labels.ravel(), reason))

    def of(self, node: object) -> Labels | None:
        """Labels of a node, or None where channels cannot be followed."""
        return self.labels.get(node) if isinstance(node, fx.Node) else None

    def give_up(self, node: fx.Node, source: Labels | None) -> Labels | None:
        """Freeze what an operator outside the table reads."""
        if source is not None:
            kind = kind_of(self.graph_module, node)
            self.unknown[kind] = self.unknown.get(kind, 0) + 1
            self.freeze(source, f"{node.name} ({kind}) is not known to treat channels one by one")
        return None

    def connect(self) -> None:
        """Make units of what is tied together; to be called when all labels are given."""
        self.unit_of, self.units = self._components()
        self.reasons, self.frozen = self._frozen_units()

    def _components(self) -> tuple[Labels, int]:
        if not self._count:
            return np.zeros(0, dtype=np.int64), 0
        a = np.concatenate([e[0] for e in self._edges]) if self._edges else np.zeros(0, dtype=np.int64)
        b = np.concatenate([e[1] for e in self._edges]) if self._edges else np.zeros(0, dtype=np.int64)
        graph = coo_array((np.ones(len(a), dtype=np.int8), (a, b)), shape=(self._count, self._count))
        units, unit_of = connected_components(graph, directed=False)
        return unit_of.astype(np.int64), int(units)

    def _frozen_units(self) -> tuple[list[str], Labels]:
        numbers = {"": 0}
        frozen = np.zeros(self.units, dtype=np.int64)
        for labels, reason in reversed(self._frozen):  # the first reason stays
            frozen[self.unit_of[labels]] = numbers.setdefault(reason, len(numbers))
        return list(numbers), frozen

    # -- afterwards ---------------------------------------------------------------------------------------------------------

    def add_units(self, count: int) -> Labels:
        """Units without labels, for gates that close something other than channels of a tensor."""
        first, self.units = self.units, self.units + count
        return np.arange(first, self.units, dtype=np.int64)

    def units_along(self, node: fx.Node, axis: int) -> Labels | None:
        """Unit of every position along an axis of a tensor, or None if positions there are not followed.

        Where labels differ along other axes too, those are tied to each other, and any one of them stands for all.
        """
        labels = self.labels.get(node)
        if labels is None or labels.shape[axis] == 1:
            return None
        index: list[Any] = [0] * labels.ndim
        index[axis] = slice(None)
        along: Labels = self.unit_of[labels[tuple(index)]]
        return along

    def kept_along(self, node: fx.Node, axis: int, is_open: NDArray[np.bool_]) -> NDArray[np.bool_] | None:
        """Which positions along an axis survive when only the open units are kept; None if the axis is not followed."""
        labels = self.labels.get(node)
        if labels is None or labels.shape[axis] == 1:
            return None
        alive = is_open[self.unit_of[labels]]
        return np.asarray(alive.any(axis=tuple(d for d in range(alive.ndim) if d != axis)))


def varies_only_along(labels: Labels, axis: int) -> bool:
    """Whether labels differ along one axis at most."""
    return all(n == 1 for d, n in enumerate(labels.shape) if d != axis % labels.ndim)
