"""What a pruned network can still learn from the original: layers that are left, and the channels that they have left."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from fupruner.graph import shapes
from fupruner.graph.trace import trace
from fupruner.pruning.gates import insert_gates
from fupruner.pruning.hints import folded_teacher, hints
from fupruner.pruning.slim import slim
from fupruner.training.features import FeatureLoss, recorded, stage_ends
from helpers import FLOAT32, assert_same_function, randomize


def two_stages() -> nn.Sequential:
    torch.manual_seed(0)
    first = (nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
    second = (nn.Conv2d(8, 12, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(192, 4))
    return nn.Sequential(*first, *second).eval()


def test_the_gated_network_has_all_channels() -> None:
    inputs = (torch.randn(2, 3, 8, 8),)
    graph = trace(two_stages(), inputs)
    shapes.propagate(graph, inputs)
    assert hints(graph, insert_gates(graph)) == {"1": None, "4": None}


def test_maps_of_the_slimmed_network_are_the_teachers_where_nothing_changed_before() -> None:
    inputs = (torch.randn(2, 3, 8, 8),)
    graph = trace(two_stages(), inputs)
    shapes.propagate(graph, inputs)
    network = insert_gates(graph)
    group = next(g for g in network.groups.prunable if g.name == "0")
    is_open = np.ones(network.groups.labelling.units, dtype=bool)
    is_open[group.units[[1, 4]]] = False
    network.set(is_open, frozenset())
    small = slim(network, inputs)
    found = hints(graph, network, small)
    assert found["1"].tolist() == [0, 2, 3, 5, 6, 7]
    assert found["4"] is None
    with recorded(graph, found) as taught, recorded(small, found) as own, torch.no_grad():
        graph(*inputs), small(*inputs)
        assert FeatureLoss(own, taught, {"1": found["1"]})().item() < 1e-12
        assert FeatureLoss(own, taught, {"4": None})().item() > 0


def with_norms(*, last: bool) -> nn.Sequential:
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 12, 3, padding=1),
        nn.BatchNorm2d(12),
    ]
    return randomize(nn.Sequential(*layers, *([] if last else [nn.ReLU()]), nn.Flatten(), nn.Linear(192, 4)))  # type: ignore[return-value]


def test_the_teacher_computes_the_same_maps_without_norms() -> None:
    inputs = (torch.randn(2, 3, 8, 8),)
    graph = trace(with_norms(last=False), inputs)
    shapes.propagate(graph, inputs)
    teacher = folded_teacher(graph, inputs)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in teacher.modules())
    assert_same_function(graph, teacher, *inputs, tolerance=FLOAT32)
    names = stage_ends(graph)
    assert names == ("2", "6")
    with recorded(graph, names) as expected, recorded(teacher, names) as found, torch.no_grad():
        graph(*inputs), teacher(*inputs)
        assert all(torch.allclose(expected[name], found[name], atol=1e-5) for name in names)


def test_a_norm_that_ends_a_stage_is_not_folded_away() -> None:
    inputs = (torch.randn(2, 3, 8, 8),)
    graph = trace(with_norms(last=True), inputs)
    shapes.propagate(graph, inputs)
    assert folded_teacher(graph, inputs) is graph
