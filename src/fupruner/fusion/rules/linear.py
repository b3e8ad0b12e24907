"""A linear layer over a flattened image is a convolution whose window is the whole image.

    y = W flatten(x) + b        W (out, C h w)
    y = flatten(W' * x + b)     W' (out, C, h, w), no padding: one output pixel

The same multiply-adds, so it saves nothing by itself: it runs on request, for what it lets others do. A convolution before it with no
activation between then merges (conv-after-conv), an average pool is averaged into its taps (pool-into-filters), its inputs are channels
that a shortcut or a permutation can reach, and a device that runs convolutions alone can run it. Exact for the image size that the
linear layer was made for, which is the only one that it takes.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import fx, nn

from fupruner.fusion.algebra import bias_of, make_conv, weight_of
from fupruner.fusion.rule import Context, Level, Match, Refuse, Rule
from fupruner.graph import edit
from fupruner.graph.shapes import shape_of

aten = torch.ops.aten


class LinearAsConv(Rule):
    """Turn a linear layer behind a flattening into a convolution before it."""

    name: ClassVar[str] = "linear-as-conv"
    level: ClassVar[Level] = "request"

    def find(self, context: Context, node: fx.Node) -> Match | Refuse | None:
        """Match on the linear layer."""
        if not isinstance(context.module(node), nn.Linear):
            return None
        flatten = node.all_input_nodes[0]
        source = _flattened(context, flatten)
        if source is None:
            return None
        if context.is_shared(node):
            return Refuse(node, f"{node.target} is called more than once or shares its weights")
        image, flat = shape_of(source), shape_of(flatten)
        if len(flat) != 2 or flat[0] != image[0] or flat[1] != math.prod(image[1:]):
            return Refuse(node, f"{flatten.name} does not put all of an image {_sizes(image)} into one row")
        if not 3 <= len(image) <= 5:
            return Refuse(node, f"{source.name} has {len(image) - 2} spatial axes; convolutions have one to three")
        return Match(node, (source,), node, parts={"source": source, "linear": node})

    def rewrite(self, context: Context, match: Match) -> fx.Node:
        """Call the convolution on the image and flatten what it gives."""
        node, source = match.node, match.parts["source"]
        layer: Any = context.module(node)
        weight = weight_of(layer).view(-1, *shape_of(source)[1:])
        ones = (1,) * (weight.dim() - 2)
        bias = None if layer.bias is None else bias_of(layer)
        conv = make_conv(weight, bias, stride=ones, padding=(0,) * len(ones), dilation=ones)
        edit.replace_module(context.graph_module, node, conv)
        node.args = (source,)
        row = edit.add_call(context.graph_module, f"{node.target}_row", nn.Flatten(1), (node,), node)
        node.replace_all_uses_with(row, delete_user_cb=lambda user: user is not row)
        return row


def _flattened(context: Context, node: fx.Node) -> fx.Node | None:
    """What a node flattens, or None if it does something else."""
    if not isinstance(context.module(node), nn.Flatten) and node.target is not aten.reshape.default:
        return None
    source = node.args[0]
    return source if isinstance(source, fx.Node) and len(shape_of(source)) > 2 else None


def _sizes(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape[1:]))
