"""What closing one thing alone does to the loss, for many things, without computing again what lies before each.

Going through the network once per batch, the rest of it is computed anew at every gate with that gate closed; so a network of
many blocks costs half of as many forward passes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from fupruner.graph import edit
from fupruner.progress import Advance, part
from fupruner.pruning.replay import Replay
from fupruner.training.task import CalibrationData

Losses = Callable[[nn.Module, Any], Tensor]
"""Loss of each sample of a batch, (N,); calls the module once."""


@dataclass(frozen=True)
class Switch:
    """Something that can be closed alone.

    Attributes:
        gate: module of the graph that closes it.
        throw: closes (True) it, down to a softness, or opens it.
        closed: whether it is closed now.
    """

    gate: nn.Module
    throw: Callable[[bool, float], None]
    closed: bool = False


@torch.no_grad()
def differences(
    graph_module: fx.GraphModule,
    task: CalibrationData,
    batches: Sequence[Any],
    switches: Mapping[str, Switch],
    losses: Losses,
    softness: float,
) -> dict[str, float]:
    """Loss difference in nats per sample that each switch alone makes; all are left as they were.

    Args:
        graph_module: in eval mode; a switch whose gate is called in several places is thrown for all of them.
        task: says what of a batch goes into the network.
        batches: to take the loss of.
        switches: by name.
        losses: see ``Losses``.
        softness: of what is closed now.
    """
    first = {switch.gate: _first_call(graph_module, switch.gate) for switch in switches.values()}
    opened, closed = {name: list[Tensor]() for name in switches}, {name: list[Tensor]() for name in switches}
    with part("close each in turn", len(batches) * len(switches)) as advance:
        for batch in batches:
            as_it_is = losses(graph_module, batch)
            for name, rest in _rests(graph_module, task.inputs(batch), switches, first, advance):
                switch = switches[name]
                switch.throw(True, 0.0)
                closed[name].append(losses(rest, batch))
                switch.throw(False, 0.0)
                opened[name].append(losses(rest, batch) if switch.closed else as_it_is)
                switch.throw(switch.closed, softness)
    return {name: float(torch.cat(closed[name]).mean()) - float(torch.cat(opened[name]).mean()) for name in switches}


def _rests(
    graph_module: fx.GraphModule,
    x: Tensor,
    switches: Mapping[str, Switch],
    first: Mapping[nn.Module, fx.Node],
    advance: Advance,
) -> Iterable[tuple[str, nn.Module]]:
    """Every switch with the network from its gate on, in the order of the graph."""
    nodes = list(graph_module.graph.nodes)
    if sum(node.op == "placeholder" for node in nodes) != 1:
        for name in switches:
            yield name, graph_module
            advance(1)
        return
    replay = Replay(graph_module, [x])
    left = set(switches)
    for place, node in enumerate(nodes):
        for name in [name for name in switches if first[switches[name].gate] is node]:
            yield name, _Rest(replay, nodes[place:])
            advance(1)
            left.discard(name)
        if not left:
            return
        replay(node)
        replay.done(node)


def _first_call(graph_module: fx.GraphModule, gate: nn.Module) -> fx.Node:
    nodes: Iterable[fx.Node] = graph_module.graph.nodes
    return next(node for node in nodes if edit.module_of(graph_module, node) is gate)


class _Rest(nn.Module):
    """A network from a node on: given what the nodes before it were computed from, it goes on from there."""

    def __init__(self, replay: Replay, nodes: Sequence[fx.Node]) -> None:
        super().__init__()
        self.graph_module, self.replay, self.nodes = replay.graph_module, replay, nodes
        self.training = False

    def forward(self, x: Tensor) -> Any:
        """What the network gives for its input (N, ...); computed from the beginning where that is another one."""
        if not torch.equal(x, self.replay.inputs[0]):
            return self.graph_module(x)
        replay = self.replay.fork()
        for node in self.nodes[:-1]:
            replay(node)
            replay.done(node)
        return fx.node.map_arg(self.nodes[-1].args[0], lambda node: replay.of(node)[0])
