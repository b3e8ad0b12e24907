"""Activations between two layers that become one layer when the activation is gone.

    y = W2 f(W1 x + b1) + b2        f gone:  y = (W2 W1) x + (W2 b1 + b2)

A convolution that pads reads zeros where the merged one would read what lies outside the image, so the merge is exact only if
the second layer does not pad, or if the first one is 1x1 and adds no bias: then zeros inside are zeros outside. Only activations
that keep zero are taken: a channel that is closed stays closed without them.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from torch import fx, nn

from fupruner.graph import edit
from fupruner.graph.cost import CONVS, NORMS
from fupruner.graph.layer_shape import LayerShape
from fupruner.graph.shapes import shape_of

KEEP_ZERO = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.SiLU, nn.GELU, nn.Hardswish, nn.Mish, nn.ELU, nn.Tanh)
_SKIPPED = (nn.Identity, nn.Dropout, nn.Dropout2d)


@dataclass(frozen=True)
class Activation:
    """An activation that may be switched off.

    Attributes:
        name: of its node; no branch has it.
        node: the activation.
        first: the layer that it follows, perhaps with a norm between.
        second: the layer that reads it.
    """

    name: str
    node: fx.Node
    first: fx.Node
    second: fx.Node


def find_activations(graph_module: fx.GraphModule, taken: frozenset[str] = frozenset()) -> list[Activation]:
    """All activations of a graph whose removal lets two layers merge exactly, in graph order.

    Args:
        graph_module: shapes must have been propagated.
        taken: names that others have.
    """
    shared = edit.shared_modules(graph_module)
    found = []
    for node in graph_module.graph.nodes:
        if not isinstance(edit.module_of(graph_module, node), KEEP_ZERO) or len(node.users) != 1:
            continue
        first, normed = _layer_before(graph_module, node)
        second = _layer_after(graph_module, node)
        if first is None or second is None or {str(first.target), str(second.target)} & shared:
            continue
        one, two = edit.module_of(graph_module, first), edit.module_of(graph_module, second)
        if mergeable(one, two, biased=normed or getattr(one, "bias", None) is not None):
            name = node.name if node.name not in taken else f"{node.name}#activation"
            found.append(Activation(name, node, first, second))
    return found


def _layer_before(graph_module: fx.GraphModule, node: fx.Node) -> tuple[fx.Node | None, bool]:
    """The layer that an activation follows, if nobody else reads it, and whether a norm stands between."""
    normed, source = False, node.all_input_nodes[0]
    while len(source.users) == 1:
        module = edit.module_of(graph_module, source)
        if isinstance(module, nn.Linear) and normed and len(shape_of(source)) != 2:
            return None, normed  # the norm would lie along tokens
        if isinstance(module, (*CONVS, nn.Linear)):
            return source, normed
        if not isinstance(module, NORMS) or normed:
            return None, normed
        normed, source = True, source.all_input_nodes[0]
    return None, normed


def _layer_after(graph_module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """The layer that alone reads an activation."""
    while len(node.users) == 1:
        node = next(iter(node.users))
        module = edit.module_of(graph_module, node)
        if isinstance(module, (*CONVS, nn.Linear)):
            return node
        if not isinstance(module, _SKIPPED):
            return None
    return None


def mergeable(first: Any, second: Any, *, biased: bool) -> bool:
    """Whether two layers without an activation between them are one layer of the same kind.

    Args:
        first: a convolution or linear layer.
        second: reads the first one.
        biased: whether something is added to the first one's products, by itself or by a norm behind it.
    """
    if isinstance(first, nn.Linear) or isinstance(second, nn.Linear):
        return isinstance(first, nn.Linear) and isinstance(second, nn.Linear)
    if {first.padding_mode, second.padding_mode} != {"zeros"} or "same" in (first.padding, second.padding):
        return False
    if len(first.kernel_size) != len(second.kernel_size):
        return False
    pads = _pads(second)
    return (_pointwise(second) and not pads) or (_reads_single_pixels(first) and not (pads and biased))


def _pointwise(conv: Any) -> bool:
    return all(k == 1 for k in conv.kernel_size)


def _pads(conv: Any) -> bool:
    return conv.padding != "valid" and any(p > 0 for p in conv.padding)


def _reads_single_pixels(conv: Any) -> bool:
    """Whether output pixel i is made of input pixel i alone."""
    return _pointwise(conv) and not _pads(conv) and all(s == 1 for s in conv.stride)


def merged_shape(first: LayerShape, second: LayerShape) -> LayerShape | None:
    """The layer that two mergeable ones become, or None if it would do more work than both.

    Args:
        first: shape of the first layer as cut.
        second: of the second one; what a runtime merges into it stays.
    """
    window = first if math.prod(second.kernel) == 1 else second
    stride = tuple(a * b for a, b in zip(first.stride, second.stride, strict=True))
    merged = dataclasses.replace(
        second, in_shape=first.in_shape, kernel=window.kernel, padding=window.padding, dilation=window.dilation, stride=stride,
        groups=math.gcd(first.groups, second.groups),
    )  # fmt: skip
    return merged if merged.macs <= first.macs + second.macs else None
