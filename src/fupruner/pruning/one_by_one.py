"""What closing one thing alone does to the loss, for many things, without computing again what lies before each.

A batch goes through the network once, and at every gate the rest of the network is computed anew with that gate closed: half the
work of a whole pass for each, where gates are spread evenly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
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
    opened, closed = {name: list[Tensor]() for name in switches}, {name: list[Tensor]() for name in switches}
    with part("close each in turn", len(batches) * len(switches)) as advance:
        for batch in batches:
            as_it_is = losses(graph_module, batch)
            for name, rest in _rests(graph_module, task.inputs(batch), switches, advance):
                switch = switches[name]
                switch.throw(True, 0.0)
                closed[name].append(losses(rest, batch))
                switch.throw(False, 0.0)
                opened[name].append(losses(rest, batch) if switch.closed else as_it_is)
                switch.throw(switch.closed, softness)
    return {name: float(torch.cat(closed[name]).mean()) - float(torch.cat(opened[name]).mean()) for name in switches}


def _rests(
    graph_module: fx.GraphModule, x: Tensor, switches: Mapping[str, Switch], advance: Advance
) -> Iterator[tuple[str, nn.Module]]:
    """Every switch with the network from its gate on, in the order of the graph."""
    nodes = list(graph_module.graph.nodes)
    if sum(node.op == "placeholder" for node in nodes) != 1:
        for name in switches:
            yield name, graph_module
            advance(1)
        return
    waiting, replay = dict(switches), Replay(graph_module, [x])
    for place, node in enumerate(nodes):
        called = edit.module_of(graph_module, node)
        for name in [name for name, switch in waiting.items() if switch.gate is called]:
            yield name, _Rest(replay, nodes[place:])
            advance(1)
            del waiting[name]
        if not waiting:
            return
        replay(node)
        replay.done(node)


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
