"""Activations as moves: found where two layers merge exactly without them, priced as the merged layer, cut exactly."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fupruner.fusion.fuse import fuse_graph
from fupruner.graph import check, cost
from fupruner.pruning.activations import find_activations
from fupruner.pruning.gates import GatedNetwork, insert_gates
from fupruner.pruning.importance import Importance, fisher, l2
from fupruner.pruning.plan import Planner
from fupruner.pruning.pricing import Pricer
from fupruner.pruning.slim import slim
from unit.pruning import nets
from unit.pruning.test_importance import Noise
from unit.pruning.test_plan import ByWork


class Expanding(nn.Module):
    """A 3x3 convolution, an expansion and a projection of single pixels with a norm and an activation between, a residual MLP."""

    def __init__(self, activation: type[nn.Module] = nn.ReLU) -> None:
        super().__init__()
        self.stem, self.up, self.norm, self.act = (
            nets.conv(3, 16),
            nn.Conv2d(16, 64, 1),
            nn.BatchNorm2d(64),
            activation(),
        )
        self.down, self.wide, self.narrow, self.fc = (
            nn.Conv2d(64, 16, 1),
            nn.Linear(16, 64),
            nn.Linear(64, 16),
            nn.Linear(16, 5),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.down(self.act(self.norm(self.up(F.relu(self.stem(x)))))))
        x = x.mean((2, 3))
        return self.fc(F.relu(x + self.narrow(F.gelu(self.wide(x)))))


def network_of(model: nn.Module, *shape: int) -> GatedNetwork:
    return insert_gates(nets.graph_of(model, *shape), activations=True)


def exact(model: nn.Module, *shape: int) -> GatedNetwork:
    """In float64: fusion rounds weights to the precision of the network."""
    return insert_gates(nets.graph_of(model, *shape).double(), activations=True)


def found_in(model: nn.Module, *shape: int) -> list[tuple[str, str]]:
    return [(str(a.first.target), str(a.second.target)) for a in find_activations(nets.graph_of(model, *shape))]


def test_activations_are_gated_only_where_asked_for() -> None:
    assert not nets.gated(Expanding(), 3, 8, 8).activations
    assert len(network_of(Expanding(), 3, 8, 8).activations) == 3


def test_activations_between_layers_that_merge_are_found() -> None:
    # a 3x3 convolution in front of a 1x1 one merges too, for what its padding reads is the image
    assert found_in(Expanding(), 3, 8, 8) == [("stem", "up"), ("up", "down"), ("wide", "narrow")]


def two(first: nn.Module, second: nn.Module, between: nn.Module | None = None) -> nn.Module:
    return nn.Sequential(first, between or nn.ReLU(), second)


@pytest.mark.parametrize(
    ("model", "legal"),
    [
        (two(nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 1)), True),
        (two(nn.Conv2d(3, 8, 3, stride=2), nn.Conv2d(8, 4, 1, stride=2)), True),
        (two(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 3)), True),
        (two(nn.Conv2d(3, 8, 1, bias=False), nn.Conv2d(8, 4, 3, padding=1)), True),
        (two(nn.Conv2d(3, 8, 1, bias=False), nn.Conv2d(8, 4, 3, padding="valid")), True),
        (two(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 3, padding=1)), False),  # the bias would show at the border
        (two(nn.Sequential(nn.Conv2d(3, 8, 1, bias=False), nn.BatchNorm2d(8)), nn.Conv2d(8, 4, 3, padding=1)), False),
        (two(nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 3, padding=1)), False),
        (two(nn.Conv2d(3, 8, 1, stride=2), nn.Conv2d(8, 4, 3)), False),  # would read pixels that are skipped
        (two(nn.Conv2d(3, 8, 1, padding=1), nn.Conv2d(8, 4, 3)), False),
        (two(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1, padding=1)), False),
        (two(nn.Conv2d(3, 8, 3, padding=1, padding_mode="reflect"), nn.Conv2d(8, 4, 1)), True),  # padded on its own
        (two(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 3, padding=1, padding_mode="reflect")), False),
        (two(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1), nn.Sigmoid()), False),  # a closed channel would come back as 0.5
        (two(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1), nn.MaxPool2d(2)), False),
    ],
)
def test_only_exact_merges_are_proposed(model: nn.Module, legal: bool) -> None:
    network = exact(model, 3, 8, 8)
    assert bool(network.activations) == legal
    if legal:
        network.set(network.is_open, frozenset(a.name for a, _ in network.activations))
        x = (torch.randn(3, 3, 9, 8, dtype=torch.float64),)
        fused, _ = fuse_graph(slim(network, x), x, "aggressive")
        assert sum(isinstance(m, nn.Conv2d) for m in fused.modules()) == 1
        assert check.largest_error(network.graph_module, fused, [x], torch.float64) < check.FLOAT64_TOLERANCE


class TwoReaders(nn.Module):
    """An activation that two layers read, and a layer that two activations read."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d = (nn.Conv2d(i, 8, 1) for i in (3, 8, 8, 8))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.a(x))
        z = self.c(y)
        return self.b(y) + self.d(F.relu(z)) + F.gelu(z)


