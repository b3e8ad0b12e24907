"""Parallel branches of one input that are added become one convolution.

    y = W1 * x + W2 * x + g (x - m) / s + x      W = W1 + W2 + D g/s + D       (D: dirac; kernels centre-padded to one window)

Branches are convolutions, norms or per-channel scales of x, and x itself (RepVGG, MobileOne, asymmetric kernels, a shortcut over a
single convolution). Exact only if strides agree, windows fit into one and paddings give outputs of one size. Groups that differ
are spread if one divides the other. *parallel-sum* fires where the work does not grow; *parallel-sum-wide* up to ``MAX_GROWTH``
times (a 1x3 and a 3x1 kernel alone fill 5 of the 9 taps of their sum).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, fx

from fupruner.fusion.algebra import bias_of, macs_of, make_conv, spread_groups
from fupruner.fusion.geometry import Window, common_window, place, placed_weight, point, window_of
from fupruner.fusion.rule import Context, Level, Match, Refuse, Rule, only_user
from fupruner.fusion.rules.conv_chain import MAX_GROWTH
from fupruner.fusion.values import affine_of
from fupruner.graph import edit
from fupruner.graph.cost import CONVS, is_add
from fupruner.graph.shapes import shape_of


@dataclass(frozen=True)
class _Branch:
    """One operand of a sum: a convolution, or a scale and shift of the source."""

    node: fx.Node
    source: fx.Node
    conv: Any = None
    scale: Tensor | None = None
    shift: Tensor | None = None


class ParallelSum(Rule):
    """Merge two operands of a sum where the merged convolution does no more work."""

    name: ClassVar[str] = "parallel-sum"
    level: ClassVar[Level] = "basic"

    def find(self, context: Context, node: fx.Node) -> Match | Refuse | None:
        """Match on the last Add of a sum."""
        return _find(context, node, max_growth=1.0)

    def rewrite(self, context: Context, match: Match) -> fx.Node:
        """Replace the convolution and take the other operand out of the sum."""
        return _rewrite(context, match)


class ParallelSumWide(Rule):
    """Merge two operands of a sum although the merged convolution does more work."""

    name: ClassVar[str] = "parallel-sum-wide"
    level: ClassVar[Level] = "aggressive"

    def find(self, context: Context, node: fx.Node) -> Match | Refuse | None:
        """Match on the last Add of a sum."""
        return _find(context, node, max_growth=MAX_GROWTH)

    def rewrite(self, context: Context, match: Match) -> fx.Node:
        """Replace the convolution and take the other operand out of the sum."""
        return _rewrite(context, match)


def operands_of(add: fx.Node) -> list[tuple[fx.Node, fx.Node]]:
    """Operands of a sum over several Adds, each with the Add that reads it."""
    found: list[tuple[fx.Node, fx.Node]] = []
    for operand in add.args[:2]:
        assert isinstance(operand, fx.Node)  # noqa: S101 - is_add
        if is_add(operand) and only_user(operand) is not None and operand.args[0] is not operand.args[1]:
            found.extend(operands_of(operand))
        else:
            found.append((operand, add))
    return found


def _find(context: Context, node: fx.Node, *, max_growth: float) -> Match | Refuse | None:
    if not is_add(node) or node.args[0] is node.args[1]:
        return None
    user = only_user(node)
    if user is not None and is_add(user):
        return None  # the sum goes on
    operands = operands_of(node)
    refusal = None
    for operand, _ in operands:
        conv = context.module(operand)
        if not isinstance(conv, CONVS):
            continue
        kept = _Branch(operand, operand.all_input_nodes[0], conv)
        for other, reader in operands:
            merged = _branch(context, other, kept.source) if other is not operand else None
            if merged is None:
                continue
            plan = _plan(context, kept, merged, max_growth)
            if isinstance(plan, str):
                refusal = Refuse(node, plan)
                continue
            rest = tuple(n for n, _ in operands if n not in (operand, other, kept.source))
            parts = {"kept": operand, "merged": other, "branches": (kept, merged), "reader": reader, "plan": plan}
            return Match(node, (kept.source, *dict.fromkeys(rest)), node, parts=parts)
    return refusal


def _branch(context: Context, node: fx.Node, source: fx.Node) -> _Branch | None:
    """Understand an operand as a branch of ``source``, or None."""
    if node is source:
        channels = shape_of(source)[1]
        return _Branch(
            node, source, None, torch.ones(channels, dtype=torch.float64), torch.zeros(channels, dtype=torch.float64)
        )
    conv = context.module(node)
    if isinstance(conv, CONVS):
        return _Branch(node, source, conv) if node.all_input_nodes[0] is source else None
    affine = affine_of(context, node)
    if affine is None or affine.source is not source or affine.axis not in (None, 1) or only_user(node) is None:
        return None
    channels = shape_of(source)[1]
    return _Branch(node, source, None, affine.scale.expand(channels), affine.shift.expand(channels))


def _plan(context: Context, kept: _Branch, merged: _Branch, max_growth: float) -> tuple[Window, int] | str:
    """Window and groups of the merged convolution, or why there is none."""
    for branch in (kept, merged):
        if branch.conv is not None and only_user(branch.node) is None:
            return f"{branch.node.name} is read by {len(branch.node.users)} operators"
        if branch.conv is not None and context.is_shared(branch.node):
            return f"{branch.node.target} is called more than once or shares its weights"
    first = window_of(kept.conv)
    second = point((1,) * len(kept.conv.stride)) if merged.conv is None else window_of(merged.conv)
    if first is None or second is None:
        return "sides are padded differently"
    window = common_window(first, second)
    if isinstance(window, str):
        return f"{kept.node.name} and {merged.node.name}: {window}"
    groups = kept.conv.groups if merged.conv is None else math.gcd(kept.conv.groups, merged.conv.groups)
    if merged.conv is not None and groups not in (kept.conv.groups, merged.conv.groups):
        return f"{kept.node.name} and {merged.node.name} have {kept.conv.groups} and {merged.conv.groups} groups"
    shape = shape_of(kept.node)
    old = macs_of(kept.conv, shape) + (0 if merged.conv is None else macs_of(merged.conv, shape))
    new = math.prod(shape[1:]) * (kept.conv.in_channels // groups) * math.prod(window.kernel)
    if new > max_growth * old:
        growth = f"{new / old:.2f} times the work ({new:,} instead of {old:,} multiply-adds)"
        return f"{kept.node.name} and {merged.node.name} in one would do {growth}"
    return window, groups


def _rewrite(context: Context, match: Match) -> fx.Node:
    node, reader = match.parts["kept"], match.parts["reader"]
    kept, merged = match.parts["branches"]
    window, groups = match.parts["plan"]
    weight = spread_groups(placed_weight(kept.conv, window), kept.conv.groups, groups)
    bias = bias_of(kept.conv)
    if merged.conv is not None:
        weight = weight + spread_groups(placed_weight(merged.conv, window), merged.conv.groups, groups)
        bias = bias + bias_of(merged.conv)
    else:
        weight = weight + place(_diagonal(merged.scale, groups, len(window.kernel)), point(window.stride), window)
        bias = bias + merged.shift
    conv = make_conv(
        weight, bias, stride=window.stride, padding=window.padding, dilation=window.dilation, groups=groups
    )
    edit.replace_module(context.graph_module, node, conv)
    rest = next(n for n in reader.args[:2] if n is not merged.node)
    output = rest if reader is match.output else match.output
    edit.bypass(reader, rest)
    return output


def _diagonal(scale: Tensor, groups: int, dims: int) -> Tensor:
    """1x1 weights (C, C / groups, 1, ...) that scale each channel."""
    per = len(scale) // groups
    weight = torch.zeros(len(scale), per, dtype=scale.dtype)
    weight[torch.arange(len(scale)), torch.arange(len(scale)) % per] = scale
    return weight.view(len(scale), per, *[1] * dims)
