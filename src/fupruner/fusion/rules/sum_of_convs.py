"""The sum of two convolutions of different inputs becomes one convolution over both inputs.

    y = W1 * x + W2 * z        W = [W1, W2] (columns),  y = W * cat(x, z),  b = b1 + b2

Exact only if strides agree and windows fit into one. If x and z are themselves convolutions of one input, concat-stack makes one
of them and the concatenation is gone. Adds no multiply-adds where the windows are equal; up to ``MAX_GROWTH`` times otherwise.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import fx

from fupruner.fusion.algebra import bias_of, macs_of, make_conv
from fupruner.fusion.geometry import Window, common_window, placed_weight, window_of
from fupruner.fusion.rule import Context, Level, Match, Refuse, Rule, only_user
from fupruner.fusion.rules.conv_chain import MAX_GROWTH
from fupruner.graph import edit
from fupruner.graph.cost import CONVS, is_add
from fupruner.graph.shapes import shape_of

aten = torch.ops.aten


class SumOfConvs(Rule):
    """Replace an Add of two convolutions by one over concatenated channels."""

    name: ClassVar[str] = "sum-of-convs"
    level: ClassVar[Level] = "aggressive"

    def find(self, context: Context, node: fx.Node) -> Match | Refuse | None:
        """Match on the Add."""
        if not is_add(node) or node.args[0] is node.args[1]:
            return None
        first, second = node.all_input_nodes
        convs: list[Any] = [context.module(first), context.module(second)]
        if not all(isinstance(conv, CONVS) for conv in convs) or first.all_input_nodes == second.all_input_nodes:
            return None
        for n, conv in zip((first, second), convs, strict=True):
            if only_user(n) is None:
                return Refuse(node, f"{n.name} is read by {len(n.users)} operators")
            if context.is_shared(n):
                return Refuse(node, f"{n.target} is called more than once or shares its weights")
            if conv.groups != 1:
                return Refuse(node, f"{n.target} is a grouped convolution")
        window = _window(first, second, convs)
        if isinstance(window, str):
            return Refuse(node, window)
        sources = tuple(dict.fromkeys((first.all_input_nodes[0], second.all_input_nodes[0])))
        return Match(node, sources, node, parts={"first": first, "second": second, "window": window})

    def rewrite(self, context: Context, match: Match) -> fx.Node:
        """Concatenate the inputs and let one convolution read them."""
        first, second, window = (match.parts[k] for k in ("first", "second", "window"))
        one, two = context.module(first), context.module(second)
        weight = torch.cat([placed_weight(one, window), placed_weight(two, window)], dim=1)
        settings = {"stride": window.stride, "padding": window.padding, "dilation": window.dilation}
        edit.replace_module(context.graph_module, first, make_conv(weight, bias_of(one) + bias_of(two), **settings))
        inputs = [first.all_input_nodes[0], second.all_input_nodes[0]]
        with match.node.graph.inserting_before(match.node):
            joined = match.node.graph.call_function(aten.cat.default, (inputs, 1))
            merged = match.node.graph.call_module(str(first.target), (joined,))
        edit.bypass(match.node, merged)
        return merged


def _window(first: fx.Node, second: fx.Node, convs: list[Any]) -> Window | str:
    windows = [window_of(conv) for conv in convs]
    if windows[0] is None or windows[1] is None:
        return "sides are padded differently"
    if shape_of(first.all_input_nodes[0])[2:] != shape_of(second.all_input_nodes[0])[2:]:
        return f"{first.name} and {second.name} read images of different sizes"
    window = common_window(windows[0], windows[1])
    if isinstance(window, str):
        return f"{first.name} and {second.name}: {window}"
    old = macs_of(convs[0], shape_of(first)) + macs_of(convs[1], shape_of(second))
    new = math.prod(shape_of(first)[1:]) * (convs[0].in_channels + convs[1].in_channels) * math.prod(window.kernel)
    if new > MAX_GROWTH * old:
        return f"{first.name} and {second.name} in one would do {new / old:.2f} times the work ({new:,} instead of {old:,} multiply-adds)"
    return window
