"""What closing one thing alone does: the same figures as whole forward passes give, without these."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fupruner.graph import shapes
from fupruner.graph.trace import trace
from fupruner.pruning.gates import Gate, GatedNetwork, insert_gates
from fupruner.pruning.one_by_one import Switch, differences
from unit.pruning import nets
from unit.pruning.test_importance import Noise


def thrower(gate: Gate) -> Callable[[bool, float], None]:
    return lambda closed, softness: gate.set(np.array([closed]), softness)


def switches_of(network: GatedNetwork) -> dict[str, Switch]:
    return {b.name: Switch(gate, thrower(gate), b.name in network.closed_branches) for b, gate in network.branches}


def plain(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1], reduction="none")


def louder(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return F.cross_entropy(model(2 * batch[0]), batch[1], reduction="none")


@torch.no_grad()
def by_whole_passes(network: GatedNetwork, batches: list[Any], losses: Any) -> dict[str, float]:
    def mean() -> float:
        return float(torch.cat([losses(network.graph_module, batch) for batch in batches]).mean())

    found = {}
    for name, switch in switches_of(network).items():
        switch.throw(True, 0.0)
        without = mean()
        switch.throw(False, 0.0)
        found[name] = without - mean()
        switch.throw(switch.closed, network.softness)
    return found


@pytest.mark.parametrize("losses", [plain, louder], ids=["its-input", "another-input"])
@pytest.mark.parametrize("closing", [False, True], ids=["open", "one-is-closing"])
def test_same_as_by_whole_passes(losses: Any, closing: bool) -> None:
    network, task = nets.gated(nets.Residual(), 3, 8, 8), Noise()
    network.graph_module.eval()
    if closing:
        network.set(network.is_open, frozenset({"blocks.1"}), softness=0.5)
    batches = [(task.x[:20], task.y[:20]), (task.x[20:], task.y[20:])]
    before = [gate.value.clone() for _, gate in network.branches]
    found = differences(network.graph_module, task, batches, switches_of(network), losses, network.softness)  # type: ignore[arg-type]
    assert found == by_whole_passes(network, batches, losses)
    assert all(torch.equal(gate.value, value) for (_, gate), value in zip(network.branches, before, strict=True))
    assert any(found.values())


def test_what_lies_before_a_gate_is_computed_once_for_all() -> None:
    network, task, calls = nets.gated(nets.Residual(), 3, 8, 8), Noise(), 0
    network.graph_module.eval()

    def count(*_: Any) -> None:
        nonlocal calls
        calls += 1

    convolution = next(module for module in network.graph_module.modules() if isinstance(module, nn.Conv2d))
    convolution.register_forward_hook(count)
    assert len(network.branches) > 1
    differences(network.graph_module, task, [(task.x, task.y)], switches_of(network), plain, 0.0)  # type: ignore[arg-type]
    assert calls == 2  # in the pass for the loss as it is, and in the one that forks


def test_network_of_two_inputs_is_computed_whole() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            x = x + self.first(F.relu(x))
            return (x + self.second(F.relu(y))).mean((2, 3))

    task = Noise()
    graph = trace(nets.randomise(Two()), (task.x[:2], task.x[:2]))
    shapes.propagate(graph, (task.x[:2], task.x[:2]))
    network = insert_gates(graph)

    def losses(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(model(batch[0], batch[0].flip(0)), batch[1] % 3, reduction="none")

    network.graph_module.eval()
    batches = [(task.x, task.y)]
    found = differences(network.graph_module, task, batches, switches_of(network), losses, 0.0)  # type: ignore[arg-type]
    assert found
    assert found == by_whole_passes(network, batches, losses)
