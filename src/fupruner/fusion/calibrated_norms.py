"""Norms for networks whose norms were folded: the identity in eval mode, a batch norm in train mode.

Training needs normalisation, which folding removed. A calibrated norm stands behind a convolution z = W x + b whose filter i has
length a_i * sqrt(2), the length that He initialisation gives:

    W' = W / a,  no bias;  norm: running mean m and variance v of z' = W' x, scale a * sqrt(v + eps), shift a * m + b

so that in eval mode the norm returns a z' + b = z exactly, and in train mode gradients and learning rates are those of a normally
parametrised network. Filters that fusion reserved (exact diracs) are neither rescaled nor normalised.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.utils import parametrize

from fupruner.errors import InputError
from fupruner.fusion.algebra import bias_of, reserved_filters, weight_of, with_tensors
from fupruner.fusion.rule import only_user
from fupruner.graph import edit
from fupruner.graph.channelwise import ChannelClip, ReservedNorm
from fupruner.graph.cost import CONVS, NORMS
from fupruner.graph.shapes import shape_of

_NORM_OF_RANK: dict[int, type[nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d]] = {
    1: nn.BatchNorm1d,
    2: nn.BatchNorm2d,
    3: nn.BatchNorm3d,
}
_HE_LENGTH = math.sqrt(2.0)
_ELEMENTWISE = (nn.ReLU, nn.Hardtanh, nn.PReLU, ChannelClip, ReservedNorm, *NORMS)


class _Moments:
    """Mean and variance per channel of everything that it is shown, in float64."""

    def __init__(self) -> None:
        self.count = 0
        self.sum: Tensor | float = 0.0
        self.squares: Tensor | float = 0.0

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        values = output.detach().double().transpose(0, 1).flatten(1)
        self.count += values.shape[1]
        self.sum = self.sum + values.sum(1)
        self.squares = self.squares + values.square().sum(1)

    def mean_and_variance(self) -> tuple[Tensor, Tensor]:
        mean = torch.as_tensor(self.sum) / self.count
        return mean, (torch.as_tensor(self.squares) / self.count - mean.square()).clamp_min(0.0)


def insert_norms(
    graph_module: fx.GraphModule, calibration_batches: Iterable[Tensor | tuple[Tensor, ...]]
) -> fx.GraphModule:
    """Put a calibrated norm behind every convolution that has none; the function in eval mode stays the same.

    Args:
        graph_module: a canonical graph; it is not modified.
        calibration_batches: inputs (N, ...), or tuples of them; a few hundred images are enough.

    Returns:
        A copy, in eval mode, that trains like a network with batch norms; ``norm-after-layer`` folds them again.

    Raises:
        InputError: there is no calibration batch.
    """
    copied = edit.clone(graph_module).eval()
    nodes = [node for node in copied.graph.nodes if _wants_norm(copied, node)]
    moments = _measure(copied, nodes, calibration_batches)
    for node in nodes:
        _insert(copied, node, *moments[node].mean_and_variance())
    edit.clean(copied)
    return copied


def _wants_norm(graph_module: fx.GraphModule, node: fx.Node) -> bool:
    conv = edit.module_of(graph_module, node)
    if not isinstance(conv, CONVS) or str(node.target) in edit.shared_modules(graph_module):
        return False
    user = only_user(node)
    return user is None or not isinstance(edit.module_of(graph_module, user), (*NORMS, ReservedNorm))


@torch.no_grad()
def _measure(
    graph_module: fx.GraphModule, nodes: list[fx.Node], batches: Iterable[Tensor | tuple[Tensor, ...]]
) -> dict[fx.Node, _Moments]:
    moments = {node: _Moments() for node in nodes}
    handles = [graph_module.get_submodule(str(node.target)).register_forward_hook(m) for node, m in moments.items()]
    seen = 0
    for batch in batches:
        graph_module(*((batch,) if isinstance(batch, Tensor) else batch))
        seen += 1
    for handle in handles:
        handle.remove()
    if not seen:
        raise InputError(
            "No calibration batch was given.", hint="Norms are calibrated on a few hundred training images."
        )
    return moments


def _insert(graph_module: fx.GraphModule, node: fx.Node, mean: Tensor, variance: Tensor) -> None:
    conv: Any = edit.module_of(graph_module, node)
    weight, bias, reserved = weight_of(conv), bias_of(conv).double(), reserved_filters(conv)
    length = weight.double().flatten(1).norm(dim=1) / _HE_LENGTH
    scale = torch.where(reserved | (length == 0), torch.ones_like(length), length)
    edit.replace_module(
        graph_module, node, with_tensors(conv, (weight / scale.view(-1, *[1] * (weight.dim() - 1))).to(weight), None)
    )
    norm = _NORM_OF_RANK[weight.dim() - 2](len(weight), device=weight.device, dtype=weight.dtype)
    mean, variance = (mean - bias) / scale, variance / scale.square()
    with torch.no_grad():
        norm.running_mean.copy_(mean)  # type: ignore[union-attr]
        norm.running_var.copy_(variance)  # type: ignore[union-attr]
        # from the statistics as they were rounded, so that scale and shift undo exactly what the norm does
        norm.weight.copy_(scale * (norm.running_var.double() + norm.eps).sqrt())  # type: ignore[union-attr]
        norm.bias.copy_(scale * norm.running_mean.double() + bias)  # type: ignore[union-attr]
    layer: nn.Module = ReservedNorm(norm, reserved) if bool(reserved.any()) else norm
    name = edit.fresh_name(graph_module, f"{node.target}_norm")
    edit.set_module(graph_module, name, layer.eval())
    with node.graph.inserting_after(node):
        after = node.graph.call_module(name, (node,))
    after.meta.update(path=node.meta.get("path", ""), shape=shape_of(node))
    node.replace_all_uses_with(after, delete_user_cb=lambda user: user is not after)


class Frozen(nn.Module):
    """A parametrization that holds part of a weight at its value, whatever the optimizer, its momentum and weight decay do.

    Args:
        value: the weight.
        mask: same shape; where it is true the value stays.
    """

    value: Tensor
    mask: Tensor

    def __init__(self, value: Tensor, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("value", value.detach().clone())
        self.register_buffer("mask", mask.clone())

    def forward(self, weight: Tensor) -> Tensor:
        """The weight with its frozen part restored; no gradient reaches that part."""
        return torch.where(self.mask, self.value, weight)


def freeze_reserved(graph_module: fx.GraphModule, *, columns: bool = False) -> int:
    """Keep the filters that fusion reserved exactly as they are while the network trains.

    Args:
        graph_module: changed in place; ``release_reserved`` makes its weights plain parameters again.
        columns: also hold the weights with which the next convolutions read the reserved channels.

    Returns:
        How many filters are held.
    """
    held = 0
    masks: dict[str, Tensor] = {}
    for node in graph_module.graph.nodes:
        conv: Any = edit.module_of(graph_module, node)
        if not isinstance(conv, CONVS):
            continue
        reserved = reserved_filters(conv)
        if not bool(reserved.any()):
            continue
        held += int(reserved.sum())
        _mark(masks, str(node.target), conv, reserved.view(-1, *[1] * (conv.weight.dim() - 1)))
        reader = _reader(graph_module, node) if columns else None
        if reader is not None:
            _mark(
                masks,
                str(reader.target),
                edit.module_of(graph_module, reader),
                reserved.view(1, -1, *[1] * (conv.weight.dim() - 2)),
            )
    for name, mask in masks.items():
        layer: Any = graph_module.get_submodule(name)
        parametrize.register_parametrization(layer, "weight", Frozen(layer.weight, mask))
    return held


def release_reserved(graph_module: fx.GraphModule) -> None:
    """Undo ``freeze_reserved``: weights are plain parameters with the values that they had."""
    for module in graph_module.modules():
        if parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)


def _mark(masks: dict[str, Tensor], name: str, conv: Any, mask: Tensor) -> None:
    wide = mask.expand(conv.weight.shape).clone()
    masks[name] = wide | masks[name] if name in masks else wide


def _reader(graph_module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """The ungrouped convolution that reads a node over norms and activations, if it alone does."""
    user = only_user(node)
    while user is not None and isinstance(edit.module_of(graph_module, user), _ELEMENTWISE):
        user = only_user(user)
    module = edit.module_of(graph_module, user)
    return user if isinstance(module, CONVS) and module.groups == 1 else None
