"""The shortcut of a residual block becomes filters of its convolutions.

    before   y = conv_n(... f(conv_1(x))) + shortcut(x)
    after    y = conv_n'(... f'(conv_1'(x)))

    W1' = [W1; D]     rows D: dirac kernels that carry channel i of x (subsampled by the stride) through unchanged
    Wi' = [Wi, 0; 0, D]   convolutions between (inverted residuals, bottlenecks): the carried channels get groups of their own
    Wn' = [Wn, P]     columns P: what the shortcut does with the carried channels, centre-padded to the kernel; bn' = bn + bP

The shortcut is the identity (P = I), a 1x1 convolution with the branch's stride (P = its weights), or the parameter-free one of
the CIFAR networks: every s-th pixel, zero channels appended before and after (P selects). Carried values pass the inner
activations: unchanged where their bounds allow it (ReLU and x >= 0), else f' treats them apart (PReLU with slope 1, a clip without bounds).

A basic block costs up to twice its multiply-adds, an inverted residual little. A bottleneck would grow many times: beyond
``MAX_GROWTH`` the rule refuses with the cost, unless ``keep`` asks for that block. Channels that the shortcut does not use
(a plan closed their gates) are never reserved. Source: the reserve-and-merge construction of RMNet (arXiv 2111.00687).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, fx

from fupruner.fusion import chain as chains
from fupruner.fusion.algebra import bias_of, is_pointwise, padding_of, weight_of
from fupruner.fusion.chain import Chain, chains_to
from fupruner.fusion.rule import Context, Level, Match, Refuse, Rule, only_user
from fupruner.fusion.values import affine_of, bounds
from fupruner.graph import edit
from fupruner.graph.cost import CONVS, is_add
from fupruner.graph.shapes import shape_of

aten = torch.ops.aten

MAX_GROWTH = 3.0
"""Multiply-adds of a branch with its shortcut reserved, relative to before, up to which the rule fires unasked."""


@dataclass(frozen=True)
class Shortcut:
    """What a shortcut does: subsample by ``stride``, then map channels with ``weight`` (out, in) and ``bias`` (out).

    A map that only scales channels is kept as its factors ``diagonal`` (C,).
    """

    source: fx.Node
    stride: tuple[int, ...]
    bias: Tensor
    mixing: Tensor | None = None
    diagonal: Tensor | None = None

    @property
    def weight(self) -> Tensor:
        """(out, in) how channels are mapped."""
        if self.mixing is not None:
            return self.mixing
        assert self.diagonal is not None  # noqa: S101 - one of the two is there
        return torch.diag(self.diagonal)

    @property
    def used(self) -> Tensor:
        """Indices of the channels that it reads."""
        read = self.diagonal != 0 if self.diagonal is not None else (self.weight != 0).any(0)
        return torch.nonzero(read).flatten()


class ShortcutIntoFilters(Rule):
    """Reserve the shortcut of a residual block as dirac filters of its convolutions; the Add disappears.

    Args:
        keep: blocks (names of their Adds) that are reserved whatever the growth, with the channels that may be carried.
    """

    name: ClassVar[str] = "shortcut-into-filters"
    level: ClassVar[Level] = "aggressive"

    def __init__(self, keep: Mapping[str, tuple[int, ...]] | None = None) -> None:
        self.keep = dict(keep or {})

    def find(self, context: Context, node: fx.Node) -> Match | Refuse | None:
        """Match on the Add."""
        if not is_add(node) or node.args[0] is node.args[1]:
            return None
        for end, other in (node.args[:2], node.args[1::-1]):
            for chain in chains_to(context, end):
                shortcut = find_shortcut(context, other, chain.source)
                if shortcut is None:
                    continue
                used = shortcut.used
                reason = self._objection(context, node, chain, shortcut, used)
                if reason:
                    return Refuse(node, reason)
                low, high = bounds(context, chain.source)
                parts = {"chain": chain, "shortcut": shortcut, "used": used, "bounds": (low, high), "add": node}
                return Match(node, (chain.source,), node, (chain.source,) if low >= 0 else (), parts)
        return _explain(context, node)

    def _objection(self, context: Context, add: fx.Node, chain: Chain, shortcut: Shortcut, used: Tensor) -> str:
        reason = chains.objection(context, chain)
        if reason:
            return reason
        stride = chains.stride_of(context, chain)
        if stride != shortcut.stride:
            return f"the branch's stride {stride} differs from the shortcut's {shortcut.stride}"
        if add.name in self.keep:
            missing = sorted(set(used.tolist()) - set(self.keep[add.name]))
            return f"the shortcut still carries channels {_few(missing)}, which are not to be kept" if missing else ""
        before, after = chains.growth(context, chain, len(used))
        if after > MAX_GROWTH * before:
            return (
                f"reserving {len(used)} channels would make the branch {after / before:.1f} times as large "
                f"({after:,} instead of {before:,} multiply-adds); close some of them first, or ask for this block with keep"
            )
        return ""

    def rewrite(self, context: Context, match: Match) -> fx.Node:
        """Widen the convolutions and drop the Add."""
        chain, shortcut, used = (match.parts[k] for k in ("chain", "shortcut", "used"))
        low, high = match.parts["bounds"]
        chains.carry(context, chain, used, shortcut.weight[:, used], shortcut.bias, low=low, high=high)
        edit.bypass(match.node, chain.convs[-1])
        return chain.convs[-1]  # type: ignore[no-any-return]


def _few(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers[:5])) + (" ..." if len(numbers) > 5 else "")


def _explain(context: Context, add: fx.Node) -> Refuse | None:
    """Why an Add that looks like the end of a residual block is not one, if a convolution ends the branch."""
    ends = [n for n in add.all_input_nodes if isinstance(context.module(n), CONVS) and only_user(n) is not None]
    if len(ends) != 1:
        return None
    conv: Any = context.module(ends[0])
    behind = ends[0].all_input_nodes[0]
    what = (
        type(context.module(behind)).__name__
        if context.module(behind) is not None
        else getattr(behind.target, "__name__", behind.target)
    )
    if conv.groups != 1:
        return Refuse(add, f"{ends[0].target} at the end of the branch is a grouped convolution")
    return Refuse(
        add,
        f"the branch is not a chain of convolutions and clipping activations from the shortcut's source: {what} before {ends[0].name}",
    )


def find_shortcut(context: Context, end: Any, source: fx.Node) -> Shortcut | None:
    """Understand the other operand of the Add as a linear map of the branch's source, if it is one."""
    if not isinstance(end, fx.Node):
        return None
    channels = shape_of(source)[1]
    stride = (1,) * (len(shape_of(source)) - 2)
    if end is source:
        ones = torch.ones(channels, dtype=torch.float64)
        return Shortcut(source, stride, torch.zeros_like(ones), diagonal=ones)
    affine = affine_of(context, end)
    if affine is not None and affine.source is source and affine.axis in (None, 1) and only_user(end) is not None:
        scale, shift = affine.scale.expand(channels), affine.shift.expand(channels)
        return Shortcut(source, stride, shift, diagonal=scale)
    entry, scale = _masked(context, end, source, channels)
    conv = context.module(end)
    if isinstance(conv, CONVS):
        found = _projection(conv, source) if end.all_input_nodes[0] is entry and only_user(end) is not None else None
    else:
        found = _subsampling(end, entry, source, channels)
    return found if found is None else replace(found, mixing=found.weight * scale)


