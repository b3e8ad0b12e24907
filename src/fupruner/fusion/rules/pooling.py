"""Average pools are convolutions with equal taps: they commute with 1x1 convolutions and merge with others.

    pool(W * x + b) = W * pool(x) + b                              1x1 W: pool first, on fewer pixels the convolution works less
    pool(W * x + b) = (T * W) * x + b                              T: depthwise taps 1/k^2, merged as two convolutions in a row
    W * pool(x) + b = (W * T) * x + b

Exact if a window always averages k^2 values: no padding or padding that is counted, and no ceil mode (which lets the last window
stick out, depending on the image size). *pool-before-pointwise* and *conv-before-pool* fire where the work does not grow;
*pool-into-filters* up to ``MAX_GROWTH`` times. *pool-as-depthwise*, on request, makes the pool itself a convolution.

Max pools and activations that never decrease commute too: the activation moves to the convolution, into which runtimes merge it.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import fx, nn

from fupruner.fusion.algebra import bias_of, inputs_of, is_pointwise, macs_of, make_conv
from fupruner.fusion.rule import Context, Level, Match, Refuse, Rule, only_user
from fupruner.fusion.rules.conv_chain import MAX_GROWTH, compose, merge_layers
from fupruner.graph import edit
from fupruner.graph.cost import CONVS, NORMS, TRANSPOSED
from fupruner.graph.shapes import shape_of

_POOLS = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)
_GLOBAL = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)
_MONOTONE = (nn.ReLU, nn.Hardtanh, nn.Hardsigmoid, nn.Sigmoid, nn.Tanh, nn.LeakyReLU, nn.ELU, nn.Softplus)


class PoolBeforePointwise(Rule):
    """Let a 1x1 convolution run on pooled pixels."""

    name: ClassVar[str] = "pool-before-pointwise"
    level: ClassVar[Level] = "basic"

    def find(self, context: Context, node: fx.Node) -> Match | Refuse | None:
        """Match on the pool behind the convolution."""
        pool: Any = context.module(node)
        if not isinstance(pool, (*_POOLS, *_GLOBAL)):
            return None
        before = node.all_input_nodes[0]
        conv: Any = context.module(before)
        if not isinstance(conv, CONVS) or not is_pointwise(conv) or math.prod(conv.stride) > 1:
            return None
        if math.prod(shape_of(node)[2:]) >= math.prod(shape_of(before)[2:]):
            return None
        if len(before.users) > 1:
            return Refuse(node, f"{before.name} is read by {len(before.users)} operators")
        if isinstance(pool, _POOLS) and bool(bias_of(conv).any()):
            if getattr(pool, "divisor_override", None) is not None:
                return Refuse(node, "its divisor is not the number of pixels: the convolution's bias would change")
            if _any(pool.padding) and pool.count_include_pad:
                return Refuse(node, "it counts zeros at the border, which have no bias")
        return Match(node, (before.all_input_nodes[0],), node, parts={"conv": before, "pool": node})

    def rewrite(self, context: Context, match: Match) -> fx.Node:
        """Swap the two."""
        return swap(context.graph_module, first=match.parts["conv"], second=match.parts["pool"])


class ActivationBeforePool(Rule):
    """Move an activation that follows a max pool in front of it, to the layer that it can be merged with."""

    name: ClassVar[str] = "activation-before-pool"
    level: ClassVar[Level] = "basic"

    def find(self, context: Context, node: fx.Node) -> Match | Refuse | None:
        """Match on the activation."""
        if not isinstance(context.module(node), _MONOTONE):
            return None
        pool = node.all_input_nodes[0]
        if not isinstance(context.module(pool), nn.MaxPool1d | nn.MaxPool2d | nn.MaxPool3d):
            return None
        if only_user(pool) is None:
            return Refuse(node, f"{pool.name} is read by {len(pool.users)} operators")
        source = pool.all_input_nodes[0]
        if only_user(source) is None or not isinstance(context.module(source), (*CONVS, *TRANSPOSED, *NORMS)):
            return None
        if isinstance(context.module(node), nn.LeakyReLU) and context.module(node).negative_slope < 0:  # type: ignore[union-attr, operator]
            return Refuse(node, "its slope is negative: it does not keep order")
        return Match(node, (source,), node, parts={"pool": pool, "activation": node})

    def rewrite(self, context: Context, match: Match) -> fx.Node:
        """Swap the two."""
        return swap(context.graph_module, first=match.parts["pool"], second=match.parts["activation"])


def swap(graph_module: fx.GraphModule, *, first: fx.Node, second: fx.Node) -> fx.Node:
    """Let two calls in a row change places; returns the one that is last now."""
    with first.graph.inserting_before(first):
        moved = first.graph.call_module(str(second.target), (first.all_input_nodes[0],))
    moved.meta.update(path=second.meta.get("path", ""))
    first.replace_input_with(first.all_input_nodes[0], moved)
    edit.bypass(second, first)
    return first


class ConvBeforePool(Rule):
    """Merge an average pool into the convolution before it where the work does not grow."""

    name: ClassVar[str] = "conv-before-pool"
    level: ClassVar[Level] = "basic"

    def find(self, context: Context, node: fx.Node) -> Match | Refuse | None:
        """Match on the pool."""
        pool = context.module(node)
        if not isinstance(pool, _POOLS):
            return None
        before = node.all_input_nodes[0]
        return _pair(context, before, node, max_growth=1.0) if isinstance(context.module(before), CONVS) else None

    def rewrite(self, context: Context, match: Match) -> fx.Node:
        """Replace both by one convolution."""
        return _merge(context, match)


class PoolIntoFilters(Rule):
    """Merge an average pool into a neighbouring convolution although the work grows."""

    name: ClassVar[str] = "pool-into-filters"
    level: ClassVar[Level] = "aggressive"

    def find(self, context: Context, node: fx.Node) -> Match | Refuse | None:
        """Match on the later one of pool and convolution."""
        module = context.module(node)
        if not isinstance(module, (*_POOLS, *CONVS)) or not node.all_input_nodes:
            return None
        before = node.all_input_nodes[0]
        if isinstance(module, _POOLS) == isinstance(context.module(before), _POOLS):
            return None
        if not isinstance(context.module(before), (*_POOLS, *CONVS)):
            return None
        return _pair(context, before, node, max_growth=MAX_GROWTH)

    def rewrite(self, context: Context, match: Match) -> fx.Node:
        """Replace both by one convolution."""
        return _merge(context, match)


class PoolAsDepthwise(Rule):
    """Make an average pool a depthwise convolution."""

    name: ClassVar[str] = "pool-as-depthwise"
    level: ClassVar[Level] = "request"

    def find(self, context: Context, node: fx.Node) -> Match | Refuse | None:
        """Match on the pool."""
        if not isinstance(context.module(node), _POOLS):
            return None
        conv = depthwise(context.module(node), shape_of(node)[1])
        return (
            Refuse(node, conv)
            if isinstance(conv, str)
            else Match(node, (node.all_input_nodes[0],), node, parts={"pool": node})
        )

    def rewrite(self, context: Context, match: Match) -> fx.Node:
        """Replace the pool."""
        edit.replace_module(
            context.graph_module, match.node, depthwise(context.module(match.node), shape_of(match.node)[1])
        )
        return match.node


def depthwise(pool: Any, channels: int) -> Any:
    """The depthwise convolution that averages as a pool does, or why there is none."""
    dims = next(i + 1 for i, kind in enumerate(_POOLS) if isinstance(pool, kind))
    if pool.ceil_mode:
        return "in ceil mode its last window depends on the image size"
    if _any(pool.padding) and not pool.count_include_pad:
        return "its border windows average fewer pixels"
    kernel, stride, padding = (
        tuple(v) if isinstance(v, tuple | list) else (int(v),) * dims
        for v in (pool.kernel_size, pool.stride, pool.padding)
    )
    taps = getattr(pool, "divisor_override", None) or math.prod(kernel)
    weight = torch.full((channels, 1, *kernel), 1 / taps, dtype=torch.float64)
    return make_conv(weight, None, stride=stride, padding=padding, dilation=(1,) * dims, groups=channels)


def _any(value: Any) -> bool:
    return any(value) if isinstance(value, tuple | list) else bool(value)


def _pair(context: Context, before: fx.Node, node: fx.Node, *, max_growth: float) -> Match | Refuse | None:
    if len(before.users) > 1:
        return Refuse(node, f"{before.name} is read by {len(before.users)} operators")
    first, second = (_as_conv(context, n) for n in (before, node))
    for n, conv in ((before, first), (node, second)):
        if isinstance(conv, str):
            return Refuse(node, f"{n.name}: {conv}")
        if isinstance(context.module(n), CONVS) and context.is_shared(n):
            return Refuse(node, f"{n.target} is called more than once or shares its weights")
    composite = compose(first, second)
    if isinstance(composite, str):
        return Refuse(node, composite)
    conv_node, conv = (before, first) if isinstance(context.module(before), CONVS) else (node, second)
    old = macs_of(conv, shape_of(conv_node))
    new = math.prod(shape_of(node)[1:]) * (inputs_of(first) // composite.groups) * math.prod(composite.kernel)
    if new > max_growth * old:
        return Refuse(
            node,
            f"merged with {before.name} it would do {new / old:.2f} times the work ({new:,} instead of {old:,} multiply-adds)",
        )
    return Match(
        node, (before.all_input_nodes[0],), node, parts={"first": before, "second": node, "composite": composite}
    )


def _as_conv(context: Context, node: fx.Node) -> Any:
    module = context.module(node)
    return depthwise(module, shape_of(node)[1]) if isinstance(module, _POOLS) else module


def _merge(context: Context, match: Match) -> fx.Node:
    before, node = match.parts["first"], match.parts["second"]
    merged = merge_layers(_as_conv(context, before), _as_conv(context, node), match.parts["composite"])
    kept = before if isinstance(context.module(before), CONVS) else node
    edit.replace_module(context.graph_module, kept, merged)
    if kept is node:
        node.replace_input_with(before, before.all_input_nodes[0])
    else:
        edit.bypass(node, before)
    return kept  # type: ignore[no-any-return]
