"""Double precision for parts of a network: layers are converted where and when they are needed, never all of them at once.

Proofs are in float64. A double of every weight beforehand would take twice the memory of the network and, for large ones, longer
than the proofs themselves.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from fupruner.graph import edit
from fupruner.graph.double import FastDepthwise

Inputs = tuple[Tensor, ...]


class Cast:
    """Tensors in another precision. Each is converted once, so that what was shared stays shared.

    Args:
        dtype: of floating-point tensors; all others stay as they are.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self._known: dict[int, tuple[Tensor, Tensor]] = {}  # with the original, whose id must not be given away

    def __call__(self, tensor: Tensor) -> Tensor:
        """The tensor in the other precision; itself where it has that already."""
        if not self.changes(tensor):
            return tensor
        if id(tensor) not in self._known:
            converted = tensor.detach().to(self.dtype)
            if isinstance(tensor, nn.Parameter):
                converted = nn.Parameter(converted, tensor.requires_grad)
            self._known[id(tensor)] = (tensor, converted)
        return self._known[id(tensor)][1]

    def converted(self) -> list[Tensor]:
        """Everything that was converted, as it is now."""
        return [double for _, double in self._known.values()]

    def changes(self, tensor: Tensor) -> bool:
        """Whether a tensor has another precision."""
        return tensor.is_floating_point() and tensor.dtype != self.dtype


class _Scratch:
    """Layers in double precision, one at a time, all in the same memory: fresh memory costs more time than computing with it."""

    def __init__(self) -> None:
        self._memory = torch.empty(0, dtype=torch.float64)

    def in_double(self, layer: nn.Module) -> nn.Module:
        """A layer in double precision: itself, or a copy that lasts until the next one is asked for."""
        wanted = {id(t): t for t in edit.tensors_of(layer) if t.is_floating_point() and t.dtype != torch.float64}
        if not wanted:
            return layer
        sizes = [tensor.numel() for tensor in wanted.values()]
        if self._memory.numel() < sum(sizes):
            self._memory = torch.empty(sum(sizes), dtype=torch.float64)
        parts = self._memory[: sum(sizes)].split(sizes)
        doubles = {
            key: part.view(t.shape).copy_(t.detach()) for (key, t), part in zip(wanted.items(), parts, strict=True)
        }

        def changed(tensor: Tensor) -> Tensor:
            double = doubles.get(id(tensor), tensor)
            return nn.Parameter(double, False) if double is not tensor and isinstance(tensor, nn.Parameter) else double

        return edit.mapped(layer, changed)


class DoubleWhereNeeded:
    """Converts the layers that a rewrite touches, together with those that share their weights.

    Args:
        graph_module: the network as it was given; it has to live as long as this object.

    Attributes:
        fresh: tensors that the last conversion made: nothing else holds their memory.
    """

    def __init__(self, graph_module: fx.GraphModule) -> None:
        self.fresh: list[Tensor] = []
        self._owners: dict[int, set[str]] = defaultdict(set)
        for node in graph_module.graph.nodes:
            if node.op in ("call_module", "get_attr"):
                for tensor in _tensors_at(graph_module, str(node.target)):
                    self._owners[id(tensor)].add(str(node.target))

    def convert(self, graph_module: fx.GraphModule, nodes: Iterable[fx.Node]) -> bool:
        """Convert what some nodes call or fetch; says whether there was anything to convert."""
        cast = Cast(torch.float64)
        self.fresh = []
        names = self._with_sharers(graph_module, {str(n.target) for n in nodes if n.op in ("call_module", "get_attr")})
        found = {name: edit.get_attribute(graph_module, name) for name in names}
        changed = False
        for name, layer in found.items():
            if isinstance(layer, nn.Module) and any(map(cast.changes, edit.tensors_of(layer))):
                edit.set_module(graph_module, name, edit.mapped(layer, cast))
                changed = True
        for name, value in found.items():  # a layer that was copied above took its own tensors along
            if isinstance(value, Tensor) and cast.changes(edit.get_attribute(graph_module, name)):
                edit.set_tensor(graph_module, name, cast(value))
                changed = True
        self.fresh = cast.converted()
        return changed

    def _with_sharers(self, graph_module: fx.GraphModule, names: set[str]) -> set[str]:
        found: set[str] = set()
        waiting = list(names)
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                for tensor in _tensors_at(graph_module, name):
                    waiting.extend(self._owners.get(id(tensor), ()))
        return found


def _tensors_at(graph_module: fx.GraphModule, name: str) -> list[Tensor]:
    value = edit.get_attribute(graph_module, name)
    if isinstance(value, nn.Module):
        return edit.tensors_of(value)
    return [value] if isinstance(value, Tensor) else []