class CalledTwice(nn.Module):
    """A layer that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(F.relu(self.b(F.relu(self.a(x)))))


@pytest.mark.parametrize("model", [TwoReaders(), CalledTwice()])
def test_what_others_read_or_call_is_left_alone(model: nn.Module) -> None:
    assert found_in(model, 3, 8, 8) == []


@pytest.mark.parametrize("activation", [nn.ReLU, nn.SiLU, nn.Hardswish])
def test_slimmed_and_fused_equals_gated(activation: type[nn.Module]) -> None:
    network = exact(Expanding(activation), 3, 8, 8)
    rng = np.random.default_rng(0)
    is_open = np.ones(network.groups.labelling.units, dtype=bool)
    for group in network.groups.prunable:
        is_open[rng.permutation(group.units)[: len(group.units) // 2]] = False
    x = torch.randn(3, 3, 9, 8, dtype=torch.float64)
    network.set(is_open, frozenset())
    with_activations = network.graph_module(x)
    named = {str(a.first.target): a.name for a, _ in network.activations}
    network.set(is_open, frozenset({named["up"], named["wide"]}))
    assert not torch.allclose(with_activations, network.graph_module(x))
    small = slim(network, (x,))
    fused, log = fuse_graph(small, (x,), "basic")
    assert [fired.rule for fired in log.fired].count("conv-after-conv") == 2
    for other in (small, fused):
        assert check.largest_error(network.graph_module, other, [(x,)], torch.float64) < check.FLOAT64_TOLERANCE


def scores(network: GatedNetwork, activation: float, unit: float = 1.0) -> Importance:
    units = np.full(network.groups.labelling.units, unit)
    return Importance(
        "flat", units, {b.name: 1e3 for b, _ in network.branches}, {a.name: activation for a, _ in network.activations}
    )


def test_price_without_an_activation_is_that_of_the_merged_layer() -> None:
    network = network_of(Expanding(), 3, 8, 8)
    planner = Planner(network, Pricer(network, ByWork()), "made-up", 8)
    plan = planner.for_speedup(scores(network, activation=1e-6), 1.2)
    assert [move.kind for move in plan.record.moves] == ["activation"]
    network.set(plan.is_open, plan.closed_branches)
    fused, _ = fuse_graph(slim(network, (torch.randn(1, 3, 8, 8),)), (torch.randn(1, 3, 8, 8),), "basic")
    priced = sum(ByWork().price([layer.shape for layer in cost.layer_shapes(fused)]))
    assert plan.record.predicted_ms == pytest.approx(priced)
    assert plan.record.widths_after["up"] == 0


def test_filters_branches_and_activations_compete_in_one_plan() -> None:
    network = network_of(Expanding(), 3, 8, 8)
    planner = Planner(network, Pricer(network, ByWork()), "made-up", 8)
    dear = planner.for_speedup(scores(network, activation=1e6), 1.3).record
    assert {move.kind for move in dear.moves} == {"channels"}
    importance = scores(network, activation=1e-3, unit=1e-3)
    fastest = planner.fastest(importance).record
    assert {"channels", "activation"} <= {move.kind for move in fastest.moves}
    plan = planner.for_speedup(importance, 0.9 * fastest.baseline_ms / fastest.predicted_ms)
    network.set(plan.is_open, plan.closed_branches)
    fused, _ = fuse_graph(slim(network, (torch.randn(1, 3, 8, 8),)), (torch.randn(1, 3, 8, 8),), "basic")
    priced = sum(ByWork().price([layer.shape for layer in cost.layer_shapes(fused)]))
    assert plan.record.predicted_ms == pytest.approx(priced)


def test_neighbours_do_not_both_close() -> None:
    network = network_of(Expanding(), 3, 8, 8)
    planner = Planner(network, Pricer(network, ByWork()), "made-up", 8)
    plan = planner.fastest(scores(network, activation=0.0))
    named = {str(a.first.target): a.name for a, _ in network.activations}
    assert not {named["stem"], named["up"]} <= plan.closed_branches


def test_activation_whose_merge_is_more_work_is_kept() -> None:
    network = network_of(two(nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 64, 1)), 3, 8, 8)
    assert network.activations
    planner = Planner(network, Pricer(network, ByWork()), "made-up", 8)
    assert not planner.fastest(scores(network, activation=0.0)).closed_branches


def test_without_scores_no_activation_closes() -> None:
    network = network_of(Expanding(), 3, 8, 8)
    planner = Planner(network, Pricer(network, ByWork()), "made-up", 8)
    unscored = Importance("flat", scores(network, 0.0).units, {b.name: 1.0 for b, _ in network.branches})
    assert not any(move.kind == "activation" for move in planner.fastest(unscored).record.moves)


def test_measured_loss_is_the_difference_that_closing_makes() -> None:
    network, task = network_of(Expanding(), 3, 8, 8), Noise()
    measured = fisher(network, task, 32).activations  # type: ignore[arg-type]
    assert set(measured) == {a.name for a, _ in network.activations}
    activation, gate = network.activations[1]

    def loss() -> float:
        return float(F.cross_entropy(network.graph_module(task.x), task.y))

    with torch.no_grad():
        before = loss()
        gate.set(True)
        without = loss()
        gate.set(False)
        assert loss() == before
    assert measured[activation.name] == pytest.approx(max(0.0, without - before), abs=1e-5)


def test_closing_activation_is_scored_and_left_as_it_was() -> None:
    network, task = network_of(Expanding(), 3, 8, 8), Noise()
    name, gate = network.activations[1][0].name, network.activations[1][1]
    open_scores = fisher(network, task, 32).activations  # type: ignore[arg-type]
    network.set(network.is_open, frozenset({name}), softness=0.5)
    assert fisher(network, task, 32).activations[name] == pytest.approx(open_scores[name], abs=1e-6)  # type: ignore[arg-type]
    assert float(gate.value) == 0.5
    x = torch.randn(2, 64, 4, 4)
    assert torch.allclose(gate(F.relu(x), x), 0.5 * (F.relu(x) + x))


def test_criteria_without_data_score_activations_like_a_layer() -> None:
    network = network_of(Expanding(), 3, 8, 8)
    assert set(l2(network).activations.values()) == {1.0}
