"""The shortcut of a basic residual block becomes filters of its two convolutions.

    before   y = relu(conv2(relu(conv1(x))) + shortcut(x))
    after    y = relu(conv2'(relu(conv1'(x))))

    W1' = [W1; D]     rows D: dirac kernels that carry channel i of x (subsampled by conv1's stride) through unchanged
    b1' = [b1; 0]
    W2' = [W2, P]     columns P: what the shortcut does with the carried channels, centre-padded to conv2's kernel
    b2' = b2 + bP

The shortcut is the identity (P = I), a 1x1 convolution with conv1's stride (P = its weights), or the parameter-free one of
the CIFAR networks: every s-th pixel, zero channels appended before and after (P selects). Carried values pass the inner
ReLU, so the rule is exact only if x >= 0. Sources: the reserve-and-merge construction of RMNet (arXiv 2111.00687).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, fx, nn

from fupruner.fusion.rule import Context, Level, Match, Refuse, Rule, only_user
from fupruner.graph import edit
from fupruner.graph.cost import is_add
from fupruner.graph.shapes import shape_of

aten = torch.ops.aten

_KEEPS_SIGN = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.Dropout, nn.Identity)


@dataclass(frozen=True)
class Branch:
    """The residual branch of a basic block: conv1, ReLU, conv2."""

    source: fx.Node
    conv1: fx.Node
    relu: fx.Node
    conv2: fx.Node


@dataclass(frozen=True)
class Shortcut:
    """What a shortcut does: subsample by ``stride``, then map channels with ``weight`` (out, in) and ``bias`` (out)."""

    source: fx.Node
    stride: tuple[int, int]
    weight: Tensor
    bias: Tensor


def is_nonnegative(context: Context, node: fx.Node) -> bool:
    """Whether the graph guarantees that a value is at least zero."""
    module = context.module(node)
    if isinstance(module, nn.ReLU | nn.ReLU6 | nn.Sigmoid | nn.Hardsigmoid | nn.Softplus):
        return True
    if isinstance(module, _KEEPS_SIGN):
        return is_nonnegative(context, node.all_input_nodes[0])
    return False


class ShortcutIntoFilters(Rule):
    """Reserve the shortcut of a basic block as dirac filters of its convolutions; the Add disappears."""

    name: ClassVar[str] = "shortcut-into-filters"
    level: ClassVar[Level] = "aggressive"

    def find(self, context: Context, node: fx.Node) -> Match | Refuse | None:
        """Match on the Add."""
        if not is_add(node):
            return None
        for branch_end, other in (node.args[:2], node.args[1::-1]):
            branch = find_branch(context, branch_end)
            if branch is None:
                continue
            shortcut = find_shortcut(context, other, branch.source)
            if shortcut is None:
                continue
            reason = self._objection(context, branch, shortcut)
            if reason:
                return Refuse(node, reason)
            parts = {"branch": branch, "shortcut": shortcut, "add": node}
            return Match(node, (branch.source,), node, (branch.source,), parts)
        return None

    @staticmethod
    def _objection(context: Context, branch: Branch, shortcut: Shortcut) -> str:
        conv1, conv2 = context.module(branch.conv1), context.module(branch.conv2)
        for conv, node in ((conv1, branch.conv1), (conv2, branch.conv2)):
            if context.is_shared(node):
                return f"{node.target} is called more than once or shares its weights"
            if not isinstance(conv, nn.Conv2d) or conv.groups != 1:
                return f"{node.target} is a grouped convolution: it cannot carry all channels of the shortcut"
            if not _is_centred(conv):
                return f"{node.target} is not centred (odd kernel, zero padding that keeps the size)"
        if tuple(conv1.stride) != shortcut.stride or tuple(conv2.stride) != (1, 1):  # type: ignore[union-attr]
            return f"the branch's stride {tuple(conv1.stride)} differs from the shortcut's {shortcut.stride}"  # type: ignore[union-attr]
        if not is_nonnegative(context, branch.source):
            return f"{branch.source.name} may be negative, and carried values pass the inner ReLU"
        return ""

    def rewrite(self, context: Context, match: Match) -> fx.Node:
        """Widen both convolutions and drop the Add."""
        branch, shortcut, add = match.parts["branch"], match.parts["shortcut"], match.parts["add"]
        conv1, conv2 = context.module(branch.conv1), context.module(branch.conv2)
        used = torch.nonzero(shortcut.weight.abs().sum(0) > 0).flatten()
        edit.replace_module(context.graph_module, branch.conv1, with_dirac_rows(conv1, used))
        edit.replace_module(
            context.graph_module, branch.conv2, with_columns(conv2, shortcut.weight[:, used], shortcut.bias)
        )
        edit.bypass(add, branch.conv2)
        return branch.conv2  # type: ignore[no-any-return]


def find_branch(context: Context, end: Any) -> Branch | None:
    """Walk back from an operand of the Add over conv, ReLU, conv; each must be read by the next one alone."""
    if not isinstance(end, fx.Node) or not isinstance(context.module(end), nn.Conv2d) or only_user(end) is None:
        return None
    relu = end.all_input_nodes[0]
    if not isinstance(context.module(relu), nn.ReLU) or only_user(relu) is None:
        return None
    conv1 = relu.all_input_nodes[0]
    if not isinstance(context.module(conv1), nn.Conv2d) or only_user(conv1) is None:
        return None
    return Branch(conv1.all_input_nodes[0], conv1, relu, end)


def find_shortcut(context: Context, end: Any, source: fx.Node) -> Shortcut | None:
    """Understand the other operand of the Add as a linear map of the branch's source, if it is one."""
    if not isinstance(end, fx.Node):
        return None
    channels = shape_of(source)[1]
    if end is source:
        eye = torch.eye(channels, dtype=torch.float64)
        return Shortcut(source, (1, 1), eye, torch.zeros(channels, dtype=torch.float64))
    conv = context.module(end)
    if isinstance(conv, nn.Conv2d):
        return _projection(conv, source) if end.all_input_nodes[0] is source and only_user(end) is not None else None
    return _subsampling(end, source, channels)


