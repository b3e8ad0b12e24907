"""Two convolutions, or two linear layers, with no activation between them become one.

    y = W2 * (W1 * x + b1) + b2      W = W2 * W1,  k = (k1 - 1) d1 + (k2 - 1) s1 d2 + 1,  s = s1 s2,  p = p1 + s1 p2
                                     b = b2 + sum(W2) b1

Exact if the second one does not pad, or if the first one is 1x1 with stride 1, no padding and no bias (zeros inside are then
zeros outside). Groups that differ are spread to their greatest common divisor.

*conv-after-conv* fires where the merged layer has no more multiply-adds than the two together. *conv-after-conv-wide* also
fires where it has up to ``MAX_GROWTH`` times as many: the project and expand convolutions that meet between two inverted
residuals become one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, fx, nn

from fupruner.fusion.algebra import (
    bias_of,
    compose_kernels,
    compose_with_depthwise,
    is_depthwise,
    macs_of,
    make_conv,
    padding_of,
    spread_groups,
    weight_of,
    with_tensors,
)
from fupruner.fusion.rule import Context, Level, Match, Refuse, Rule
from fupruner.graph import edit
from fupruner.graph.cost import CONVS
from fupruner.graph.shapes import shape_of

MAX_GROWTH = 4.0
"""Multiply-adds after an aggressive merge, relative to before, up to which it is worth the operator it saves."""


@dataclass(frozen=True)
class Composite:
    """Settings of the convolution that two convolutions make, and its multiply-adds relative to theirs."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    spacing: tuple[int, ...]
    inner: tuple[int, ...]
    groups: int


class ConvAfterConv(Rule):
    """Merge two layers in a row where the merged one does no more work."""

    name: ClassVar[str] = "conv-after-conv"
    level: ClassVar[Level] = "basic"

    def find(self, context: Context, node: fx.Node) -> Match | Refuse | None:
        """Match on the second layer."""
        return _find(context, node, max_growth=1.0)

    def rewrite(self, context: Context, match: Match) -> fx.Node:
        """Replace both by one under the second one's name."""
        return _rewrite(context, match)


class ConvAfterConvWide(Rule):
    """Merge two layers in a row although the merged one does more work."""

    name: ClassVar[str] = "conv-after-conv-wide"
    level: ClassVar[Level] = "aggressive"

    def find(self, context: Context, node: fx.Node) -> Match | Refuse | None:
        """Match on the second layer."""
        return _find(context, node, max_growth=MAX_GROWTH)

    def rewrite(self, context: Context, match: Match) -> fx.Node:
        """Replace both by one under the second one's name."""
        return _rewrite(context, match)


def _find(context: Context, node: fx.Node, *, max_growth: float) -> Match | Refuse | None:
    second = context.module(node)
    if not isinstance(second, (*CONVS, nn.Linear)):
        return None
    before = node.all_input_nodes[0]
    first: Any = context.module(before)
    if isinstance(second, nn.Linear) != isinstance(first, nn.Linear) or not isinstance(first, (*CONVS, nn.Linear)):
        return None
    if len(before.users) > 1:
        return Refuse(node, f"{before.name} is read by {len(before.users)} operators")
    for n in (before, node):
        if context.is_shared(n):
            return Refuse(node, f"{n.target} is called more than once or shares its weights")
    composite = None if isinstance(second, nn.Linear) else compose(first, second)
    if isinstance(composite, str):
        return Refuse(node, composite)
    old = macs_of(first, shape_of(before)) + macs_of(second, shape_of(node))
    new = _merged_macs(first, second, composite, shape_of(node))
    if new > max_growth * old:
        return Refuse(
            node,
            f"merged with {before.name} it would do {new / old:.2f} times the work ({new:,} instead of {old:,} multiply-adds)",
        )
    return Match(
        node, (before.all_input_nodes[0],), node, parts={"first": before, "second": node, "composite": composite}
    )


