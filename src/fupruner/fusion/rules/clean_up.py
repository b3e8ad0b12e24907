"""Operators that do nothing go away.

    identity, dropout (in eval mode), 1x1 pools, x * 1, x + 0, reshapes and permutations that change nothing, convolutions whose
    every filter is a dirac, clips whose bounds the value cannot leave (ReLU of something that is never negative)

    permute(permute(x)) = permute(x)         orders composed

A convolution or activation that is gone lets its neighbours meet: conv-after-conv does the rest.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import fx, nn

from fupruner.fusion.algebra import bias_of, centre_of, is_centred, weight_of
from fupruner.fusion.rule import Context, Level, Match, Refuse, Rule, only_user
from fupruner.fusion.values import affine_of, bounds, clip_bounds
from fupruner.graph import edit
from fupruner.graph.channelwise import ChannelClip
from fupruner.graph.cost import CONVS
from fupruner.graph.shapes import shape_of

aten = torch.ops.aten

_NOTHING = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
_WINDOWS = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)


class RemoveNoOp(Rule):
    """Take out an operator whose output is its input."""

    name: ClassVar[str] = "remove-no-op"
    level: ClassVar[Level] = "basic"

    def find(self, context: Context, node: fx.Node) -> Match | Refuse | None:
        """Match on the operator."""
        if node.op not in ("call_module", "call_function") or not node.all_input_nodes:
            return None
        if not (_module_does_nothing(context, node) or _operator_does_nothing(context, node)):
            return None
        source = node.all_input_nodes[0]
        if affine_of(context, node) is not None:
            source = affine_of(context, node).source  # type: ignore[union-attr]
        if node.meta.get("shape") != source.meta.get("shape"):
            return None
        floor = bounds(context, source)[0] >= 0
        return Match(node, (source,), node, (source,) if floor else (), parts={"source": source})

    def rewrite(self, context: Context, match: Match) -> fx.Node:
        """Let its readers read its input."""
        edit.bypass(match.node, match.parts["source"])
        return match.parts["source"]  # type: ignore[no-any-return]


def _module_does_nothing(context: Context, node: fx.Node) -> bool:
    module = context.module(node)
    if isinstance(module, _NOTHING):
        return True
    if isinstance(module, _WINDOWS):
        return all(_all(v, 1) for v in (module.kernel_size, module.stride)) and _all(module.padding, 0)
    if isinstance(module, CONVS):
        return is_identity_conv(module)
    if isinstance(module, ChannelClip):
        return bool(torch.isinf(module.low).all() and torch.isinf(module.high).all())
    if isinstance(module, nn.PReLU):
        return bool((module.weight == 1).all())
    clip = clip_bounds(module)
    if clip is None:
        return False
    low, high = bounds(context, node.all_input_nodes[0])
    return clip[0] <= low and high <= clip[1]


def _all(value: Any, wanted: int) -> bool:
    return all(v == wanted for v in (value if isinstance(value, tuple | list) else (value,)))


def is_identity_conv(conv: Any) -> bool:
    """Whether a convolution returns its input: every filter a dirac, no bias."""
    if (
        conv.in_channels != conv.out_channels
        or math.prod(conv.stride) > 1
        or not is_centred(conv)
        or bool(bias_of(conv).any())
    ):
        return False
    weight = weight_of(conv)
    rows = torch.arange(conv.out_channels)
    diagonal = weight[(rows, rows % weight.shape[1], *centre_of(conv))]
    return bool((diagonal == 1).all()) and int(torch.count_nonzero(weight)) == conv.out_channels


def _operator_does_nothing(context: Context, node: fx.Node) -> bool:
    affine = affine_of(context, node)
    if affine is not None:
        return bool((affine.scale == 1).all() and (affine.shift == 0).all())
    if node.target is aten.permute.default:
        return list(node.args[1]) == list(range(len(node.args[1])))  # type: ignore[arg-type]
    if node.target is aten.cat.default:
        return len(node.all_input_nodes) == 1 and len(node.args[0]) == 1  # type: ignore[arg-type]
    return node.target is aten.reshape.default and _keeps_every_size(node)


def _keeps_every_size(node: fx.Node) -> bool:
    """Whether a reshape names the sizes that its input has anyway, whatever the batch."""
    source, wanted = node.args
    shape = shape_of(source)  # type: ignore[arg-type]
    if len(shape) != len(wanted) or not shape:  # type: ignore[arg-type]
        return False
    free = 0
    for axis, (size, want) in enumerate(zip(shape, wanted, strict=True)):  # type: ignore[arg-type]
        if isinstance(want, fx.Node):
            if want.target is not aten.sym_size.int or want.args[1] != axis or (axis and want.args[0] is not source):
                return False
        elif want == -1:
            free += 1
        elif want != size or axis == 0:
            return False
    return free <= 1


class MergePermutes(Rule):
    """Two permutations of axes in a row become one."""

    name: ClassVar[str] = "merge-permutes"
    level: ClassVar[Level] = "basic"

    def find(self, context: Context, node: fx.Node) -> Match | Refuse | None:
        """Match on the second one."""
        if node.target is not aten.permute.default:
            return None
        before = node.all_input_nodes[0]
        if before.target is not aten.permute.default or only_user(before) is None:
            return None
        return Match(node, (before.all_input_nodes[0],), node, parts={"first": before, "second": node})

    def rewrite(self, context: Context, match: Match) -> fx.Node:
        """Compose the orders."""
        before, node = match.parts["first"], match.parts["second"]
        rank = len(before.args[1])
        order = [before.args[1][d % rank] % rank for d in node.args[1]]
        node.args = (before.args[0], order)
        return node  # type: ignore[no-any-return]


class MergeClips(Rule):
    """Clips in a row become one: clip(clip(x, a, b), c, d) = clip(x, ...), ReLU, ReLU6 and Hardtanh alike."""

    name: ClassVar[str] = "merge-clips"
    level: ClassVar[Level] = "basic"

    def find(self, context: Context, node: fx.Node) -> Match | Refuse | None:
        """Match on the second one."""
        outer = clip_bounds(context.module(node))
        if outer is None:
            return None
        before = node.all_input_nodes[0]
        inner = clip_bounds(context.module(before))
        if inner is None or only_user(before) is None:
            return None
        return Match(
            node, (before.all_input_nodes[0],), node, parts={"first": before, "second": node, "bounds": (inner, outer)}
        )

    def rewrite(self, context: Context, match: Match) -> fx.Node:
        """Compute the common bounds and keep one."""
        (low, high), (floor, ceiling) = match.parts["bounds"]
        merged = clip(min(max(low, floor), ceiling), max(min(high, ceiling), floor))
        before, node = match.parts["first"], match.node
        name = edit.fresh_name(context.graph_module, f"{node.target}_merged")
        edit.set_module(context.graph_module, name, merged)
        with node.graph.inserting_before(node):
            new = node.graph.call_module(name, (before.all_input_nodes[0],))
        edit.bypass(node, new)
        return new


def clip(low: float, high: float) -> nn.Module:
    """The usual layer for a pair of bounds."""
    if (low, high) == (0, math.inf):
        return nn.ReLU()
    return nn.ReLU6() if (low, high) == (0, 6) else nn.Hardtanh(low, high)
