"""Nearest-neighbour upsampling and the convolution behind it.

    W * up(x) = up(W * x)                    1x1 W: f^2 times fewer pixels
    W * up(x) = T x                          k x k W: T transposed, kernel f + k - 1, stride f, (f + k - 1)^2 instead of (f k)^2 taps

up is itself a transposed convolution with f x f ones, so T is W's kernel spread over them. Exact for stride 1, dilation 1, whole
factors and zero padding below the kernel's size.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from fupruner.fusion.algebra import bias_of, is_pointwise, padding_of, weight_of
from fupruner.fusion.rule import Context, Level, Match, Refuse, Rule, only_user
from fupruner.graph import edit

aten = torch.ops.aten


def factors_of(node: fx.Node) -> tuple[int, int] | None:
    """Whole factors of a nearest-neighbour upsampling of images, or None."""
    if node.target is not aten.upsample_nearest2d.vec or len(node.args) < 3 or not node.args[2]:
        return None
    rows, columns = (float(f) for f in node.args[2])  # type: ignore[union-attr, arg-type]
    return (int(rows), int(columns)) if rows.is_integer() and columns.is_integer() and rows * columns > 1 else None


class UpsampleIntoConv(Rule):
    """Let the convolution behind an upsampling work on the small image."""

    name: ClassVar[str] = "upsample-into-conv"
    level: ClassVar[Level] = "basic"

    def find(self, context: Context, node: fx.Node) -> Match | Refuse | None:
        """Match on the convolution."""
        conv = context.module(node)
        if not isinstance(conv, nn.Conv2d):
            return None
        before = node.all_input_nodes[0]
        factors = factors_of(before)
        if factors is None:
            return None
        if only_user(before) is None:
            return Refuse(node, f"{before.name} is read by {len(before.users)} operators")
        if context.is_shared(node):
            return Refuse(node, f"{node.target} is called more than once or shares its weights")
        padding = padding_of(conv)
        if padding is None or tuple(conv.stride) != (1, 1) or tuple(conv.dilation) != (1, 1):
            return Refuse(node, "it has a stride, a dilation or uneven sides")
        if any(p >= k for p, k in zip(padding, conv.kernel_size, strict=True)):
            return Refuse(node, "it pads by as much as its kernel")
        source = before.all_input_nodes[0]
        return Match(node, (source,), node, parts={"up": before, "conv": node, "factors": factors})

    def rewrite(self, context: Context, match: Match) -> fx.Node:
        """Swap a 1x1 convolution with the upsampling; turn any other into a transposed one."""
        up, node = match.parts["up"], match.node
        source = up.all_input_nodes[0]
        conv: Any = context.module(node)
        if is_pointwise(conv):
            node.replace_input_with(up, source)
            with node.graph.inserting_after(node):
                moved = node.graph.call_function(up.target, (node, *up.args[1:]))
            node.replace_all_uses_with(moved, delete_user_cb=lambda user: user is not moved)
            return moved
        edit.replace_module(context.graph_module, node, transposed(conv, match.parts["factors"]))
        node.replace_input_with(up, source)
        return node


def transposed(conv: Any, factors: tuple[int, int]) -> nn.ConvTranspose2d:
    """The transposed convolution that equals upsampling followed by a convolution."""
    weight: Tensor = weight_of(conv)
    ones = weight.new_ones(1, 1, *factors)
    out, per = weight.shape[:2]
    sizes = [k + f - 1 for k, f in zip(conv.kernel_size, factors, strict=True)]
    spread = F.conv_transpose2d(weight.flip(2, 3).flatten(0, 1)[:, None], ones).view(out, per, *sizes)
    grouped = spread.unflatten(0, (conv.groups, -1)).transpose(1, 2).flatten(0, 1)  # (in, out per group, *kernel)
    padding = tuple(k - 1 - p for k, p in zip(conv.kernel_size, padding_of(conv) or (), strict=True))
    layer = nn.ConvTranspose2d(
        conv.in_channels, out, grouped.shape[2:], stride=factors, padding=padding, groups=conv.groups, device="meta"
    )
    layer.weight, layer.bias = nn.Parameter(grouped), nn.Parameter(bias_of(conv))
    return layer