def _merged_macs(first: Any, second: Any, composite: Composite | None, out_shape: tuple[int, ...]) -> int:
    if composite is None:
        return math.prod(out_shape[1:]) * int(first.in_features)
    return int(math.prod(out_shape[1:]) * (first.in_channels // composite.groups) * math.prod(composite.kernel))


def compose(first: Any, second: Any) -> Composite | str:
    """Settings of the merged convolution, or why there is none."""
    inner, outer = padding_of(first), padding_of(second)
    if inner is None or outer is None:
        return "the sides are padded differently"
    if any(outer):
        if math.prod(first.kernel_size) > 1 or any(inner) or math.prod(first.stride) > 1:
            return f"it pads by {outer} what the convolution before it computes: zeros inside are not zeros outside"
        if bool(bias_of(first).any()):
            return f"it pads with zeros by {outer}, but the convolution before it adds a bias"
    axes = list(zip(first.kernel_size, second.kernel_size, first.stride, first.dilation, second.dilation, strict=True))
    dilation, spacing, taps, kernel = [], [], [], []
    for k1, k2, s1, d1, d2 in axes:
        gap = s1 * d2
        spread = k1 > 1 and k2 > 1
        dilation.append(1 if spread else (gap if k1 == 1 else d1))
        spacing.append(gap if spread else 1)
        taps.append(d1 if spread else 1)
        kernel.append((k2 - 1) * spacing[-1] + (k1 - 1) * taps[-1] + 1)
    stride = tuple(a * b for a, b in zip(first.stride, second.stride, strict=True))
    padding = tuple(p + s * q for p, s, q in zip(inner, first.stride, outer, strict=True))
    groups = math.gcd(first.groups, second.groups)
    return Composite(tuple(kernel), stride, padding, tuple(dilation), tuple(spacing), tuple(taps), groups)


def merge_layers(first: Any, second: Any, composite: Composite | None) -> Any:
    """The one layer that computes ``second(first(x))``; ``composite`` is None for linear layers."""
    if composite is None:
        weight = weight_of(second)
        return with_tensors(second, weight @ weight_of(first), weight @ bias_of(first) + bias_of(second))
    groups = composite.groups
    two = spread_groups(weight_of(second), second.groups, groups).unflatten(0, (groups, -1))
    bias = (two.flatten(3).sum(3) @ bias_of(first).view(groups, -1, 1)).flatten() + bias_of(second)
    settings: dict[str, Any] = {
        "stride": composite.stride,
        "padding": composite.padding,
        "dilation": composite.dilation,
        "groups": groups,
    }
    product = _depthwise_product(first, second, composite)
    if product is None:
        one = spread_groups(weight_of(first), first.groups, groups).unflatten(0, (groups, -1))
        pairs = zip(one, two, strict=True)
        product = torch.cat(
            [compose_kernels(a, b, spacing=composite.spacing, dilation=composite.inner) for a, b in pairs]
        )
    return make_conv(product, bias, **settings)


def _depthwise_product(first: Any, second: Any, composite: Composite) -> Tensor | None:
    """Kernel of a dense and a depthwise convolution in a row, channel by channel instead of summed over zeros."""
    if is_depthwise(first) and second.groups == 1:
        taps = weight_of(first).transpose(0, 1)
        return compose_with_depthwise(weight_of(second), taps, spacing=composite.spacing, dilation=composite.inner)
    if is_depthwise(second) and first.groups == 1:
        return compose_with_depthwise(
            weight_of(first), weight_of(second), spacing=composite.inner, dilation=composite.spacing
        )
    return None


def _rewrite(context: Context, match: Match) -> fx.Node:
    before, node = match.parts["first"], match.parts["second"]
    merged = merge_layers(context.module(before), context.module(node), match.parts["composite"])
    edit.replace_module(context.graph_module, node, merged)
    node.replace_input_with(before, before.all_input_nodes[0])
    return node  # type: ignore[no-any-return]
