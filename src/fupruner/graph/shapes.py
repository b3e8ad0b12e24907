"""Shapes on the nodes: ``meta["shape"]`` is the shape of a node's output for the example inputs, batch included."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx
from torch._subclasses.fake_tensor import FakeTensorMode


class _Shapes(fx.Interpreter):
    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if isinstance(result, Tensor):
            n.meta["shape"] = tuple(int(d) for d in result.shape)
        else:
            n.meta.pop("shape", None)
        return result


def propagate(graph_module: fx.GraphModule, inputs: tuple[Tensor, ...]) -> None:
    """Write the shape of every tensor to its node, without computing any value.

    Args:
        graph_module: a canonical graph; only node metadata changes.
        inputs: tensors with the shapes to propagate; values do not matter.
    """
    with FakeTensorMode(allow_non_fake_inputs=True) as mode, torch.no_grad():
        fake = tuple(mode.from_tensor(x) for x in inputs)
        _Shapes(graph_module).run(*fake)


def shape_of(node: fx.Node) -> tuple[int, ...]:
    """Shape of a node's output, batch included; empty when it is not a tensor or was not propagated."""
    return tuple(node.meta.get("shape", ()))
