from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import nn

from fupruner.errors import InputError
from fupruner.graph.layer_shape import LayerShape
from fupruner.models.resolve import load_model
from fupruner.pruning.budget import Budget, weights
from fupruner.pruning.gates import GatedNetwork
from fupruner.pruning.importance import Importance, l2
from fupruner.pruning.plan import GatePlan, Planner, widths
from fupruner.pruning.pricing import Pricer
from fupruner.pruning.slim import slim
from fupruner.records import Grade
from fupruner.targets.cost_model import CostModel
from unit.pruning import nets


class ByWork(CostModel):
    """One microsecond per thousand multiply-adds, and a fixed price per layer; widths are rounded up to 8."""

    grade: Grade = "estimated"
    source = "made up"

    def __init__(self) -> None:
        self.asked: list[LayerShape] = []

    def price(self, layers: Sequence[LayerShape]) -> list[float]:
        self.asked += layers
        return [1e-3 * layer.macs / 1000 + 1e-3 for layer in layers]


def planner_of(network: GatedNetwork, alignment: int = 8) -> Planner:
    return Planner(network, Pricer(network, ByWork()), "made-up", alignment)


def flat(network: GatedNetwork, branch: float = 1.0) -> Importance:
    units = network.groups.labelling.units
    return Importance("flat", np.full(units, 0.01), {b.name: branch for b, _ in network.branches})


def test_price_of_open_network_is_the_sum_of_its_layers() -> None:
    network = nets.gated(nets.Chain(), 3, 8, 8)
    planner = planner_of(network)
    macs = sum(layer.shape.macs for layer in network.layers)
    assert planner.baseline_ms == pytest.approx(1e-6 * macs + 1e-3 * len(network.layers))


def test_price_after_closing_equals_price_of_the_slimmed_network() -> None:
    from fupruner.graph import cost

    for name, (make, shape) in nets.ALL.items():
        network = nets.gated(make(), *shape)
        planner = planner_of(network)
        plan = planner.uniform(l2(network), 0.5)
        network.set(plan.is_open, plan.closed_branches)
        small = slim(network, (torch.randn(1, *shape),))
        priced = sum(ByWork().price([layer.shape for layer in cost.layer_shapes(small)]))
        assert plan.record.predicted_ms == pytest.approx(priced), name


@pytest.mark.parametrize("speedup", [1.2, 1.5, 2.0])
def test_plan_meets_its_budget(speedup: float) -> None:
    network = nets.gated(nets.Residual(32), 3, 8, 8)
    plan = planner_of(network).for_speedup(flat(network), speedup).record
    assert plan.baseline_ms / plan.predicted_ms >= speedup
    assert plan.moves


def test_cheap_branch_is_closed_and_dear_branch_is_kept() -> None:
    network = nets.gated(nets.Residual(32), 3, 8, 8)
    cheap = planner_of(network).for_speedup(flat(network, branch=1e-6), 1.5)
    dear = planner_of(network).for_speedup(flat(network, branch=1e6), 1.5)
    assert cheap.closed_branches
    assert not dear.closed_branches
    assert cheap.record.widths_after[f"{next(iter(cheap.closed_branches))}.0"] == 0


def test_least_important_channels_close_first() -> None:
    network = nets.gated(nets.Chain(32), 3, 8, 8)
    importance = flat(network)
    group = next(g for g in network.groups.prunable if g.name == "a")
    importance.units[group.units] = np.arange(len(group.units)) * 1e-6
    plan = planner_of(network).for_speedup(importance, 1.3)
    kept = plan.is_open[group.units]
    assert not kept.all()
    assert kept[np.argmax(kept) :].all()  # once one is kept, all more important ones are


def test_impossible_speedup_names_the_largest_possible_one() -> None:
    network = nets.gated(nets.Chain(), 3, 8, 8)
    with pytest.raises(InputError, match=r"1000\.00x is out of reach on made-up: \d+\.\d+x is the largest"):
        planner_of(network).for_speedup(flat(network), 1000)


@pytest.mark.parametrize("ratio", [0.0, 1.0, -1.0, 2.0])
def test_ratio_out_of_range_is_refused(ratio: float) -> None:
    network = nets.gated(nets.Chain(), 3, 8, 8)
    with pytest.raises(InputError, match="must lie between 0 and 1"):
        planner_of(network).uniform(flat(network), ratio)


def test_widths_are_multiples_of_the_bundle() -> None:
    network = nets.gated(nets.Chain(32), 3, 8, 8)
    for group in network.groups.prunable:
        for bundle in (4, 8):
            assert all(width % bundle == 0 and 0 < width < len(group.units) for width in widths(group, bundle))


