from __future__ import annotations

import torch
from torch import nn

from fupruner.graph import edit
from fupruner.graph.same import same_computation
from fupruner.graph.trace import trace

X = torch.randn(2, 4, 6, 6)


def test_dropping_idle_layers_changes_nothing() -> None:
    graph = trace(nn.Sequential(nn.Conv2d(4, 4, 1), nn.Dropout(), nn.ReLU(), nn.Conv2d(4, 4, 3)), X)
    other = edit.twin(graph)
    dropout = next(node for node in other.graph.nodes if isinstance(edit.module_of(other, node), nn.Dropout))
    edit.bypass(dropout, dropout.all_input_nodes[0])
    assert same_computation(graph, other)


def test_layers_that_hang_below_others_do_not_hide_it() -> None:
    inner, outer = nn.Linear(6, 6), nn.Linear(6, 6)
    model = nn.Sequential(outer, nn.Dropout(), inner)
    graph = trace(model, X)
    edit.set_module(graph, "0.below", inner)  # as attention's projection hangs below the layer of its inputs
    list(graph.graph.nodes)[3].target = "0.below"
    edit.clean(graph)
    other = edit.twin(graph)
    assert edit.layer_at(other, "0") is not edit.layer_at(graph, "0"), "replacing what hangs below must not change both"
    edit.set_module(other, "0.below", nn.Identity())
    assert edit.layer_at(graph, "0.below") is inner
    edit.set_module(other, "0.below", inner)
    assert same_computation(graph, other)


def test_another_module_or_another_order_is_told() -> None:
    model = nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 3))
    graph = trace(model, X)
    replaced, skipped = edit.twin(graph), edit.twin(graph)
    last = next(node for node in reversed(replaced.graph.nodes) if node.op == "call_module")
    edit.replace_module(replaced, last, nn.Conv2d(4, 4, 3))
    assert not same_computation(graph, replaced)
    relu = next(node for node in skipped.graph.nodes if isinstance(edit.module_of(skipped, node), nn.ReLU))
    edit.bypass(relu, relu.all_input_nodes[0])
    assert not same_computation(graph, skipped)


def test_a_different_constant_is_told() -> None:
    class Shift(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.roll(1, 2) + 1

    graph = trace(Shift(), X)
    other = edit.twin(graph)
    roll = next(node for node in other.graph.nodes if node.op == "call_function")
    roll.args = (roll.args[0], [2], roll.args[2])
    assert not same_computation(graph, other)