def _masked(context: Context, end: fx.Node, source: fx.Node, channels: int) -> tuple[fx.Node, Tensor]:
    """Where a shortcut begins: at the source, or behind a multiplication of its channels, by zero where a plan closed them."""
    node = end
    while node is not source and len([n for n in node.all_input_nodes if n.op != "get_attr"]) == 1:
        affine = affine_of(context, node)
        if affine is not None and affine.source is source and affine.axis in (None, 1) and not affine.shift.any():
            if only_user(node) is not None:
                return node, affine.scale.expand(channels)
            break
        node = next(n for n in node.all_input_nodes if n.op != "get_attr")
    return source, torch.ones(channels, dtype=torch.float64)


def _projection(conv: Any, source: fx.Node) -> Shortcut | None:
    if not is_pointwise(conv) or conv.groups != 1 or padding_of(conv) is None:
        return None
    return Shortcut(source, tuple(conv.stride), bias_of(conv), weight_of(conv).flatten(1))


def _subsampling(end: fx.Node, entry: fx.Node, source: fx.Node, channels: int) -> Shortcut | None:
    """Every s-th pixel and zero channels appended, in any order."""
    stride, before, after = [1, 1], 0, 0
    node = end
    while node is not entry:
        if node.op != "call_function" or only_user(node) is None or not isinstance(node.args[0], fx.Node):
            return None
        if node.target is aten.slice.Tensor:
            axis = _strided_axis(node)
            if axis is None:
                return None
            stride[axis - 2] *= int(node.args[4]) if len(node.args) > 4 else 1  # type: ignore[arg-type]
        elif node.target in (aten.pad.default, aten.constant_pad_nd.default):
            pads = _channel_pads(node)
            if pads is None:
                return None
            before, after = before + pads[0], after + pads[1]
        else:
            return None
        node = node.args[0]
    weight = torch.zeros(before + channels + after, channels, dtype=torch.float64)
    weight[before : before + channels] = torch.eye(channels, dtype=torch.float64)
    return Shortcut(source, (stride[0], stride[1]), weight.new_zeros(len(weight)), weight)


def _strided_axis(node: fx.Node) -> int | None:
    """Spatial axis of a slice that begins at 0 and runs to the end, or None."""
    args: tuple[Any, ...] = node.args
    axis, start, stop = (args[i] if len(args) > i else default for i, default in ((1, 0), (2, None), (3, None)))
    whole = stop is None or (isinstance(stop, int) and stop >= 2**31 - 1)
    return int(axis) if axis in (2, 3) and start in (0, None) and whole else None


def _channel_pads(node: fx.Node) -> tuple[int, int] | None:
    """Channels of zeros appended before and after, if the padding does nothing else."""
    args: tuple[Any, ...] = node.args
    pads = list(args[1])
    mode = args[2] if node.target is aten.pad.default and len(args) > 2 else "constant"
    position = 3 if node.target is aten.pad.default else 2
    value = args[position] if len(args) > position else 0
    numbers = all(isinstance(p, int) for p in pads)
    if (
        not numbers
        or mode != "constant"
        or value not in (0, None, 0.0)
        or len(pads) != 6
        or any(pads[:4])
        or min(pads[4:]) < 0
    ):
        return None
    return pads[4], pads[5]
