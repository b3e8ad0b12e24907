"""Depth against width: plans are judged as a whole, and the best one's weight is taken."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from fupruner.errors import InputError
from fupruner.pruning.compensate import compensate
from fupruner.pruning.gates import GatedNetwork, insert_gates
from fupruner.pruning.importance import Importance
from fupruner.pruning.plan import GatePlan, Planner
from fupruner.pruning.pricing import Pricer
from fupruner.pruning.scores import weighted
from fupruner.pruning.slim import slim
from fupruner.pruning.trade import best_weight, compensated_loss
from fupruner.training.custom import Calibration
from unit.pruning import nets
from unit.pruning.test_plan import ByWork


@pytest.fixture
def network() -> GatedNetwork:
    return nets.gated(nets.Residual(32), 3, 8, 8)


def planner(network: GatedNetwork) -> Planner:
    return Planner(network, Pricer(network, ByWork()), "made-up", 8)


def scores(network: GatedNetwork, branch: float) -> Importance:
    units = np.full(network.groups.labelling.units, 0.01)
    return Importance("flat", units, {b.name: branch for b, _ in network.branches})


def test_weighted_scores_leave_channels_alone(network: GatedNetwork) -> None:
    given = scores(network, 4.0)
    lighter = weighted(given, 0.25)
    assert set(lighter.branches.values()) == {1.0}
    assert lighter.units is given.units
    assert set(given.branches.values()) == {4.0}


def test_the_plan_with_the_least_loss_as_a_whole_decides(network: GatedNetwork) -> None:
    seen: list[GatePlan] = []

    def deep(plan: GatePlan) -> float:
        seen.append(plan)
        return -float(len(plan.closed_branches))

    plans, given = planner(network), scores(network, 10.0)
    weight = best_weight(plans, given, 1.3, deep, (1.0, 1e-6))
    assert weight == 1e-6
    assert len(seen[0].closed_branches) == 0
    assert len(seen[1].closed_branches) > 0
    assert best_weight(plans, given, 1.3, lambda plan: float(len(plan.closed_branches)), (1.0, 1e-6)) == 1.0


def test_a_plan_that_comes_twice_is_judged_once(network: GatedNetwork) -> None:
    calls: list[GatePlan] = []

    def count(plan: GatePlan) -> float:
        calls.append(plan)
        return 0.0

    best_weight(planner(network), scores(network, 10.0), 1.3, count, (1.0, 1.0, 1.0))
    assert len(calls) == 1


def test_out_of_reach_nothing_is_judged(network: GatedNetwork) -> None:
    def never(plan: GatePlan) -> float:
        raise AssertionError

    assert best_weight(planner(network), scores(network, 1.0), 1e6, never) == 1.0


def test_loss_of_a_plan_is_that_of_what_is_left_and_gates_are_put_back() -> None:
    torch.manual_seed(0)
    graph = nets.graph_of(nets.Residual(32), 3, 8, 8)
    network = insert_gates(graph)
    images = torch.randn(32, 3, 8, 8)
    with torch.no_grad():
        wanted = graph(images)

    def distance(model: Callable[[Tensor], Tensor], batch: tuple[Tensor, Tensor]) -> Tensor:
        return (model(batch[0]) - batch[1]).flatten(1).square().mean(1)

    data = Calibration([(images, wanted)], distance)
    plans, loss = planner(network), compensated_loss(network, graph, data, 32)
    small, large = (loss(plans.for_speedup(scores(network, 0.1), speedup)) for speedup in (1.1, 2.5))
    assert 0 < small < large
    assert network.is_open.all()
    assert network.closed_branches == frozenset()


@pytest.mark.parametrize(
    ("batches", "fitted", "judged"), [(12, [0, 1, 2, 3], range(4, 12)), (3, [0], [1, 2]), (1, [0], [0])]
)
def test_a_plan_is_judged_on_images_that_were_not_fitted_on(batches: int, fitted: list[int], judged: list[int]) -> None:
    torch.manual_seed(0)
    graph = nets.graph_of(nets.Residual(32), 3, 8, 8)
    network = insert_gates(graph)
    images, told = [torch.randn(4, 3, 8, 8) for _ in range(batches)], list[int]()

    def square(model: Callable[[Tensor], Tensor], batch: Tensor) -> Tensor:
        told.append(next(i for i, each in enumerate(images) if each is batch))
        return model(batch).square().mean(1)

    plan = planner(network).for_speedup(scores(network, 0.1), 1.5)
    loss = compensated_loss(network, graph, Calibration(images, square, lambda batch: batch), 16, 32)
    assert loss(plan) == loss(plan)
    assert told == [*judged, *judged]
    network.set(plan.is_open, plan.closed_branches)
    small = compensate(network, slim(network, (images[0],)), graph, [images[i] for i in fitted])
    with torch.no_grad():
        assert loss(plan) == pytest.approx(
            float(small(torch.cat([images[i] for i in judged])).square().mean()), rel=1e-4
        )


def test_a_weight_whose_plan_ends_short_is_passed_over(network: GatedNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    plans, given = planner(network), scores(network, 10.0)
    whole = plans.for_speedup

    def short(importance: Importance, speedup: float) -> GatePlan:
        if max(importance.branches.values()) < 10:
            raise InputError("out of reach")
        return whole(importance, speedup)

    monkeypatch.setattr(plans, "for_speedup", short)
    assert best_weight(plans, given, 1.3, lambda plan: 1.0, (0.5, 1.0)) == 1.0
