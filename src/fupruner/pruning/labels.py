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
from torch import Tensor, fx, nn

from fupruner.graph import edit
from fupruner.graph.cost import CONVS, NORMS, TRANSPOSED
from fupruner.graph.shapes import shape_of
from fupruner.graph.text import kind_of
from fupruner.pruning.structure import STRUCTURE, broadcast

Labels = NDArray[np.int64]
INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)

ELEMENTWISE = {
    "add", "sub", "mul", "div", "maximum", "minimum", "relu", "sigmoid", "tanh", "silu", "gelu", "hardswish", "hardsigmoid", "hardtanh",
    "leaky_relu", "elu", "exp", "sqrt", "rsqrt", "pow", "abs", "neg", "clamp", "clamp_min", "clamp_max", "mish", "softplus", "erf", "square",
    "log_sigmoid", "relu6", "rsub", "reciprocal", "round", "floor", "sign", "where", "to", "_to_copy", "dropout", "celu", "selu",
}  # fmt: skip
"""Operators whose output at one place depends on their operands at that place alone."""

PER_CHANNEL = (
    nn.ReLU, nn.ReLU6, nn.SiLU, nn.Mish, nn.GELU, nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.Sigmoid, nn.Tanh, nn.ELU, nn.LeakyReLU,
    nn.Softplus, nn.Identity, nn.Dropout, nn.Dropout2d,
    nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d,
    nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d, nn.AdaptiveMaxPool2d,
)  # fmt: skip
"""Layers without parameters that treat every channel alike and on its own."""

SPATIAL = {"max_pool2d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "adaptive_max_pool2d", "upsample_nearest2d",
           "upsample_bilinear2d", "upsample_bicubic2d", "_upsample_nearest_exact2d", "adaptive_max_pool1d", "max_pool2d_with_indices"}  # fmt: skip
"""Operators that work on the last two axes, channel by channel."""


class Labelling:
    """Labels of all tensors of a graph and the components that their ties form.

    Attributes:
        labels: label array of every node that has one.
        unit_of: (labels,) the component of each label; components are the units that pruning opens and closes.
        frozen: why a unit must stay, for the units that must.
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
        self.frozen = self._frozen_units()

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
        if isinstance(module, nn.Flatten) and source is not None:
            return STRUCTURE["flatten"](self, node, source)
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
            self._tie_groups(source.reshape(groups, -1), labels.reshape(groups, -1))
        self._same_module(str(node.target), source, labels)
        return labels

    def _tie_groups(self, inputs: Labels, outputs: Labels) -> None:
        """A group of a convolution is one unit: all its input and output channels."""
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
            index = node.args[1]
            parts = self.tuples.get(node.all_input_nodes[0], ())
            return parts[index] if isinstance(index, int) and index < len(parts) else None
        if name in ("sym_size", "size"):
            return None
        if name in ELEMENTWISE:
            return self._elementwise(node)
        handler = STRUCTURE.get(name)
        if handler is not None and sources[0] in self.labels:
            return handler(self, node, self.labels[sources[0]])
        if name in SPATIAL and self.labels.get(sources[0]) is not None and self.labels[sources[0]].ndim == 4:
            source = self.labels[sources[0]]
            return source if varies_only_along(source, 1) else self._give_up(node, source)
        for source_node in sources:
            self._give_up(node, self.of(source_node))
        return None

    def _elementwise(self, node: fx.Node) -> Labels | None:
        shape = shape_of(node)
        if not shape:
            return None
        result: Labels | None = None
        for operand in node.all_input_nodes:
            labels = self.of(operand)
            if labels is None:
                labels = self._constant(operand, len(shape))
                if labels is None:
                    continue
            labels = broadcast(labels, len(shape))
            if result is None:
                result = labels
            else:
                self._tie_overlap(result, labels, shape)
                result = result if result.size >= labels.size else labels
        return self._freeze_against_unlabelled(node, result)

    def _tie_overlap(self, a: Labels, b: Labels, shape: tuple[int, ...]) -> None:
        """Tie two operands where both have labels along the same axes; a broadcast axis ties nothing."""
        for axis in range(len(shape)):
            if (a.shape[axis] > 1) != (b.shape[axis] > 1) and max(a.size, b.size) > 1:
                self._edges_for_partial(a, b, axis)
                return
        self.tie(a, b)

    def _edges_for_partial(self, a: Labels, b: Labels, axis: int) -> None:
        """Operands that vary along different axes: an operand without labels along an axis may still be as long there."""
        self.tie(a, b) if a.size == 1 or b.size == 1 else self._freeze_both(a, b)

    def _freeze_both(self, a: Labels, b: Labels) -> None:
        for labels in (a, b):
            self.freeze(labels, "it meets channels along another axis in an element-wise operator")

    def _constant(self, operand: fx.Node, dims: int) -> Labels | None:
        """A parameter or buffer in an element-wise operator gets labels along its one long axis, and is cut with them."""
        if operand.op != "get_attr":
            return None
        value = edit.get_attribute(self.graph_module, str(operand.target))
        if not isinstance(value, Tensor) or value.dim() == 0:
            return None
        long = [d for d, n in enumerate(value.shape) if n > 1]
        if len(long) != 1:
            return None
        labels = self.fresh(value.shape[long[0]], long[0], value.dim())
        self.labels[operand] = labels
        return labels

    def _freeze_against_unlabelled(self, node: fx.Node, result: Labels | None) -> Labels | None:
        """An operand that cannot be followed but is as long along a labelled axis pins that axis."""
        if result is None:
            return None
        for operand in node.all_input_nodes:
            shape = shape_of(operand)
            if operand in self.labels or not shape:
                continue
            shape = (1,) * (result.ndim - len(shape)) + shape
            if any(result.shape[d] > 1 and shape[d] > 1 for d in range(result.ndim)):
                self.freeze(result, f"{node.name} combines it with {operand.name}, whose channels cannot be followed")
        return result

    def _give_up(self, node: fx.Node, source: Labels | None) -> None:
        """Freeze what an operator outside the table reads."""
        if source is not None:
            kind = kind_of(self.graph_module, node)
            self.unknown[kind] = self.unknown.get(kind, 0) + 1
            self.freeze(source, f"{node.name} ({kind}) is not known to treat channels one by one")

    # -- the result --------------------------------------------------------------------------------------------------

    def _components(self) -> tuple[Labels, int]:
        if not self.count:
            return np.zeros(0, dtype=np.int64), 0
        a = np.concatenate([e[0] for e in self._edges]) if self._edges else np.zeros(0, dtype=np.int64)
        b = np.concatenate([e[1] for e in self._edges]) if self._edges else np.zeros(0, dtype=np.int64)
        graph = coo_array((np.ones(len(a), dtype=np.int8), (a, b)), shape=(self.count, self.count))
        units, unit_of = connected_components(graph, directed=False)
        return unit_of.astype(np.int64), int(units)

    def _frozen_units(self) -> dict[int, str]:
        frozen: dict[int, str] = {}
        for labels, reason in self._frozen:
            for unit in np.unique(self.unit_of[labels]):
                frozen.setdefault(int(unit), reason)
        return frozen

    def units_along(self, node: fx.Node, axis: int) -> Labels | None:
        """Unit of every position along an axis of a tensor, or None if positions there are not followed.

        Where labels differ along other axes too, those are tied to each other, and any one of them stands for all.
        """
        labels = self.labels.get(node)
        if labels is None or labels.shape[axis] == 1:
            return None
        index: list[Any] = [0] * labels.ndim
        index[axis] = slice(None)
        return self.unit_of[labels[tuple(index)]]

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