def test_every_shape_is_priced_once() -> None:
    network = nets.gated(nets.Residual(32), 3, 8, 8)
    model = ByWork()
    planner = Planner(network, Pricer(network, model), "made-up", 8)
    planner.for_speedup(flat(network), 1.5)
    assert len(model.asked) == len(set(model.asked))


def test_moves_add_up_to_the_predicted_saving() -> None:
    network = nets.gated(nets.Chain(32), 3, 8, 8)
    plan = planner_of(network).for_speedup(flat(network), 1.5).record
    if len(plan.moves) == 1:
        assert plan.moves[0].saved_ms == pytest.approx(plan.baseline_ms - plan.predicted_ms)
    assert all(move.saved_ms > 0 for move in plan.moves)


@pytest.mark.parametrize("kind", ["macs", "params", "bytes", "latency_ms"])
def test_plan_stays_within_a_budget_of_size(kind: str) -> None:
    import torch

    from fupruner.graph import cost
    from fupruner.pruning.slim import slim

    network = nets.gated(nets.Residual(32), 3, 8, 8)
    planner = planner_of(network)
    whole = {
        "macs": sum(p.shape.macs for p in network.layers),
        "params": sum(weights(p.shape) for p in network.layers),
        "bytes": 4 * sum(weights(p.shape) for p in network.layers),
        "latency_ms": planner.baseline_ms,
    }
    plan = planner.for_budget(flat(network), Budget(kind, 0.6 * whole[kind]))  # type: ignore[arg-type]
    network.set(plan.is_open, plan.closed_branches)
    small = cost.layer_shapes(slim(network, (torch.randn(1, 3, 8, 8),)))
    after = {
        "macs": sum(p.shape.macs for p in small),
        "params": sum(weights(p.shape) for p in small),
        "bytes": 4 * sum(weights(p.shape) for p in small),
        "latency_ms": plan.record.predicted_ms,
    }
    assert 0.3 * whole[kind] < after[kind] <= 0.6 * whole[kind]


def test_plan_for_a_speedup_leaves_what_fits() -> None:
    network = nets.gated(nets.Residual(32), 3, 8, 8)
    room = 0.3 * sum(weights(p.shape) for p in network.layers)

    def left(planner: Planner) -> int:
        plan = planner.for_speedup(flat(network), 1.2)
        assert plan.record.baseline_ms / plan.record.predicted_ms >= 1.2
        return sum(weights(shape) for shape in planner.pricer.shapes(plan.is_open, plan.closed_branches) if shape)

    assert left(planner_of(network)) > room
    fitting = Planner(network, Pricer(network, ByWork()), "made-up", 8, "int8", room=room)
    assert left(fitting) <= room
    assert "bytes" in fitting.for_speedup(flat(network), 1.2).record.budget
    with pytest.raises(InputError, match=r"cannot be made to fit into 1 bytes: \d+ is the least possible"):
        Planner(network, Pricer(network, ByWork()), "made-up", 8, "int8", room=1).for_speedup(flat(network), 1.2)


def test_speedup_is_over_what_the_user_has_now() -> None:
    network = nets.gated(nets.Residual(32), 3, 8, 8)
    plan = Planner(network, Pricer(network, ByWork()), "made-up", 8, "int8", shipping=2.0).for_speedup(
        flat(network), 1.8
    )
    assert plan.record.moves == ()
    assert plan.record.baseline_ms == pytest.approx(2 * plan.record.predicted_ms)


def test_impossible_budget_names_the_least_possible() -> None:
    network = nets.gated(nets.Chain(), 3, 8, 8)
    with pytest.raises(InputError, match=r"macs of 1 are out of reach: \d+ is the least possible"):
        planner_of(network).for_budget(flat(network), Budget("macs", 1))


@pytest.mark.parametrize(("kind", "value"), [("speedup", 1.0), ("macs", 0), ("params", float("nan")), ("bytes", -3)])
def test_budget_out_of_range_is_refused(kind: str, value: float) -> None:
    with pytest.raises(InputError, match=f"The budget {kind} is .*; it must be"):
        Budget(kind, value)  # type: ignore[arg-type]


def test_unknown_budget_names_the_nearest() -> None:
    with pytest.raises(InputError, match="Did you mean params"):
        Budget("param", 3)  # type: ignore[arg-type]


