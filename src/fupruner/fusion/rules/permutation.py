"""Channel permutations disappear into the weights of their neighbours.

    W * P x = (W P) * x        columns of the following convolution in another order
    P (W * x + b) = (P W) * x + P b        rows of the preceding convolution in another order
    D * P x = P (P^-1 D P) * x             a depthwise convolution or an element-wise activation lets P pass

Recognised are channel shuffles (operator, or reshape, transpose, reshape), flips and constant indices along axis 1. Exact for
ungrouped neighbours; a split or a concatenation behind a shuffle would have to gather channels, so it stays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, fx, nn

from fupruner.fusion.algebra import bias_of, is_depthwise, weight_of, with_tensors
from fupruner.fusion.rule import Context, Level, Match, Refuse, Rule, only_user
from fupruner.graph import edit
from fupruner.graph.cost import CONVS
from fupruner.graph.shapes import shape_of
from fupruner.graph.text import kind_of

aten = torch.ops.aten

_PASSES = (nn.ReLU, nn.Hardtanh, nn.SiLU, nn.Mish, nn.GELU, nn.Hardswish, nn.Hardsigmoid, nn.Sigmoid, nn.Tanh, nn.ELU, nn.LeakyReLU,
           nn.Softplus,
           nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d)  # fmt: skip


@dataclass(frozen=True)
class Permutation:
    """Output channel i is channel ``order[i]`` of the source."""

    source: fx.Node
    order: Tensor


def permutation_of(context: Context, node: fx.Node) -> Permutation | None:
    """Understand a node as a permutation of channels, or None."""
    shape = shape_of(node)
    args: Any = node.args
    if len(shape) < 3:
        return None
    channels = torch.arange(shape[1])
    if node.target is aten.reshape.default or isinstance(context.module(node), nn.Flatten):
        return _shuffle(node, channels)
    if node.op != "call_function":
        return None
    if node.target is aten.channel_shuffle.default:
        return Permutation(args[0], channels.view(args[1], -1).t().flatten())
    if node.target is aten.flip.default and [d % len(shape) for d in args[1]] == [1]:
        return Permutation(args[0], channels.flip(0))
    index = _constant_index(context, node)
    if index is None or not torch.equal(index.sort().values, channels) or shape_of(node.all_input_nodes[0]) != shape:
        return None
    return Permutation(node.all_input_nodes[0], index)


def _constant_index(context: Context, node: fx.Node) -> Tensor | None:
    if node.target is aten.index_select.default and node.args[1] == 1:
        index = node.args[2]
    elif node.target is aten.index.Tensor and len(node.args[1]) == 2 and node.args[1][0] is None:  # type: ignore[arg-type, index]
        index = node.args[1][1]  # type: ignore[index]
    else:
        return None
    if not isinstance(index, fx.Node) or index.op != "get_attr":
        return None
    value = edit.get_attribute(context.graph_module, str(index.target))
    return value.long() if value.dim() == 1 and not value.is_floating_point() else None


def _shuffle(node: fx.Node, channels: Tensor) -> Permutation | None:
    """Reshape to (N, g, C / g, ...), transpose axes 1 and 2, reshape back."""
    swap = node.all_input_nodes[0]
    if swap.target not in (aten.transpose.int, aten.permute.default) or only_user(swap) is None:
        return None
    inner = swap.all_input_nodes[0]
    if inner.target not in (aten.reshape.default, aten.unflatten.int) or only_user(inner) is None:
        return None
    source: fx.Node = inner.args[0]  # type: ignore[assignment]
    shape, split = shape_of(source), shape_of(inner)
    if shape_of(node) != shape or len(split) != len(shape) + 1 or split[0] != shape[0] or split[3:] != shape[2:]:
        return None
    order = [0, 2, 1, *range(3, len(split))]
    args: Any = swap.args
    transposed = swap.target is aten.transpose.int
    swapped = {d % len(split) for d in args[1:]} == {1, 2} if transposed else list(args[1]) == order
    if not swapped:
        return None
    return Permutation(source, channels.view(split[1], split[2]).t().flatten())


class PermutationIntoWeights(Rule):
    """Fold a channel permutation into the convolution before it, or into one that reads it, or push it past what it commutes with."""

    name: ClassVar[str] = "permutation-into-weights"
    level: ClassVar[Level] = "basic"

    def find(self, context: Context, node: fx.Node) -> Match | Refuse | None:
        """Match on the permutation for the layer before it, else on a reader."""
        permutation = permutation_of(context, node)
        if permutation is not None:
            return self._before(context, node, permutation)
        module = context.module(node)
        if not isinstance(module, (*CONVS, *_PASSES)) or len(node.all_input_nodes) != 1:
            return None
        before = node.all_input_nodes[0]
        permutation = permutation_of(context, before)
        if permutation is None or (isinstance(module, CONVS) and context.is_shared(node)):
            return None
        passes = isinstance(module, _PASSES) or is_depthwise(module)
        if passes and only_user(before) is None:
            return None  # the others would still need it
        if not passes and module.groups != 1:
            return Refuse(node, f"{node.target} is grouped: it cannot read its channels in another order")
        return Match(
            node, (permutation.source,), node, parts={"reader": node, "permutation": permutation, "node": before}
        )

    @staticmethod
    def _before(context: Context, node: fx.Node, permutation: Permutation) -> Match | Refuse | None:
        source = permutation.source
        conv = context.module(source)
        if (
            isinstance(conv, CONVS)
            and conv.groups == 1
            and only_user(source) is not None
            and not context.is_shared(source)
        ):
            return Match(node, (source.all_input_nodes[0],), node, parts={"layer": source, "permutation": permutation})
        if any(isinstance(context.module(user), (*CONVS, *_PASSES)) for user in node.users):
            return None
        readers = ", ".join(sorted({kind_of(context.graph_module, user) for user in node.users}))
        return Refuse(node, f"it is read by {readers}, which would have to gather channels")

    def rewrite(self, context: Context, match: Match) -> fx.Node:
        """Permute weights; a permutation that passes is applied again behind the reader."""
        permutation = match.parts["permutation"]
        if "layer" in match.parts:
            before = match.parts["layer"]
            conv: Any = context.module(before)
            edit.replace_module(context.graph_module, before, permuted_rows(conv, permutation.order))
            edit.bypass(match.node, before)
            return before  # type: ignore[no-any-return]
        reader = match.parts["reader"]
        module: Any = context.module(reader)
        reader.replace_input_with(match.parts["node"], permutation.source)
        inverse = torch.argsort(permutation.order)
        if isinstance(module, CONVS) and not is_depthwise(module):
            bias = None if module.bias is None else bias_of(module)
            edit.replace_module(context.graph_module, reader, with_tensors(module, weight_of(module)[:, inverse], bias))
            return reader  # type: ignore[no-any-return]
        if isinstance(module, CONVS):
            edit.replace_module(context.graph_module, reader, permuted_rows(module, inverse))
        return _permute_after(context, reader, permutation.order)


def permuted_rows(conv: Any, order: Tensor) -> Any:
    """The convolution whose filter i is filter ``order[i]`` of the given one."""
    return with_tensors(conv, weight_of(conv)[order], None if conv.bias is None else bias_of(conv)[order])


def _permute_after(context: Context, node: fx.Node, order: Tensor) -> fx.Node:
    name = edit.fresh_name(context.graph_module, f"{node.name}_order")
    edit.set_tensor(context.graph_module, name, order)
    with node.graph.inserting_after(node):
        index = node.graph.get_attr(name)
    with node.graph.inserting_after(index):
        permuted = node.graph.call_function(aten.index_select.default, (node, 1, index))
    node.replace_all_uses_with(permuted, delete_user_cb=lambda user: user is not permuted)
    return permuted
