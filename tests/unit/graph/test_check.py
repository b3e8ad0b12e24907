import copy

import pytest
import torch
from torch import Tensor, nn

from fupruner.graph import check, edit
from fupruner.graph.trace import trace


class Scaled(nn.Module):
    """A layer, a tensor of the network's own, and a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.scale = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Parameter(torch.full((1,), 0.1))

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)) * self.scale


X = torch.randn(2, 3, 8, 8)


def test_graph_is_converted_layer_by_layer_to_what_a_copy_gives() -> None:
    graph = trace(Scaled().eval(), X)
    converted = edit.clone(graph, torch.float64)
    assert check.largest_error(converted, graph, [(X,)], torch.float64) == 0
    assert {t.dtype for t in graph.parameters()} == {torch.float32}


def test_large_graphs_are_not_copied_though_a_holder_of_layers_is_in_training_mode(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    graph = trace(Scaled().eval(), X)
    graph.holder = nn.Module()
    monkeypatch.setattr(copy, "deepcopy", lambda *_: pytest.fail("a network was copied"))
    assert check.largest_error(graph, graph, [(X,)], torch.float64) == 0


def test_difference_below_single_precision_is_found() -> None:
    graph = trace(Scaled().eval(), X)
    moved = edit.clone(graph, torch.float64)
    moved.scale.data += 1e-9  # lost in float32
    error = check.largest_error(graph, moved, [(X,)], torch.float64)
    assert 5e-9 < error < 2e-8


def test_networks_are_compared_in_eval_mode_and_left_in_training_mode() -> None:
    model = Scaled().train()
    before = model.norm.running_mean.clone()
    assert check.largest_error(model, trace(model, X).train(), [(X,)], torch.float64) == 0
    assert model.training
    assert torch.equal(model.norm.running_mean, before)


def test_the_worst_of_several_inputs_counts() -> None:
    left, right = nn.Identity(), nn.ReLU()
    assert check.largest_error(left, right, [(X.abs(),), (-X.abs(),)], torch.float64) == 1
