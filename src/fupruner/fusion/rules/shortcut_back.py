"""Filters that still carry a shortcut unchanged go back to being an Add: the inverse of shortcut-into-filters.

    before   y = conv_2'(f'(conv_1'(x)))       W1' = [W1; D],  W2' = [W2, P],  D exact diracs without bias
    after    y = conv_2(f(conv_1(x))) + P x    an Add if P is the identity, else a 1x1 convolution with conv_1's stride and an Add

For targets that fuse the Add for free, once pruning has settled and every reserved filter survived. Exact only if the
activation lets the carried channels pass, and if the second convolution reads each of them through its centre tap alone. Runs on
request, and never beside its inverse.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, fx, nn

from fupruner.fusion.algebra import bias_of, centre_of, is_centred, make_conv, padding_of, reserved_filters, weight_of
from fupruner.fusion.chain import Chain, chains_to
from fupruner.fusion.rule import Context, Level, Match, Refuse, Rule
from fupruner.fusion.values import bounds, clip_bounds
from fupruner.graph import edit
from fupruner.graph.channelwise import ChannelClip
from fupruner.graph.cost import CONVS

aten = torch.ops.aten


class FiltersIntoShortcut(Rule):
    """Turn reserved filters of two convolutions back into a shortcut."""

    name: ClassVar[str] = "filters-into-shortcut"
    level: ClassVar[Level] = "request"

    def find(self, context: Context, node: fx.Node) -> Match | Refuse | None:
        """Match on the second convolution."""
        second: Any = context.module(node)
        if not isinstance(second, CONVS) or second.groups != 1 or context.is_shared(node):
            return None
        chain = next(iter(chains_to(context, node)), None)
        if chain is None or context.is_shared(chain.convs[0]):
            return None
        first: Any = context.module(chain.convs[0])
        if first.groups != 1:
            return None
        reserved = reserved_filters(first)
        if not bool(reserved.any()):
            return None
        reason = _objection(context, chain, second, reserved)
        if reason:
            return Refuse(node, reason)
        low = bounds(context, chain.source)[0]
        return Match(
            node,
            (chain.source,),
            node,
            (chain.source,) if low >= 0 else (),
            {"chain": chain, "reserved": reserved, "second": node},
        )

    def rewrite(self, context: Context, match: Match) -> fx.Node:
        """Cut the reserved filters out of both convolutions and add the shortcut."""
        chain, reserved = match.parts["chain"], match.parts["reserved"]
        before, node = chain.convs
        first: Any = context.module(before)
        second: Any = context.module(node)
        projection = _projection(first, second, reserved)
        edit.replace_module(
            context.graph_module, before, _cut(first, weight_of(first)[~reserved], bias_of(first)[~reserved])
        )
        edit.replace_module(context.graph_module, node, _cut(second, weight_of(second)[:, ~reserved], bias_of(second)))
        if chain.activations[0] is not None:
            _cut_activation(context, chain.activations[0], reserved)
        shortcut = _shortcut(context, chain, first, projection)
        with node.graph.inserting_after(node):
            add = node.graph.call_function(aten.add.Tensor, (node, shortcut))
        add.meta["shape"] = node.meta["shape"]
        node.replace_all_uses_with(add, delete_user_cb=lambda user: user is not add)
        return add  # type: ignore[no-any-return]


def _objection(context: Context, chain: Chain, second: Any, reserved: Tensor) -> str:
    if bool(reserved.all()):
        return f"{chain.convs[0].target} has no other filters"
    if not is_centred(second):
        return "it is not centred (odd kernel, zero padding that keeps the size)"
    if any(s != 1 for s in second.stride):
        return f"it has a stride {tuple(second.stride)}"
    around = weight_of(second)[:, reserved].clone()
    around[(slice(None), slice(None), *centre_of(second))] = 0
    if bool(around.any()):
        return "it reads reserved channels beside its centre tap too"
    return "" if _passes(context, chain, reserved) else "its activation does not let the reserved channels pass"


def _passes(context: Context, chain: Chain, reserved: Tensor) -> bool:
    module = context.module(chain.activations[0])
    if module is None:
        return True
    low, high = bounds(context, chain.source)
    if isinstance(module, nn.PReLU):
        return low >= 0 or bool((module.weight.detach().expand(len(reserved))[reserved] == 1).all())
    if isinstance(module, ChannelClip):
        return bool((module.low[reserved] <= low).all() and (module.high[reserved] >= high).all())
    clip = clip_bounds(module)
    return (low >= 0 and isinstance(module, nn.LeakyReLU)) or (clip is not None and clip[0] <= low and high <= clip[1])


def _projection(first: Any, second: Any, reserved: Tensor) -> Tensor:
    """(out, in) what the reserved channels do: which input each carries, and how the second convolution reads it."""
    carries = weight_of(first)[(reserved, slice(None), *centre_of(first))]
    reads = weight_of(second)[(slice(None), reserved, *centre_of(second))]
    return reads @ carries


def _shortcut(context: Context, chain: Chain, first: Any, projection: Tensor) -> fx.Node:
    plain = all(s == 1 for s in first.stride) and projection.shape[0] == projection.shape[1]
    if plain and torch.equal(projection, torch.eye(len(projection), dtype=projection.dtype)):
        return chain.source
    dims = len(first.kernel_size)
    conv = make_conv(
        projection.view(*projection.shape, *[1] * dims),
        None,
        stride=tuple(first.stride),
        padding=(0,) * dims,
        dilation=(1,) * dims,
    )
    return edit.add_call(
        context.graph_module, f"{chain.convs[0].target}_shortcut", conv, (chain.source,), chain.convs[0]
    )


def _cut(conv: Any, weight: Tensor, bias: Tensor) -> Any:
    return make_conv(
        weight, bias, stride=tuple(conv.stride), padding=padding_of(conv) or (), dilation=tuple(conv.dilation)
    )


def _cut_activation(context: Context, node: fx.Node, reserved: Tensor) -> None:
    module = context.module(node)
    if isinstance(module, nn.PReLU) and module.weight.numel() > 1:
        slopes = module.weight.detach()[~reserved]
        layer: nn.Module = nn.PReLU(len(slopes), device="meta")
        layer.weight = nn.Parameter(slopes, requires_grad=module.weight.requires_grad)
        edit.replace_call(context.graph_module, node, nn.ReLU() if not bool(slopes.any()) else layer)
    elif isinstance(module, ChannelClip):
        edit.replace_call(context.graph_module, node, ChannelClip(module.low[~reserved], module.high[~reserved]))
