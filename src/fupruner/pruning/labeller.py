"""Label every channel of every tensor, and tie the labels of channels that can only be removed together.

A convolution makes new labels, an element-wise operator ties the labels of its operands index by index, a concatenation
strings them together, a reshape rearranges them like the values themselves. An operator that is not in the table freezes
the labels it reads, which is always safe.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import fx, nn

from fupruner.graph import edit
from fupruner.graph.cost import CONVS, NORMS, TRANSPOSED
from fupruner.graph.shapes import shape_of
from fupruner.graph.text import kind_of
from fupruner.pruning.contractions import CONTRACTIONS
from fupruner.pruning.elementwise import elementwise
from fupruner.pruning.labels import Labelling, Labels, varies_only_along
from fupruner.pruning.operators import ELEMENTWISE, FEW_GROUPS, INSTANCE_NORMS, NARROW_GROUP, PER_CHANNEL, SPATIAL
from fupruner.pruning.structure import STRUCTURE


def label(graph_module: fx.GraphModule) -> Labelling:
    """Give every tensor of a graph its labels, and find the units that they form."""
    labelling = Labelling(graph_module)
    walk = _Walk(labelling)
    for node in graph_module.graph.nodes:
        walk.visit(node)
    labelling.connect()
    return labelling


class _Walk:
    """Goes through a graph in order; every operator labels what it returns."""

    def __init__(self, labelling: Labelling) -> None:
        self.labelling = labelling
        self._calls: dict[str, tuple[Labels | None, Labels | None]] = {}

    def visit(self, node: fx.Node) -> None:
        if node.op == "output":
            for source in node.all_input_nodes:
                self.labelling.freeze(self.labelling.of(source), "it is an output of the network")
                for part in self.labelling.tuples.get(source, ()):
                    self.labelling.freeze(part, "it is an output of the network")
        elif node.op == "call_module":
            self._set(node, self._layer(node))
        elif node.op == "call_function":
            self._set(node, self._operator(node))

    def _set(self, node: fx.Node, result: Labels | tuple[Labels | None, ...] | None) -> None:
        if isinstance(result, tuple):
            self.labelling.tuples[node] = result
        elif result is not None:
            self.labelling.labels[node] = result

    def _layer(self, node: fx.Node) -> Labels | None:
        module = edit.module_of(self.labelling.graph_module, node)
        source = self.labelling.of(node.all_input_nodes[0]) if node.all_input_nodes else None
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
            flattened: Labels | None = STRUCTURE["flatten"](self.labelling, node, source)
            return flattened
        if isinstance(module, PER_CHANNEL) or getattr(module, "per_channel", False):
            return source if source is None or source.ndim == dims else self.labelling.give_up(node, source)
        return self.labelling.give_up(node, source)

    def _weighted(self, node: fx.Node, module: Any, source: Labels | None, axis: int, dims: int) -> Labels | None:
        """A convolution or linear layer: reads the labels of its input channels and makes new ones."""
        groups = getattr(module, "groups", 1)
        out = module.out_features if isinstance(module, nn.Linear) else module.out_channels
        channels = module.in_features if isinstance(module, nn.Linear) else module.in_channels
        if source is not None and not varies_only_along(source, axis):
            self.labelling.freeze(source, f"{node.target} reads its channels along another axis")
            source = None
        labels = self.labelling.fresh(out, axis, dims)
        if groups > 1:
            if source is None:
                source = self.labelling.fresh(channels, axis, dims)
                self.labelling.freeze(source, f"{node.target} is grouped and reads channels that cannot be removed")
            self._tie_groups(np.broadcast_to(source.ravel(), channels).reshape(groups, -1), labels.reshape(groups, -1))
        self._same_module(str(node.target), source, labels)
        return labels

    def _tie_groups(self, inputs: Labels, outputs: Labels) -> None:
        """A group of a convolution is one unit; of a few wide groups, each loses the channels at the same places instead."""
        if len(inputs) <= FEW_GROUPS and min(inputs.shape[1], outputs.shape[1]) > NARROW_GROUP:
            self.labelling.tie(inputs, inputs[:1])
            self.labelling.tie(outputs, outputs[:1])
            return
        self.labelling.tie(inputs, inputs[:, :1])
        self.labelling.tie(outputs, inputs[:, :1])

    def _per_channel(self, node: fx.Node, module: Any, source: Labels | None) -> Labels | None:
        if source is None:
            return None
        if isinstance(module, nn.PReLU) and module.num_parameters == 1:
            return source
        if not varies_only_along(source, 1):
            return self.labelling.give_up(node, source)
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
            self.labelling.freeze(
                source, f"{node.target} normalises over channels: without one, the others would change"
            )
            return None
        blocks = source.reshape(groups, -1)
        self.labelling.tie(blocks, blocks[:, :1])
        self._same_module(str(node.target), source, None)
        return source

    def _same_module(self, name: str, source: Labels | None, out: Labels | None) -> None:
        """A module that is called twice has one set of weights: the labels of both calls are tied."""
        if name not in self._calls:
            self._calls[name] = (source, out)
            return
        for before, now in zip(self._calls[name], (source, out), strict=True):
            if before is not None and now is not None:
                self.labelling.tie(before.ravel(), now.ravel())
            else:
                reason = f"{name} is called more than once with inputs that cannot all be pruned"
                self.labelling.freeze(before, reason)
                self.labelling.freeze(now, reason)

    def _operator(self, node: fx.Node) -> Labels | tuple[Labels | None, ...] | None:
        name = kind_of(self.labelling.graph_module, node)
        sources = [n for n in node.all_input_nodes if n in self.labelling.labels or n in self.labelling.tuples]
        if not sources:
            return None
        if name == "getitem":
            return self._item(node, sources[0])
        if name in ("sym_size", "size"):
            return None
        if name in ELEMENTWISE:
            return elementwise(self.labelling, node)
        if name in CONTRACTIONS:
            return CONTRACTIONS[name](self.labelling, node)
        handler = STRUCTURE.get(name)
        if handler is not None and sources[0] in self.labelling.labels:
            result: Labels | tuple[Labels | None, ...] | None = handler(
                self.labelling, node, self.labelling.labels[sources[0]]
            )
            return result
        if (
            name in SPATIAL
            and self.labelling.labels.get(sources[0]) is not None
            and self.labelling.labels[sources[0]].ndim == 4
        ):
            source = self.labelling.labels[sources[0]]
            return source if varies_only_along(source, 1) else self.labelling.give_up(node, source)
        for source_node in sources:
            self.labelling.give_up(node, self.labelling.of(source_node))
        return None

    def _item(self, node: fx.Node, source: fx.Node) -> Labels | None:
        """One of the tensors that an operator returns; a pool that also returns indices has both in the same channels."""
        if source in self.labelling.labels:
            return self.labelling.labels[source]
        index, parts = node.args[1], self.labelling.tuples.get(source, ())
        if isinstance(index, int) and index < len(parts):
            return parts[index]
        for part in parts:
            self.labelling.give_up(node, part)
        return None
