from collections.abc import Sequence

import numpy as np
import pytest

from fupruner.errors import InputError
from fupruner.graph.layer_shape import LayerShape
from fupruner.pruning.gates import GatedNetwork
from fupruner.pruning.importance import Importance, l2
from fupruner.pruning.plan import Planner, widths
from fupruner.pruning.pricing import Pricer
from fupruner.records import Grade
from fupruner.targets.base import CostModel
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
    import torch

    from fupruner.graph import cost
    from fupruner.pruning.slim import slim

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
