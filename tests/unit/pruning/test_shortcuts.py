"""Shortcuts whose carried channels have gates: closing some, slimming, fusing what is left, and pricing it before."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fupruner.fusion.fuse import adds_into_filters, fuse_graph
from fupruner.graph import cost, shapes
from fupruner.graph.trace import trace
from fupruner.one_shot import prune
from fupruner.pruning.budget import SizeModel
from fupruner.pruning.gates import GatedNetwork, insert_gates
from fupruner.pruning.importance import CRITERIA, NEEDS_DATA, fisher, l2
from fupruner.pruning.plan import Planner
from fupruner.pruning.prepare import adds_that_pay
from fupruner.pruning.pricing import Pricer
from fupruner.pruning.slim import slim
from fupruner.targets.registry import get_target
from helpers import assert_same_function, kinds, randomize


class Block(nn.Module):
    """A basic block or, with ``middle``, an inverted residual; its shortcut is the identity, padded zeros or a projection."""

    def __init__(
        self, channels: int, out: int, stride: int = 1, *, projected: bool = False, middle: bool = False
    ) -> None:
        super().__init__()
        self.extra, self.stride = out - channels, stride
        self.conv1 = nn.Conv2d(channels, out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.middle = nn.Conv2d(out, out, 3, padding=1, groups=out) if middle else None
        self.conv2 = nn.Conv2d(out, out, 3, padding=1)
        self.projection = nn.Conv2d(channels, out, 1, stride) if projected else None

    def shortcut(self, x: Tensor) -> Tensor:
        if self.projection is not None:
            return self.projection(x)
        if self.stride == 1 and not self.extra:
            return x
        return F.pad(
            x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.extra // 2, self.extra - self.extra // 2)
        )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        if self.middle is not None:
            y = F.relu(self.middle(y))
        return F.relu(self.conv2(y) + self.shortcut(x))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.same, self.padded = Block(8, 8), Block(8, 16, 2)
        self.projected, self.inverted = Block(16, 24, 2, projected=True), Block(24, 24, middle=True)
        self.fc = nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.inverted(self.projected(self.padded(self.same(F.relu(self.stem(x))))))
        return self.fc(x.mean((2, 3)))


NAMES = ["same", "padded", "projected", "inverted"]
X = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def gated(model: nn.Module | None = None) -> GatedNetwork:
    graph = trace(randomize(model or Net()).double(), X)
    _, log = fuse_graph(graph, (X,), "aggressive")
    return insert_gates(graph, reserved=adds_into_filters(log))


def close(network: GatedNetwork, shares: dict[str, float], channels: float = 0.0, closed: tuple[str, ...] = ()) -> None:
    """Close shares of the channels that shortcuts carry, of all channels, and some branches."""
    rng = np.random.default_rng(0)
    is_open = np.ones(network.groups.labelling.units, dtype=bool)
    groups = [(s.group, shares.get(s.branch.name, 0.0)) for s, _ in network.shortcuts]
    for group, share in [*groups, *((g, channels) for g in network.groups.prunable)]:
        is_open[rng.permutation(group.units)[: round(share * len(group.units))]] = False
    network.set(is_open, frozenset(closed))


def test_every_kind_of_shortcut_is_found_with_the_channels_that_it_carries() -> None:
    found = {s.branch.name: s for s, _ in gated().shortcuts}
    assert list(found) == NAMES
    assert [len(s.group.units) for s in found.values()] == [8, 8, 16, 24]
    assert [s.is_plain for s in found.values()] == [True, True, False, True]


def test_adds_that_fusion_does_not_take_and_bottlenecks_have_no_gates() -> None:
    class Bottleneck(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.branch = nn.Sequential(
                nn.Conv2d(8, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 8, 1)
            )
            self.last = nn.Conv2d(8, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(F.relu(self.branch(x) + x))

    graph = trace(Bottleneck().double(), torch.randn(2, 8, 6, 6, dtype=torch.float64))
    shapes.propagate(graph, (torch.randn(2, 8, 6, 6, dtype=torch.float64),))
    adds = {n.name for n in graph.graph.nodes if cost.is_add(n)}
    assert adds
    assert not insert_gates(graph, reserved=adds).shortcuts
    graph = trace(Net().double(), X)
    shapes.propagate(graph, (X,))
    assert not insert_gates(graph).shortcuts


@pytest.mark.parametrize("share", [0.25, 0.5, 1.0])
@pytest.mark.parametrize("channels", [0.0, 0.5])
@pytest.mark.parametrize("closed", [(), ("same",), ("inverted",)])
def test_slimmed_and_fused_networks_equal_the_gated_one(share: float, channels: float, closed: tuple[str, ...]) -> None:
    network = gated()
    close(network, dict.fromkeys(NAMES, share), channels, closed)
    small = slim(network, (X,))
    assert_same_function(network.graph_module, small, X)
    assert_same_function(network.graph_module, small, X[:1])
    fused, log = fuse_graph(small, (X,), "aggressive")
    assert_same_function(network.graph_module, fused, X)
    assert not kinds(fused)["add"], log.refused


def test_closing_a_shortcut_changes_the_function_and_what_is_closed_is_not_reserved() -> None:
    network = gated()
    before = network.graph_module(X)
    close(network, {"same": 0.5, "projected": 0.25})
    assert (network.graph_module(X) - before).abs().max() > 1e-3
    fused, _ = fuse_graph(slim(network, (X,)), (X,), "aggressive")
    rows = {name: fused.get_submodule(f"{name}.conv1").out_channels for name in NAMES}
    assert rows == {"same": 8 + 4, "padded": 16 + 8, "projected": 24 + 12, "inverted": 24 + 24}


def test_a_closed_branch_leaves_its_shortcut_whole() -> None:
    network = gated()
    close(network, {"same": 0.5}, closed=("same",))
    assert all(gate.all_open for s, gate in network.shortcuts if s.branch.name == "same")
    small = slim(network, (X,))
    assert not any(name.startswith(("same", "shortcut_masks")) for name in small.state_dict())


def test_masks_are_not_trained_and_keep_closed_channels_closed() -> None:
    network = gated()
    close(network, {"same": 0.5})
    small = slim(network, (X,))
    masks = {name: value.clone() for name, value in small.named_buffers() if name.startswith("shortcut_masks")}
    assert sorted(masks["shortcut_masks.same"].flatten().tolist()) == [0.0] * 4 + [1.0] * 4
    optimizer = torch.optim.SGD(small.train().parameters(), lr=0.1)
    small(X).square().mean().backward()
    optimizer.step()
    assert all(torch.equal(dict(small.named_buffers())[name], value) for name, value in masks.items())


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_price_of_the_fused_form_is_that_of_the_fused_network(share: float) -> None:
    network = gated()
    for budget in ("macs", "params"):
        pricer = Pricer(network, SizeModel(budget, "float32"), "fused")
        close(network, dict.fromkeys(NAMES, share), 0.5)
        fused, _ = fuse_graph(slim(network, (X,)), (X,), "aggressive")
        shipped = [layer.shape for layer in cost.layer_shapes(fused)]
        predicted = pricer.total(network.is_open, network.closed_branches)
        assert predicted == sum(SizeModel(budget, "float32").price(shipped)) + pricer.cost_model.overhead_ms


def planner(form: str, target: str = "ncs2", network: GatedNetwork | None = None) -> tuple[GatedNetwork, Planner]:
    network = network or gated()
    pricer = Pricer(network, get_target(target).cost_model(), form)  # type: ignore[arg-type]
    return network, Planner(network, pricer, target, 8)


def test_the_cheaper_form_never_costs_more_than_the_network_as_it_came() -> None:
    for form, at_most in (("cheaper", True), ("fused", False)):
        network, plans = planner(form)
        everything = np.ones(network.groups.labelling.units, dtype=bool)
        cost_open = plans.pricer.total(everything, frozenset())
        assert plans.baseline_ms == plans.pricer.unfused()
        assert not at_most or cost_open <= plans.baseline_ms


def test_plans_close_carried_channels_and_say_how_many_are_left() -> None:
    network = gated()
    plans = Planner(network, Pricer(network, SizeModel("macs", "float32"), "fused"), "macs", 8)
    scores = l2(network)
    scores.units[np.concatenate([s.group.units for s, _ in network.shortcuts])] = 1e-9
    plan = plans.for_speedup(scores, 1.3)
    moves = [move for move in plan.record.moves if move.kind == "shortcut"]
    assert moves
    assert plan.record.carried_before == {"same": 8, "padded": 8, "projected": 16, "inverted": 24}
    closed = sum(len(move.closed) for move in moves)
    left = {s.branch.name: int(s.alive(plan.is_open).sum()) for s, _ in network.shortcuts}
    assert plan.record.carried_after == left
    assert closed > 0
    assert sum(left.values()) < 56
    network.set(plan.is_open, plan.closed_branches)
    fused, _ = fuse_graph(slim(network, (X,)), (X,), "aggressive")
    assert_same_function(network.graph_module, fused, X)


def test_widths_of_plans_do_not_count_identity_filters() -> None:
    network, plans = planner("fused")
    plan = plans.for_speedup(l2(network), 1.2)
    assert plan.record.widths_before["same.conv1"] == 8


def test_filters_are_only_gated_where_the_target_would_rather_have_a_few_than_the_add() -> None:
    network = gated()
    free = {n.name for n in network.graph_module.graph.nodes if cost.is_add(n)}

    def adds_are_dear(layers: list) -> list[float]:  # type: ignore[type-arg]
        return [0.0 if layer is None else 1e6 * (layer.fused_add or layer.kind == "add") for layer in layers]

    def adds_are_free(layers: list) -> list[float]:  # type: ignore[type-arg]
        return [0.0 if layer is None else float(layer.macs) for layer in layers]

    assert adds_that_pay(network, adds_are_dear, 4) == free
    assert adds_that_pay(network, adds_are_free, 4) <= {"add_tensor_2"}  # the projection's own multiply-adds are saved


class Noise:
    steps_per_epoch = 1

    def calibration_batches(self, images: int) -> list[tuple[Tensor, Tensor]]:
        return [(X, torch.tensor([1, 3]))]

    def inputs(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        return batch[0]

    def sample_losses(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(model(batch[0]), batch[1], reduction="none")


@torch.no_grad()
def mean_loss(network: GatedNetwork) -> float:
    return float(Noise().sample_losses(network.graph_module, (X, torch.tensor([1, 3]))).mean())


def test_fisher_scores_of_a_shortcut_add_up_to_what_losing_all_of_it_costs() -> None:
    network = gated()
    scores = fisher(network, Noise(), 2)  # type: ignore[arg-type]
    before = mean_loss(network)
    for shortcut, gate in network.shortcuts:
        gate.set(np.ones(gate.channels, dtype=bool))
        loss = mean_loss(network) - before
        gate.set(np.zeros(gate.channels, dtype=bool))
        assert scores.units[shortcut.group.units].sum() >= loss * (1 - 1e-6)


@pytest.mark.parametrize("name", sorted(set(CRITERIA) - NEEDS_DATA))
def test_scores_without_data_give_every_shortcut_the_weight_of_a_layer(name: str) -> None:
    network = gated()
    scores = CRITERIA[name](network, None, 0)
    for shortcut, _ in network.shortcuts:
        own = scores.units[shortcut.group.units]
        assert own.sum() == pytest.approx(1)
        assert (own > 0).all()


def test_pruning_in_one_shot_counts_from_the_network_as_it_came_and_ships_identity_filters() -> None:
    model = randomize(Net())
    plans = {
        level: prune(model, X.float(), speedup=1.4, target="ncs2", fusion=level) for level in ("basic", "aggressive")
    }
    plan = plans["aggressive"].plan
    assert plan.baseline_ms == plans["basic"].plan.baseline_ms
    assert plan.predicted_ms <= plan.baseline_ms / 1.4
    assert sum(plan.carried_before.values()) == 56
    module = plans["aggressive"].module
    assert isinstance(module, torch.fx.GraphModule)
    assert not kinds(module)["add"]
    for block, carried in plan.carried_after.items():
        if carried:
            assert module.get_submodule(f"{block}.conv1").out_channels == plan.widths_after[f"{block}.conv1"] + carried
