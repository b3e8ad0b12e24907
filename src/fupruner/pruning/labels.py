"""Label every channel of every tensor, and tie the labels of channels that can only be removed together.

A label array has one axis per axis of its tensor (batch included); an axis has its full length where labels differ along
it and length 1 where they do not. A convolution makes new labels, an element-wise operator ties the labels of its
operands index by index, a concatenation strings them together, a reshape rearranges them like the values themselves. An
operator that is not in the table freezes the labels it reads, which is always safe.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import fx, nn

from fupruner.graph import edit
from fupruner.graph.cost import CONVS, NORMS, TRANSPOSED
from fupruner.graph.shapes import shape_of
from fupruner.graph.text import kind_of
from fupruner.pruning.contractions import CONTRACTIONS
from fupruner.pruning.elementwise import elementwise
from fupruner.pruning.operators import ELEMENTWISE, FEW_GROUPS, INSTANCE_NORMS, NARROW_GROUP, PER_CHANNEL, SPATIAL
from fupruner.pruning.structure import STRUCTURE

Labels = NDArray[np.int64]


class Labelling:
    """Labels of all tensors of a graph and the components that their ties form.

    Attributes:
        labels: label array of every node that has one.
        unit_of: (labels,) the component of each label; components are the units that pruning opens and closes.
        frozen: (units,) why a unit must stay, as an index of ``reasons``; 0 where it need not.
        reasons: in words; the first one is empty.
    """

    def __init__(self, graph_module: fx.GraphModule) -> None:
        self.graph_module = graph_module
        self.labels: dict[fx.Node, Labels] = {}
        self.tuples: dict[fx.Node, tuple[Labels | None, ...]] = {}
        self.count = 0
        self._edges: list[tuple[Labels, Labels]] = []
        self._frozen: list[tuple[Labels, str]] = []
        self._calls: dict[str, tuple[Labels | None, Labels | None]] = {}
        self.unknown: dict[str, int] = {}
        for node in graph_module.graph.nodes:
            self._visit(node)
        self.unit_of, self.units = self._components()
        self.reasons, self.frozen = self._frozen_units()

    # -- what handlers use -------------------------------------------------------------------------------------------

    def fresh(self, length: int, axis: int, dims: int) -> Labels:
        """New labels along one axis of a tensor with ``dims`` axes."""
        labels = np.arange(self.count, self.count + length, dtype=np.int64)
        self.count += length
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

    def add_units(self, count: int) -> Labels:
        """Units without labels, for gates that close something other than channels of a tensor."""
        first, self.units = self.units, self.units + count
        return np.arange(first, self.units, dtype=np.int64)

    # -- the walk ----------------------------------------------------------------------------------------------------

    def _visit(self, node: fx.Node) -> None:
        if node.op == "output":
            for source in node.all_input_nodes:
                self.freeze(self.of(source), "it is an output of the network")
                for part in self.tuples.get(source, ()):
                    self.freeze(part, "it is an output of the network")
        elif node.op == "call_module":
            self._set(node, self._layer(node))
        elif node.op == "call_function":
            self._set(node, self._operator(node))

    def _set(self, node: fx.Node, result: Labels | tuple[Labels | None, ...] | None) -> None:
        if isinstance(result, tuple):
            self.tuples[node] = result
        elif result is not None:
            self.labels[node] = result

    def _layer(self, node: fx.Node) -> Labels | None:
        module = edit.module_of(self.graph_module, node)
        source = self.of(node.all_input_nodes[0]) if node.all_input_nodes else None
        dims = len(shape_of(node))
        if isinstance(module, (*CONVS, *TRANSPOSED)):
            return self._weighted(node, module, source, 1, dims)
        if isinstance(module, nn.Linear):
            return self._weighted(node, module, source, dims - 1, dims)
        if isinstance(module, (*NORMS, *INSTANCE_NORMS, nn.PReLU)):
            return self._per_channel(node, module, source)
        if isinstance(module, nn.GroupNorm | nn.LayerNorm):
            return self._normalised(node, module, source)
        if isinstance(module, nn.Flatten) and source is not None:
            flattened: Labels | None = STRUCTURE["flatten"](self, node, source)
            return flattened
        if isinstance(module, PER_CHANNEL) or getattr(module, "per_channel", False):
            return source if source is None or source.ndim == dims else self._give_up(node, source)
        return self._give_up(node, source)

    def _weighted(self, node: fx.Node, module: Any, source: Labels | None, axis: int, dims: int) -> Labels | None:
        """A convolution or linear layer: reads the labels of its input channels and makes new ones."""
        groups = getattr(module, "groups", 1)
        out = module.out_features if isinstance(module, nn.Linear) else module.out_channels
        channels = module.in_features if isinstance(module, nn.Linear) else module.in_channels
        if source is not None and not varies_only_along(source, axis):
            self.freeze(source, f"{node.target} reads its channels along another axis")
            source = None
        labels = self.fresh(out, axis, dims)
        if groups > 1:
            if source is None:
                source = self.fresh(channels, axis, dims)
                self.freeze(source, f"{node.target} is grouped and reads channels that cannot be removed")
            self._tie_groups(np.broadcast_to(source.ravel(), channels).reshape(groups, -1), labels.reshape(groups, -1))
        self._same_module(str(node.target), source, labels)
        return labels

    def _tie_groups(self, inputs: Labels, outputs: Labels) -> None:
        """A group of a convolution is one unit; of a few wide groups, each loses the channels at the same places instead."""
        if len(inputs) <= FEW_GROUPS and min(inputs.shape[1], outputs.shape[1]) > NARROW_GROUP:
            self.tie(inputs, inputs[:1])
            self.tie(outputs, outputs[:1])
            return
        self.tie(inputs, inputs[:, :1])
        self.tie(outputs, inputs[:, :1])

    def _per_channel(self, node: fx.Node, module: Any, source: Labels | None) -> Labels | None:
        if source is None:
            return None
        if isinstance(module, nn.PReLU) and module.num_parameters == 1:
            return source
        if not varies_only_along(source, 1):
            return self._give_up(node, source)
        self._same_module(str(node.target), source, None)
        return source

    def _normalised(self, node: fx.Node, module: Any, source: Labels | None) -> Labels | None:
        """A norm over groups of channels loses whole groups; where one channel is missing, the others would change."""
        groups = getattr(module, "num_groups", 1)
        if source is None:
            return None
        if groups == 1 or not varies_only_along(source, 1):
            over = (
                range(source.ndim - len(module.normalized_shape), source.ndim)
                if isinstance(module, nn.LayerNorm)
                else range(1, source.ndim)
            )
            if all(source.shape[d] == 1 for d in over):
                return source
            self.freeze(source, f"{node.target} normalises over channels: without one, the others would change")
            return None
        blocks = source.reshape(groups, -1)
        self.tie(blocks, blocks[:, :1])
        self._same_module(str(node.target), source, None)
        return source

    def _same_module(self, name: str, source: Labels | None, out: Labels | None) -> None:
        """A module that is called twice has one set of weights: the labels of both calls are tied."""
        if name not in self._calls:
            self._calls[name] = (source, out)
            return
        for before, now in zip(self._calls[name], (source, out), strict=True):
            if before is not None and now is not None:
                self.tie(before.ravel(), now.ravel())
            else:
                reason = f"{name} is called more than once with inputs that cannot all be pruned"
                self.freeze(before, reason)
                self.freeze(now, reason)

    def _operator(self, node: fx.Node) -> Labels | tuple[Labels | None, ...] | None:
        name = kind_of(self.graph_module, node)
        sources = [n for n in node.all_input_nodes if n in self.labels or n in self.tuples]
        if not sources:
            return None
        if name == "getitem":
            return self._item(node, sources[0])
        if name in ("sym_size", "size"):
            return None
        if name in ELEMENTWISE:
            return elementwise(self, node)
        if name in CONTRACTIONS:
            return CONTRACTIONS[name](self, node)
        handler = STRUCTURE.get(name)
        if handler is not None and sources[0] in self.labels:
            result: Labels | tuple[Labels | None, ...] | None = handler(self, node, self.labels[sources[0]])
            return result
        if name in SPATIAL and self.labels.get(sources[0]) is not None and self.labels[sources[0]].ndim == 4:
            source = self.labels[sources[0]]
            return source if varies_only_along(source, 1) else self._give_up(node, source)
        for source_node in sources:
            self._give_up(node, self.of(source_node))
        return None

    def _item(self, node: fx.Node, source: fx.Node) -> Labels | None:
        """One of the tensors that an operator returns; a pool that also returns indices has both in the same channels."""
        if source in self.labels:
            return self.labels[source]
        index, parts = node.args[1], self.tuples.get(source, ())
        if isinstance(index, int) and index < len(parts):
            return parts[index]
        for part in parts:
            self._give_up(node, part)
        return None

    def _give_up(self, node: fx.Node, source: Labels | None) -> Labels | None:
        """Freeze what an operator outside the table reads."""
        if source is not None:
            kind = kind_of(self.graph_module, node)
            self.unknown[kind] = self.unknown.get(kind, 0) + 1
            self.freeze(source, f"{node.name} ({kind}) is not known to treat channels one by one")
        return None

    # -- the result --------------------------------------------------------------------------------------------------

    def _components(self) -> tuple[Labels, int]:
        if not self.count:
            return np.zeros(0, dtype=np.int64), 0
        a = np.concatenate([e[0] for e in self._edges]) if self._edges else np.zeros(0, dtype=np.int64)
        b = np.concatenate([e[1] for e in self._edges]) if self._edges else np.zeros(0, dtype=np.int64)
        graph = coo_array((np.ones(len(a), dtype=np.int8), (a, b)), shape=(self.count, self.count))
        units, unit_of = connected_components(graph, directed=False)
        return unit_of.astype(np.int64), int(units)

    def _frozen_units(self) -> tuple[list[str], Labels]:
        numbers = {"": 0}
        frozen = np.zeros(self.units, dtype=np.int64)
        for labels, reason in reversed(self._frozen):  # the first reason stays
            frozen[self.unit_of[labels]] = numbers.setdefault(reason, len(numbers))
        return list(numbers), frozen

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
