"""Shapes on the nodes: ``meta["shape"]`` is the shape of a node's output for the example inputs, batch included."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call

from fupruner.graph import edit
from fupruner.graph.channelwise import ChannelClip, ReservedNorm

_KEEPS_SHAPE = (
    nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.LayerNorm, nn.GroupNorm, nn.Identity, nn.Dropout, nn.Dropout2d, nn.ReLU, nn.ReLU6,
    nn.SiLU, nn.Mish, nn.GELU, nn.Hardswish, nn.Hardsigmoid, nn.Sigmoid, nn.Tanh, nn.ELU, nn.LeakyReLU, nn.PReLU, nn.Hardtanh, nn.Softplus,
    ChannelClip, ReservedNorm,
)  # fmt: skip
_CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


class _Shapes(fx.Interpreter):
    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        _write(n, result)
        return result


def propagate(graph_module: fx.GraphModule, inputs: tuple[Tensor, ...]) -> None:
    """Write the shape of every tensor, and the value of every number, to its node without computing any tensor.

    Args:
        graph_module: a canonical graph; only node metadata changes.
        inputs: tensors with the shapes to propagate; values do not matter.
    """
    placeholders = [node for node in graph_module.graph.nodes if node.op == "placeholder"]
    known: dict[fx.Node, Any] = {node: x.to("meta") for node, x in zip(placeholders, inputs, strict=False)}
    try:
        propagate_nodes(graph_module, graph_module.graph.nodes, known)
    except (
        Exception
    ):  # an operator without a shape function: fake tensors know more operators, at a hundred times the price
        with FakeTensorMode(allow_non_fake_inputs=True) as mode, torch.no_grad():
            _Shapes(graph_module).run(*(mode.from_tensor(x) for x in inputs))


@torch.no_grad()
def propagate_nodes(graph_module: fx.GraphModule, nodes: Iterable[fx.Node], known: dict[fx.Node, Any]) -> None:
    """Write the shapes of some nodes.

    Args:
        graph_module: the graph that the nodes belong to.
        nodes: in graph order.
        known: what the nodes that are not listed evaluate to, tensors on the meta device; the rest is added.
    """

    def load(argument: Any) -> Any:
        return fx.node.map_arg(argument, lambda n: known[n])

    for node in nodes:
        if node.op == "output":
            continue
        if node not in known:
            known[node] = _run(graph_module, node, load)
        _write(node, known[node])


def shape_of(node: fx.Node) -> tuple[int, ...]:
    """Shape of a node's output, batch included; empty when it is not a tensor or was not propagated."""
    return tuple(node.meta.get("shape", ()))


def _write(node: fx.Node, value: Any) -> None:
    node.meta.pop("shape", None)
    node.meta.pop("value", None)
    if isinstance(value, Tensor):
        node.meta["shape"] = tuple(int(d) for d in value.shape)
    elif isinstance(value, bool | int | float):
        node.meta["value"] = value


def _run(graph_module: fx.GraphModule, node: fx.Node, load: Any) -> Any:
    if node.op == "get_attr":
        value = edit.get_attribute(graph_module, str(node.target))
        return value.to("meta") if isinstance(value, Tensor) else value
    if node.op == "call_function":
        return node.target(*load(node.args), **load(node.kwargs))  # type: ignore[operator]
    if node.op != "call_module":
        raise NotImplementedError(node.op)
    module = edit.layer_at(graph_module, str(node.target))
    args = load(node.args)
    shape = known_shape(module, tuple(args[0].shape))
    if shape is not None:
        return torch.empty(shape, dtype=args[0].dtype, device="meta")
    tensors = {name: t.to("meta") for name, t in [*module.named_parameters(), *module.named_buffers()]}
    return functional_call(module, tensors, args, load(node.kwargs))


def known_shape(module: Any, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """Output shape of the layers that make up most of a network; None for the rest and for inputs that do not fit."""
    if type(module) in _KEEPS_SHAPE:
        return shape
    if type(module) is nn.Linear:
        return (*shape[:-1], module.out_features) if shape[-1] == module.in_features else None
    if type(module) not in _CONVS or len(shape) != len(module.kernel_size) + 2 or shape[1] != module.in_channels:
        return None
    if isinstance(module.padding, str):
        return None
    windows = zip(shape[2:], module.kernel_size, module.stride, module.padding, module.dilation, strict=True)
    sizes = tuple((size + 2 * p - d * (k - 1) - 1) // s + 1 for size, k, s, p, d in windows)
    return (shape[0], module.out_channels, *sizes) if min(sizes) > 0 else None
