"""Parallel convolutions of one input whose outputs are concatenated become one with stacked filters.

    y = cat(f(W1 * x), f(W2 * x))        W = [W1; W2] (rows),  y = f(W * x)          f: the same activation or none

Exact only if strides agree and windows fit into one; operands must be neighbours in the concatenation. *concat-stack* fires
where the work does not grow, *concat-stack-wide* up to ``MAX_GROWTH`` times: a 1x1 beside a 3x3 (SqueezeNet) gets zeros around it.
*same-input-stack*, on request only, stacks convolutions of one input that are not concatenated and slices the result.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import fx, nn

from fupruner.fusion.algebra import bias_of, macs_of, make_conv
from fupruner.fusion.geometry import Window, common_window, placed_weight, window_of
from fupruner.fusion.rule import Context, Level, Match, Refuse, Rule, only_user
from fupruner.fusion.rules.conv_chain import MAX_GROWTH
from fupruner.graph import edit
from fupruner.graph.cost import CONVS
from fupruner.graph.shapes import shape_of
from fupruner.graph.text import kind_of

aten = torch.ops.aten

_ELEMENTWISE = (nn.ReLU, nn.Hardtanh, nn.SiLU, nn.Mish, nn.GELU, nn.Hardswish, nn.Hardsigmoid, nn.Sigmoid, nn.Tanh, nn.ELU, nn.LeakyReLU,
                nn.Softplus)  # fmt: skip


@dataclass(frozen=True)
class _Operand:
    """An operand of the concatenation: a convolution, and the activation behind it if there is one."""

    conv: fx.Node
    activation: fx.Node | None
    module: Any


class ConcatStack(Rule):
    """Stack neighbouring operands of a concatenation where the work does not grow."""

    name: ClassVar[str] = "concat-stack"
    level: ClassVar[Level] = "basic"

    def find(self, context: Context, node: fx.Node) -> Match | Refuse | None:
        """Match on the concatenation."""
        return _find(context, node, max_growth=1.0)

    def rewrite(self, context: Context, match: Match) -> fx.Node:
        """Replace the first convolution and drop the second one."""
        return _rewrite(context, match)


class ConcatStackWide(Rule):
    """Stack neighbouring operands of a concatenation although the work grows."""

    name: ClassVar[str] = "concat-stack-wide"
    level: ClassVar[Level] = "aggressive"

    def find(self, context: Context, node: fx.Node) -> Match | Refuse | None:
        """Match on the concatenation."""
        return _find(context, node, max_growth=MAX_GROWTH)

    def rewrite(self, context: Context, match: Match) -> fx.Node:
        """Replace the first convolution and drop the second one."""
        return _rewrite(context, match)


def is_channel_concat(node: fx.Node) -> bool:
    """Whether a node concatenates tensors along axis 1."""
    if node.target is not aten.cat.default or not isinstance(node.args[0], list | tuple):
        return False
    axis = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
    return isinstance(axis, int) and axis % max(1, len(shape_of(node))) == 1


def _find(context: Context, node: fx.Node, *, max_growth: float) -> Match | Refuse | None:
    if not is_channel_concat(node):
        return None
    operands: list[fx.Node] = list(node.args[0])  # type: ignore[arg-type]
    refusal = None
    for left, right in pairwise(operands):
        first, second = _operand(context, left), _operand(context, right)
        if (
            first is None
            or second is None
            or first.conv.all_input_nodes != second.conv.all_input_nodes
            or left is right
        ):
            continue
        plan = _plan(context, first, second, max_growth)
        if isinstance(plan, str):
            refusal = Refuse(node, plan)
            continue
        source = first.conv.all_input_nodes[0]
        rest = [n for n in operands if n not in (left, right, source)]
        parts = {"first": left, "second": right, "operands": (first, second), "window": plan}
        return Match(node, (source, *dict.fromkeys(rest)), node, parts=parts)
    return refusal


def _operand(context: Context, node: fx.Node) -> _Operand | None:
    activation = None
    if isinstance(context.module(node), _ELEMENTWISE):
        activation, node = node, node.all_input_nodes[0]
    conv = context.module(node)
    return _Operand(node, activation, conv) if isinstance(conv, CONVS) and conv.groups == 1 else None


def _plan(context: Context, first: _Operand, second: _Operand, max_growth: float) -> Window | str:
    for operand in (first, second):
        for n in (operand.conv, operand.activation):
            if n is not None and only_user(n) is None:
                return f"{n.name} is read by {len(n.users)} operators"
        if context.is_shared(operand.conv):
            return f"{operand.conv.target} is called more than once or shares its weights"
    if _settings(context, first.activation) != _settings(context, second.activation):
        return f"different activations follow {first.conv.name} and {second.conv.name}"
    return common_plan(first.conv, first.module, second.conv, second.module, max_growth)


def common_plan(a: fx.Node, conv_a: Any, b: fx.Node, conv_b: Any, max_growth: float) -> Window | str:
    """The window of two stacked convolutions, or why there is none."""
    windows = window_of(conv_a), window_of(conv_b)
    if windows[0] is None or windows[1] is None:
        return "sides are padded differently"
    window = common_window(windows[0], windows[1])
    if isinstance(window, str):
        return f"{a.name} and {b.name}: {window}"
    old = macs_of(conv_a, shape_of(a)) + macs_of(conv_b, shape_of(b))
    pixels = math.prod(shape_of(a)[2:]) * math.prod(window.kernel)
    new = pixels * (conv_a.in_channels * conv_a.out_channels + conv_b.in_channels * conv_b.out_channels)
    if new > max_growth * old:
        return f"{a.name} and {b.name} in one would do {new / old:.2f} times the work ({new:,} instead of {old:,} multiply-adds)"
    return window


def _settings(context: Context, activation: fx.Node | None) -> str:
    module = context.module(activation)
    return (
        ""
        if module is None or activation is None
        else f"{kind_of(context.graph_module, activation)}({module.extra_repr()})"
    )


def stacked(first: Any, second: Any, window: Window) -> Any:
    """One convolution with the filters of two that read the same input."""
    weight = torch.cat([placed_weight(first, window), placed_weight(second, window)])
    bias = torch.cat([bias_of(first), bias_of(second)])
    return make_conv(weight, bias, stride=window.stride, padding=window.padding, dilation=window.dilation)


def _rewrite(context: Context, match: Match) -> fx.Node:
    node, (first, second) = match.node, match.parts["operands"]
    edit.replace_module(context.graph_module, first.conv, stacked(first.module, second.module, match.parts["window"]))
    operands = [n for n in node.args[0] if n is not match.parts["second"]]  # type: ignore[union-attr]
    if len(operands) == 1:
        edit.bypass(node, operands[0])  # type: ignore[arg-type]
        return operands[0]  # type: ignore[return-value]
    node.args = (operands, *node.args[1:])
    return node


class SameInputStack(Rule):
    """Stack convolutions of one input and the same window; the outputs become slices of one tensor."""

    name: ClassVar[str] = "same-input-stack"
    level: ClassVar[Level] = "request"

    def find(self, context: Context, node: fx.Node) -> Match | Refuse | None:
        """Match on the second convolution; the first is the nearest one before it with the same input."""
        conv = context.module(node)
        if not isinstance(conv, CONVS) or conv.groups != 1 or context.is_shared(node):
            return None
        for other in edit.in_order(node.all_input_nodes[0].users):
            first = context.module(other)
            if other is node:
                return None
            if (
                not isinstance(first, CONVS)
                or first.groups != 1
                or context.is_shared(other)
                or window_of(first) != window_of(conv)
            ):
                continue
            source = node.all_input_nodes[0]
            return Match(node, (source,), node, parts={"first": other, "second": node})
        return None

    def rewrite(self, context: Context, match: Match) -> fx.Node:
        """Replace the first convolution; both outputs are read from it."""
        first, node = match.parts["first"], match.node
        window = window_of(context.module(first))
        assert window is not None  # noqa: S101 - find compared it
        one: Any = context.module(first)
        two: Any = context.module(node)
        split = int(one.out_channels)
        edit.replace_module(context.graph_module, first, stacked(one, two, window))
        with node.graph.inserting_after(first):
            right = node.graph.call_function(aten.slice.Tensor, (first, 1, split, 2**63 - 1))
            left = node.graph.call_function(aten.slice.Tensor, (first, 1, 0, split))
        left.meta["shape"] = shape_of(first)
        first.replace_all_uses_with(left, delete_user_cb=lambda user: user not in (left, right))
        edit.bypass(node, right)
        return right