def round_to(work: fx.GraphModule, given: fx.GraphModule, dtype: torch.dtype) -> fx.GraphModule:
    """Bring a rewritten network back to one precision, sharing nothing with the network that it was made from.

    Args:
        work: made from ``given``, with which it shares the layers that were not rewritten; it is used up: memory of its doubles is
            freed one by one.
        given: left as it is.
        dtype: of all floating-point tensors of the result.
    """
    shared_layers = {id(module) for module in given.modules()}
    shared = {id(tensor) for tensor in (*given.parameters(), *given.buffers())}
    tensors: dict[int, tuple[Tensor, Tensor]] = {}
    layers: dict[int, nn.Module] = {}

    def settle_tensor(tensor: Tensor) -> Tensor:
        if id(tensor) not in tensors:
            tensors[id(tensor)] = (tensor, _rounded(tensor, dtype, is_shared=id(tensor) in shared))
        return tensors[id(tensor)][1]

    def settle(module: nn.Module) -> nn.Module:
        if id(module) not in layers:
            own = edit.shallow(module) if id(module) in shared_layers else module
            layers[id(module)] = own
            own._parameters = {n: None if t is None else settle_tensor(t) for n, t in own._parameters.items()}  # type: ignore[misc]
            own._buffers = {n: None if t is None else settle_tensor(t) for n, t in own._buffers.items()}
            own._modules = {n: None if m is None else settle(m) for n, m in own._modules.items()}
        return layers[id(module)]

    settle(work)
    return work


def _rounded(tensor: Tensor, dtype: torch.dtype, *, is_shared: bool) -> Tensor:
    wanted = dtype if tensor.is_floating_point() else tensor.dtype
    value = tensor.detach().to(wanted, copy=is_shared)
    if not isinstance(tensor, nn.Parameter):
        return value
    parameter = nn.Parameter(value, tensor.requires_grad)
    if not is_shared and wanted != tensor.dtype:
        tensor.data = tensor.data.new_empty(0)
    return parameter


@torch.no_grad()
def run_double(graph_module: fx.GraphModule, inputs: Sequence[Inputs]) -> list[Any]:
    """Run a graph in double precision on several inputs, layer by layer.

    Returns:
        One output per input, or in its place the error with which the network refused it.
    """
    nodes = list(graph_module.graph.nodes)
    last_use = {source: node for node in nodes for source in node.all_input_nodes}
    done_with: dict[fx.Node, list[fx.Node]] = defaultdict(list)
    for source, node in last_use.items():
        done_with[node].append(source)
    runs = [_Run(x) for x in inputs]
    scratch = _Scratch()
    with FastDepthwise():
        for node in nodes:
            called = _called(graph_module, node, scratch)
            for run in runs:
                run.step(node, called, done_with[node])
    return [run.result for run in runs]


def _called(graph_module: fx.GraphModule, node: fx.Node, scratch: _Scratch) -> Any:
    if node.op == "call_module":
        return scratch.in_double(edit.layer_at(graph_module, str(node.target)))
    if node.op == "get_attr":
        value = edit.get_attribute(graph_module, str(node.target))
        return in_double(value)
    return node.target


class _Run:
    """One input on its way through a graph."""

    def __init__(self, inputs: Inputs) -> None:
        self.rest = list(in_double(inputs))
        self.known: dict[fx.Node, Any] = {}
        self.result: Any = None
        self.failed = False

    def step(self, node: fx.Node, called: Any, done_with: Iterable[fx.Node]) -> None:
        """Compute one node, unless an earlier one failed, and forget what is not read again."""
        if self.failed:
            return
        try:
            self._compute(node, called)
        except (RuntimeError, ValueError, AssertionError, IndexError) as failure:
            self.result, self.failed = failure, True
            self.known.clear()
            return
        for source in done_with:
            del self.known[source]

    def _compute(self, node: fx.Node, called: Any) -> None:
        args: Any = fx.node.map_arg(node.args, lambda n: self.known[n])
        kwargs: Any = fx.node.map_arg(node.kwargs, lambda n: self.known[n])
        if node.op == "output":
            self.result = args[0]
        elif node.op == "placeholder":
            self.known[node] = self.rest.pop(0) if self.rest else node.args[0]
        elif node.op == "get_attr":
            self.known[node] = called
        else:
            self.known[node] = in_double(called(*args, **kwargs))


def in_double(value: Any) -> Any:
    """Tensors, or what a layer gave, in double precision: operators that make tensors of a fixed precision (position codes) do not ask."""
    if isinstance(value, Tensor):
        return value.double() if value.is_floating_point() else value
    return type(value)(map(in_double, value)) if type(value) in (tuple, list) else value
