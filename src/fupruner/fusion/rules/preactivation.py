"""The identity shortcut of a pre-activation block becomes filters.

    before   x = P * z,  y = conv_n(... conv_1(f(a x + c))) + x
    after    u = [a P + c; P] * z,  y = conv_n'(... conv_1'(f'(u)))

The branch reads x only through a norm (a, c) and an activation, so x itself has to travel beside them: the convolution before
the block computes both, the activation lets the second half pass (PReLU with slope 1, or a clip without bounds), and every
convolution of the branch carries it on as in the rule for shortcuts. Exact if the block alone reads x. The first convolution
sees twice the channels: this rule is for networks that are pruned afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import fx, nn

from fupruner.fusion import chain as chains
from fupruner.fusion.algebra import bias_of, make_conv, padding_of, scale_outputs, weight_of
from fupruner.fusion.chain import Chain, chains_to
from fupruner.fusion.rule import Context, Level, Match, Refuse, Rule, only_user
from fupruner.fusion.rules.shortcut import MAX_GROWTH
from fupruner.fusion.values import ANY, Affine, affine_of
from fupruner.graph import edit
from fupruner.graph.cost import CONVS, is_add
from fupruner.graph.shapes import shape_of


@dataclass(frozen=True)
class _Entry:
    """Where a pre-activation branch begins: the convolution that makes x, the norm (if any) and the activation."""

    conv: fx.Node
    affine: Affine | None
    norm: fx.Node
    activation: fx.Node


class PreactivationIntoFilters(Rule):
    """Reserve the identity shortcut of a pre-activation block; the Add disappears."""

    name: ClassVar[str] = "preactivation-into-filters"
    level: ClassVar[Level] = "aggressive"

    def find(self, context: Context, node: fx.Node) -> Match | Refuse | None:
        """Match on the Add."""
        if not is_add(node) or node.args[0] is node.args[1]:
            return None
        for end, x in (node.args[:2], node.args[1::-1]):
            for chain in chains_to(context, end):
                entry = _entry(context, chain.source, x)
                if entry is None:
                    continue
                reason = _objection(context, entry, chain, x, node)
                if reason:
                    return Refuse(node, reason)
                parts = {"entry": entry, "chain": chain, "add": node}
                return Match(node, (entry.conv.all_input_nodes[0],), node, parts=parts)
        return None

    def rewrite(self, context: Context, match: Match) -> fx.Node:
        """Double the convolution before the block, widen the branch, drop norm and Add."""
        entry, chain = match.parts["entry"], match.parts["chain"]
        producer: Any = context.module(entry.conv)
        channels = producer.out_channels
        normed: Any = (
            producer
            if entry.affine is None
            else scale_outputs(producer, *(t.expand(channels) for t in (entry.affine.scale, entry.affine.shift)))
        )
        weight = torch.cat([weight_of(normed), weight_of(producer)])
        bias = torch.cat([bias_of(normed), bias_of(producer)])
        both = make_conv(
            weight,
            bias,
            stride=tuple(producer.stride),
            padding=padding_of(producer) or (),
            dilation=tuple(producer.dilation),
        )
        edit.replace_module(context.graph_module, entry.conv, both)
        chains.let_pass(context, entry.activation, inputs=channels, carried=channels, low=ANY[0], high=ANY[1])
        entry.activation.replace_input_with(entry.norm, entry.conv)
        _widen_inputs(context, chain.convs[0], channels)
        eye = torch.eye(channels, dtype=torch.float64)
        chains.carry(
            context, chain, channels + torch.arange(channels), eye, eye.new_zeros(channels), low=ANY[0], high=ANY[1]
        )
        edit.bypass(match.node, chain.convs[-1])
        return chain.convs[-1]  # type: ignore[no-any-return]


def _entry(context: Context, source: fx.Node, x: Any) -> _Entry | None:
    """Walk back from what the branch reads over activation and norm to ``x``."""
    if not isinstance(context.module(source), nn.ReLU | nn.Hardtanh | nn.LeakyReLU) or only_user(source) is None:
        return None
    before = source.all_input_nodes[0]
    if before is x:
        return _Entry(x, None, x, source)
    affine = affine_of(context, before)
    if affine is None or affine.source is not x or affine.axis not in (None, 1) or only_user(before) is None:
        return None
    return _Entry(x, affine, before, source)


def _objection(context: Context, entry: _Entry, chain: Chain, x: Any, add: fx.Node) -> str:
    producer: Any = context.module(entry.conv)
    if not isinstance(producer, CONVS) or producer.groups != 1 or padding_of(producer) is None:
        return f"{x.name}, which the shortcut carries, does not come from an ungrouped convolution that could compute it twice"
    if context.is_shared(entry.conv):
        return f"{entry.conv.target} is called more than once or shares its weights"
    readers = [user for user in x.users if user not in (add, entry.norm, entry.activation)]
    if readers:
        return f"{x.name} is also read by {readers[0].name}"
    reason = chains.objection(context, chain)
    if reason:
        return reason
    stride = chains.stride_of(context, chain)
    if any(s != 1 for s in stride):
        return f"the branch has a stride {stride}"
    before, after = chains.growth(context, chain, shape_of(x)[1])
    if after > MAX_GROWTH * before:
        growth = f"{after / before:.1f} times as large ({after:,} instead of {before:,} multiply-adds)"
        return f"reserving {shape_of(x)[1]} channels would make the branch {growth}"
    return ""


def _widen_inputs(context: Context, node: fx.Node, extra: int) -> None:
    """Let a convolution read further channels, with zero weights."""
    conv: Any = context.module(node)
    weight = weight_of(conv)
    wide = torch.cat([weight, weight.new_zeros(weight.shape[0], extra, *weight.shape[2:])], dim=1)
    settings: dict[str, Any] = {
        "stride": tuple(conv.stride),
        "padding": padding_of(conv) or (),
        "dilation": tuple(conv.dilation),
    }
    edit.replace_module(context.graph_module, node, make_conv(wide, bias_of(conv), **settings))