def test_more_budget_never_costs_more_loss() -> None:
    network = nets.gated(nets.Residual(64), 3, 8, 8)
    importance = l2(network)
    planner = planner_of(network)
    plans = [planner.for_speedup(importance, speedup).record for speedup in (1.1, 1.3, 1.6, 2.0, 2.5)]
    times = [plan.predicted_ms for plan in plans]
    assert times == sorted(times, reverse=True)


def test_global_ratio_closes_more_where_less_is_lost() -> None:
    network = nets.gated(nets.Chain(64), 3, 8, 8)
    importance = flat(network)
    groups = {g.name: g for g in network.groups.prunable}
    importance.units[groups["a"].units] = 1.0
    plan = planner_of(network).everywhere(importance, 0.5)
    assert plan.is_open[groups["a"].units].all()
    assert 0 < plan.is_open[groups["b"].units].sum() < 64


class Stairs(ByWork):
    """Odd numbers of bundles cost as much as the network's widest layer."""

    def price(self, layers: Sequence[LayerShape]) -> list[float]:
        return [
            1.0 if layer.kind == "conv" and layer.out_shape[0] % 16 else 1e-6 * layer.macs + 0.5 for layer in layers
        ]


@pytest.mark.parametrize("ratio", [0.1, 0.4, 0.6, 0.9])
def test_uniform_plan_widens_what_would_be_slower(ratio: float) -> None:
    network = nets.gated(nets.Chain(32), 3, 8, 8)
    planner = Planner(network, Pricer(network, Stairs()), "made-up", 16)
    plan = planner.uniform(l2(network), ratio).record
    assert plan.predicted_ms <= plan.baseline_ms
    assert plan.widths_after["a"] % 16 == 0


def test_fastest_plan_keeps_a_bundle_everywhere() -> None:
    network = nets.gated(nets.Chain(32), 3, 8, 8)
    plan = planner_of(network).fastest(l2(network)).record
    assert (plan.widths_after["a"], plan.widths_after["b"]) == (4, 8)


def test_scores_that_are_not_numbers_are_refused() -> None:
    network = nets.gated(nets.Chain(), 3, 8, 8)
    importance = flat(network)
    importance.units[3] = float("nan")
    planner = planner_of(network)
    for plan in (planner.for_speedup, planner.uniform, planner.everywhere):
        with pytest.raises(InputError, match=r"1 of .* flat scores are not numbers"):
            plan(importance, 0.5)


class ByLaunch(CostModel):
    """A device on which every layer waits for the one before: half a layer's time is there whatever its width."""

    grade: Grade = "estimated"
    source = "made up"

    def price(self, layers: Sequence[LayerShape]) -> list[float]:
        return [layer.macs / 2.36e6 + 1.0 if layer.macs else 0.1 for layer in layers]


def resnet56() -> GatedNetwork:
    return nets.gated(load_model("fupruner:resnet56").module, 3, 32, 32)


def test_twice_the_speed_of_a_deep_network_takes_the_blocks_that_are_cheapest() -> None:
    network = resnet56()
    planner = Planner(network, Pricer(network, ByLaunch()), "made-up", 8)
    cheap = {f"layer{stage}.{block}" for stage in (1, 2, 3) for block in (3, 4, 5, 6, 7, 8)}
    importance = Importance(
        "made up",
        np.full(network.groups.labelling.units, 0.05),
        {branch.name: 0.02 if branch.name in cheap else 2.0 for branch, _ in network.branches},
    )
    plan = planner.for_speedup(importance, 2.0)
    gone = {move.where for move in plan.record.moves if move.kind == "branch"}
    assert gone
    assert gone <= cheap
    small = slim_of(network, plan)
    assert not any(name.startswith(tuple(f"{block}." for block in gone)) for name, _ in small.named_parameters())
    assert sum(name.endswith("conv1.weight") for name, _ in small.named_parameters()) == 1 + 27 - len(gone)


def test_blocks_stay_where_channels_are_the_cheaper_way() -> None:
    network = resnet56()
    planner = Planner(network, Pricer(network, ByWork()), "made-up", 8)
    importance = Importance(
        "made up", np.full(network.groups.labelling.units, 0.01), {branch.name: 50.0 for branch, _ in network.branches}
    )
    plan = planner.for_speedup(importance, 1.5)
    assert plan.record.moves
    assert not plan.closed_branches


def slim_of(network: GatedNetwork, plan: GatePlan) -> nn.Module:
    network.set(plan.is_open, plan.closed_branches)
    return slim(network, (torch.randn(1, 3, 32, 32),))
