"""Running a graph one node at a time on several batches, so that layers can be changed on the way."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from fupruner.graph import edit


class Replay:
    """Executes a graph node by node on several batches, and forgets tensors that nobody will read any more.

    Args:
        graph_module: in eval mode.
        inputs: the batches.
        kept: nodes that somebody outside reads too, who says so with ``drop``.
    """

    def __init__(self, graph_module: fx.GraphModule, inputs: Sequence[Tensor], kept: Iterable[fx.Node] = ()) -> None:
        self.graph_module, self.inputs = graph_module, inputs
        self.values: list[dict[fx.Node, Any]] = [{} for _ in inputs]
        self.reads = {node: len(node.users) for node in graph_module.graph.nodes}
        for node in kept:
            self.reads[node] += 1

    def fork(self) -> Replay:
        """Another one that goes on from here by itself."""
        other = copy.copy(self)
        other.values, other.reads = [dict(values) for values in self.values], dict(self.reads)
        return other

    def __call__(self, node: fx.Node) -> None:
        """Execute a node."""
        for values, x in zip(self.values, self.inputs, strict=True):
            values[node] = self._value(node, values, x)

    def done(self, node: fx.Node) -> None:
        """Take note that a node has been executed for good."""
        for source in node.all_input_nodes:
            self.drop(source)

    def drop(self, node: fx.Node) -> None:
        """Take note that one reader of a node is done with it."""
        self.reads[node] -= 1
        if self.reads[node] <= 0:
            for values in self.values:
                values.pop(node, None)

    def of(self, node: fx.Node) -> list[Any]:
        """What a node evaluated to, per batch."""
        return [values[node] for values in self.values]

    def has(self, node: object) -> bool:
        """Whether a node has been executed and is still remembered."""
        return node in self.values[0]

    def _value(self, node: fx.Node, values: dict[fx.Node, Any], x: Tensor) -> Any:
        if node.op == "placeholder":
            return x
        if node.op == "get_attr":
            return edit.get_attribute(self.graph_module, str(node.target))
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda n: values[n])
        call: Any = self.graph_module.get_submodule(str(node.target)) if node.op == "call_module" else node.target
        return call(*args, **kwargs)


@torch.no_grad()
def peak_bytes(graph_module: fx.GraphModule, x: Tensor) -> int:
    """Largest number of bytes of tensors that are alive at once while a graph runs node by node on one input."""
    replay, largest = Replay(graph_module, [x]), 0
    for node in graph_module.graph.nodes:
        if node.op != "output":
            replay(node)
            alive = [t for n, t in replay.values[0].items() if isinstance(t, Tensor) and n.op != "get_attr"]
            largest = max(largest, sum(t.numel() * t.element_size() for t in alive))
            replay.done(node)
    return largest
