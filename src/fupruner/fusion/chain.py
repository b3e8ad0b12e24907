"""Residual branches as chains of convolutions and activations, and how a chain carries further channels along.

A chain of convolutions 1..n carries channels of its source through to its end: convolution 1 gets dirac rows, the ones between get
a dirac block (further groups, which the carried channels have to themselves), the last one gets columns that do what the
shortcut does, and activations must let the carried channels pass.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from fupruner.fusion.algebra import bias_of, centre_of, is_centred, make_conv, padding_of, spread_groups, weight_of
from fupruner.fusion.rule import Context, only_user
from fupruner.fusion.values import clip_bounds
from fupruner.graph import edit
from fupruner.graph.channelwise import ChannelClip
from fupruner.graph.cost import CONVS
from fupruner.graph.shapes import shape_of

_ACTIVATIONS = (nn.ReLU, nn.Hardtanh, nn.LeakyReLU, nn.PReLU, ChannelClip)


@dataclass(frozen=True)
class Chain:
    """Convolutions and the activation in front of each but the first (or None), in order.

    Attributes:
        source: what the first convolution reads.
    """

    source: fx.Node
    convs: tuple[fx.Node, ...]
    activations: tuple[fx.Node | None, ...]


def chains_to(context: Context, end: object) -> list[Chain]:
    """Chains of two and more convolutions that end in a node, the shortest first; all but the end are read once."""
    if not isinstance(end, fx.Node) or not _is_plain(context, end):
        return []
    found: list[Chain] = []
    convs: list[fx.Node] = [end]
    activations: list[fx.Node | None] = []
    while len(convs[0].all_input_nodes) == 1:
        node, activation = convs[0].all_input_nodes[0], None
        if isinstance(context.module(node), _ACTIVATIONS) and only_user(node) is not None:
            activation, node = node, node.all_input_nodes[0]
        if not _is_plain(context, node):
            break
        convs.insert(0, node)
        activations.insert(0, activation)
        found.append(Chain(node.all_input_nodes[0], tuple(convs), tuple(activations)))
    return found


def _is_plain(context: Context, node: fx.Node) -> bool:
    return isinstance(context.module(node), CONVS) and only_user(node) is not None


def objection(context: Context, chain: Chain) -> str:
    """Why a chain cannot carry channels; empty when it can."""
    last = len(chain.convs) - 1
    for i, node in enumerate(chain.convs):
        conv: Any = context.module(node)
        if context.is_shared(node):
            return f"{node.target} is called more than once or shares its weights"
        if conv.groups != 1 and i in (0, last):
            return f"{node.target} is a grouped convolution: it cannot carry all channels of the shortcut"
        if not is_centred(conv):
            return f"{node.target} is not centred (odd kernel, zero padding that keeps the size)"
    return ""


def stride_of(context: Context, chain: Chain) -> tuple[int, ...]:
    """Stride of a whole chain."""
    strides = [context.module(node).stride for node in chain.convs]  # type: ignore[union-attr]
    return tuple(math.prod(axis) for axis in zip(*strides, strict=True))


def growth(context: Context, chain: Chain, carried: int) -> tuple[int, int]:
    """Multiply-adds of a chain before and after it carries some channels."""
    before = after = 0
    last = len(chain.convs) - 1
    for i, node in enumerate(chain.convs):
        conv: Any = context.module(node)
        each = math.prod(shape_of(node)[2:]) * math.prod(conv.kernel_size)
        rows, columns, groups = conv.out_channels, conv.in_channels, conv.groups
        before += each * rows * columns // groups
        if i == 0:
            rows += carried
        elif i == last:
            columns += carried
        else:
            extra, groups = middle_groups(conv, carried)
            rows, columns = rows + extra, columns + extra
        after += each * rows * columns // groups
    return before, after


def middle_groups(conv: Any, carried: int) -> tuple[int, int]:
    """How many channels a convolution inside a chain is widened by, and its groups: as cheap as whole groups allow.

    Further groups must be as wide as the existing ones, so carried channels are filled up with zeros to whole groups; one dense
    convolution is the alternative, and the cheaper one for few channels.
    """
    width_in, width_out = conv.in_channels // conv.groups, conv.out_channels // conv.groups
    if width_in == width_out:
        extra = -(-carried // width_in)
        grouped = (conv.groups + extra) * width_in * width_out
        dense = (conv.in_channels + carried) * (conv.out_channels + carried)
        if grouped <= dense or conv.groups > 1:
            return extra * width_in, conv.groups + extra
    return carried, 1


def carry(
    context: Context, chain: Chain, channels: Tensor, columns: Tensor, shift: Tensor, *, low: float, high: float
) -> None:
    """Widen a chain in place of its modules so that it carries channels of its source to its end.

    Args:
        context: of the graph.
        chain: without objection.
        channels: (R,) indices of the source's channels.
        columns: (out, R) how the carried channels enter the outputs.
        shift: (out,) added to the outputs.
        low: bound of the carried values; infinite when nothing is known.
        high: likewise.
    """
    count = len(channels)
    last = len(chain.convs) - 1
    width = 0
    for i, node in enumerate(chain.convs):
        conv: Any = context.module(node)
        if i:
            let_pass(context, chain.activations[i - 1], inputs=conv.in_channels, carried=width, low=low, high=high)
        if i == 0:
            width = middle_groups(context.module(chain.convs[1]), count)[0] if last > 1 else count
            widened = with_dirac_rows(conv, channels, width)
        elif i == last:
            widened = with_columns(
                conv, torch.cat([columns, columns.new_zeros(len(columns), width - count)], dim=1), shift
            )
        else:
            following = middle_groups(context.module(chain.convs[i + 1]), width)[0] if i + 1 < last else width
            if following != width:
                raise ValueError(
                    f"{chain.convs[i + 1].name} would need {following} instead of {width} carried channels"
                )
            widened = with_dirac_block(conv, width)
        edit.replace_module(context.graph_module, node, widened)


def let_pass(context: Context, node: fx.Node | None, *, inputs: int, carried: int, low: float, high: float) -> None:
    """Replace an activation by one that lets the last ``carried`` channels pass unchanged."""
    if node is None:
        return
    module: Any = context.module(node)
    clip = clip_bounds(module)
    if clip is not None and clip[0] <= low and high <= clip[1]:
        return
    edit.replace_call(context.graph_module, node, _passing(module, clip, inputs, carried))


def _passing(module: Any, clip: tuple[float, float] | None, inputs: int, carried: int) -> nn.Module:
    if clip == (0.0, math.inf) or isinstance(module, nn.LeakyReLU | nn.PReLU):
        slopes = torch.zeros(inputs, dtype=torch.float64)
        if isinstance(module, nn.LeakyReLU):
            slopes += module.negative_slope
        elif isinstance(module, nn.PReLU):
            slopes = module.weight.detach().double().expand(inputs)
        layer = nn.PReLU(inputs + carried, device="meta")
        layer.weight = nn.Parameter(torch.cat([slopes, slopes.new_ones(carried)]), requires_grad=False)
        return layer
    if isinstance(module, ChannelClip):
        bounds = module.low.double(), module.high.double()
    else:
        assert clip is not None  # noqa: S101 - every other member of _ACTIVATIONS clips
        bounds = (
            torch.full((inputs,), clip[0], dtype=torch.float64),
            torch.full((inputs,), clip[1], dtype=torch.float64),
        )
    free = torch.full((carried,), math.inf, dtype=torch.float64)
    return ChannelClip(torch.cat([bounds[0], -free]), torch.cat([bounds[1], free]))


def with_dirac_rows(conv: Any, channels: Tensor, width: int | None = None) -> Any:
    """A copy of a centred convolution with one more filter per listed input channel, which carries it unchanged.

    Args:
        conv: (M, C, *kernel) weights.
        channels: (R,) indices of input channels; the new filters come last, in this order.
        width: how many filters to add in all; those beyond R are zero.
    """
    weight = weight_of(conv)
    rows = weight.new_zeros(width if width is not None else len(channels), *weight.shape[1:])
    rows[(torch.arange(len(channels)), channels, *centre_of(conv))] = 1
    return _resized(conv, torch.cat([weight, rows]), torch.cat([bias_of(conv), weight.new_zeros(len(rows))]))


def with_columns(conv: Any, columns: Tensor, shift: Tensor) -> Any:
    """A copy of a centred convolution that reads more channels, each through the centre tap alone.

    Args:
        conv: (O, M, *kernel) weights.
        columns: (O, R) weights of the centre taps of the new input channels, which come last.
        shift: (O,) added to the bias.
    """
    weight = weight_of(conv)
    wide = weight.new_zeros(conv.out_channels, columns.shape[1], *conv.kernel_size)
    wide[(slice(None), slice(None), *centre_of(conv))] = columns.to(wide)
    return _resized(conv, torch.cat([weight, wide], dim=1), bias_of(conv) + shift.to(weight))


def with_dirac_block(conv: Any, carried: int) -> Any:
    """A copy of a centred convolution that also carries further channels, which come last on both sides."""
    extra, groups = middle_groups(conv, carried)
    if extra != carried:
        raise ValueError(f"{carried} channels do not fill whole groups of {conv}")
    weight, centre = weight_of(conv), centre_of(conv)
    if groups == 1:
        weight = spread_groups(weight, conv.groups, 1)
        block = weight.new_zeros(weight.shape[0] + carried, weight.shape[1] + carried, *conv.kernel_size)
        block[: weight.shape[0], : weight.shape[1]] = weight
        rows, columns = weight.shape[0] + torch.arange(carried), weight.shape[1] + torch.arange(carried)
        block[(rows, columns, *centre)] = 1
    else:
        rows = torch.arange(carried)
        diracs = weight.new_zeros(carried, *weight.shape[1:])
        diracs[(rows, rows % weight.shape[1], *centre)] = 1
        block = torch.cat([weight, diracs])
    return _resized(conv, block, torch.cat([bias_of(conv), weight.new_zeros(carried)]), groups=groups)


def _resized(conv: Any, weight: Tensor, bias: Tensor, *, groups: int = 1) -> Any:
    padding = padding_of(conv)
    assert padding is not None  # noqa: S101 - centred
    return make_conv(
        weight, bias, stride=tuple(conv.stride), padding=padding, dilation=tuple(conv.dilation), groups=groups
    )