def _projection(conv: nn.Conv2d, source: fx.Node) -> Shortcut | None:
    if tuple(conv.kernel_size) != (1, 1) or conv.groups != 1 or any(p != 0 for p in _numeric_padding(conv)):
        return None
    bias = conv.bias.detach() if conv.bias is not None else conv.weight.new_zeros(conv.out_channels)
    return Shortcut(source, (conv.stride[0], conv.stride[1]), conv.weight.detach()[:, :, 0, 0], bias)


def _subsampling(end: fx.Node, source: fx.Node, channels: int) -> Shortcut | None:
    """Slices with a step over the two spatial axes and zero-padding of channels, in any order."""
    stride, before, after = [1, 1], 0, 0
    node = end
    while node is not source:
        if (
            node.op != "call_function"
            or only_user(node) is None
            or not node.args
            or not isinstance(node.args[0], fx.Node)
        ):
            return None
        if node.target is aten.slice.Tensor:
            axis = _strided_axis(node)
            if axis is None:
                return None
            stride[axis - 2] *= node.args[4] if len(node.args) > 4 else 1  # type: ignore[operator]
        elif node.target in (aten.pad.default, aten.constant_pad_nd.default):
            pads = _channel_pads(node)
            if pads is None:
                return None
            before, after = before + pads[0], after + pads[1]
        else:
            return None
        node = node.args[0]  # type: ignore[assignment]
    weight = torch.zeros(before + channels + after, channels, dtype=torch.float64)
    weight[before : before + channels] = torch.eye(channels, dtype=torch.float64)
    return Shortcut(source, (stride[0], stride[1]), weight, weight.new_zeros(len(weight)))


def _strided_axis(node: fx.Node) -> int | None:
    """Spatial axis of a slice that begins at 0 and runs to the end, or None."""
    axis, start, stop = (
        node.args[i] if len(node.args) > i else default for i, default in ((1, 0), (2, None), (3, None))
    )
    whole = stop is None or (isinstance(stop, int) and stop >= 2**31 - 1)
    return int(axis) if axis in (2, 3) and start in (0, None) and whole else None  # type: ignore[arg-type]


def _channel_pads(node: fx.Node) -> tuple[int, int] | None:
    """Channels of zeros appended before and after, if the padding does nothing else."""
    pads = list(node.args[1])  # type: ignore[arg-type]
    mode = node.args[2] if node.target is aten.pad.default and len(node.args) > 2 else "constant"
    position = 3 if node.target is aten.pad.default else 2
    value = node.args[position] if len(node.args) > position else 0
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


def _numeric_padding(conv: nn.Conv2d) -> tuple[int, ...]:
    if conv.padding == "same":
        return tuple(d * (k - 1) // 2 for d, k in zip(conv.dilation, conv.kernel_size, strict=True))
    return (0,) * len(conv.kernel_size) if conv.padding == "valid" else tuple(conv.padding)  # type: ignore[arg-type]


def _is_centred(conv: nn.Conv2d) -> bool:
    """Whether output pixel i lies over input pixel i * stride: odd kernel and matching zero padding."""
    padding = _numeric_padding(conv)
    return conv.padding_mode == "zeros" and all(
        k % 2 == 1 and p == d * (k - 1) // 2 for k, p, d in zip(conv.kernel_size, padding, conv.dilation, strict=True)
    )


def with_dirac_rows(conv: Any, channels: Tensor) -> nn.Conv2d:
    """A copy of a centred convolution with one more filter per listed input channel, which carries it unchanged.

    Args:
        conv: (M, C, kh, kw) weights.
        channels: (R,) indices of input channels; the new filters come last, in this order.
    """
    rows = conv.weight.new_zeros(len(channels), *conv.weight.shape[1:])
    rows[torch.arange(len(channels)), channels, conv.kernel_size[0] // 2, conv.kernel_size[1] // 2] = 1
    bias = conv.bias.detach() if conv.bias is not None else conv.weight.new_zeros(conv.out_channels)
    return _resized(conv, torch.cat([conv.weight.detach(), rows]), torch.cat([bias, bias.new_zeros(len(channels))]))


def with_columns(conv: Any, columns: Tensor, shift: Tensor) -> nn.Conv2d:
    """A copy of a centred convolution that reads more channels, each through the centre tap alone.

    Args:
        conv: (O, M, kh, kw) weights.
        columns: (O, R) weights of the centre taps of the new input channels, which come last.
        shift: (O,) added to the bias.
    """
    wide = conv.weight.new_zeros(conv.out_channels, columns.shape[1], *conv.kernel_size)
    wide[:, :, conv.kernel_size[0] // 2, conv.kernel_size[1] // 2] = columns.to(wide)
    bias = conv.bias.detach() if conv.bias is not None else conv.weight.new_zeros(conv.out_channels)
    return _resized(conv, torch.cat([conv.weight.detach(), wide], dim=1), bias + shift.to(bias))


def _resized(conv: Any, weight: Tensor, bias: Tensor) -> nn.Conv2d:
    changed: nn.Conv2d = copy.copy(conv)
    changed._parameters = {"weight": nn.Parameter(weight), "bias": nn.Parameter(bias)}
    changed._buffers, changed._modules = dict(conv._buffers), dict(conv._modules)
    changed.out_channels, changed.in_channels = weight.shape[0], weight.shape[1] * conv.groups
    return changed
