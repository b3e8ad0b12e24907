"""Plans are judged as a whole, and the factors of the best one are taken."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from fupruner.errors import InputError
from fupruner.pruning.compensate import compensate
from fupruner.pruning.factors import branch, closed_parts, of_branches, parts, scaled
from fupruner.pruning.gates import GatedNetwork, insert_gates
from fupruner.pruning.importance import Importance
from fupruner.pruning.plan import GatePlan, Planner
from fupruner.pruning.pricing import Pricer
from fupruner.pruning.slim import slim
from fupruner.pruning.trade import best_factors, compensated_loss
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


def test_factors_scale_the_scores_of_their_parts_alone(network: GatedNetwork) -> None:
    given, plans = scores(network, 4.0), planner(network)
    first, second, *_ = network.groups.prunable
    lighter = scaled(plans, given, {first.name: 0.5} | of_branches(given.branches, 0.25))
    assert set(lighter.branches.values()) == {1.0}
    assert np.allclose(lighter.units[first.units], 0.005)
    assert np.allclose(lighter.units[second.units], 0.01)
    assert set(given.branches.values()) == {4.0}
    assert np.allclose(given.units, 0.01)
    assert np.array_equal(scaled(plans, given, {}).units, given.units)


def test_parts_are_all_branches_and_groups_the_slowest_first(network: GatedNetwork) -> None:
    plans = planner(network)
    found = parts(plans)
    assert set(found) == set(plans.search.groups) | {branch(b.name) for b, _ in network.branches}
    work = {
        name: sum(plans.pricer.layers[i].layer.shape.macs for i in plans.search.touched[name])
        for name in plans.search.groups
    }
    groups = [part for part in found if part in work]
    assert [work[name] for name in groups] == sorted(work.values(), reverse=True)


def test_the_plan_with_the_least_loss_as_a_whole_decides(network: GatedNetwork) -> None:
    seen: list[GatePlan] = []

    def deep(plan: GatePlan) -> float:
        seen.append(plan)
        return -float(len(plan.closed_branches))

    plans, given = planner(network), scores(network, 10.0)
    found = best_factors(plans, given, 1.3, deep, plans=2, weights=(1.0, 1e-6))
    assert found == of_branches(given.branches, 1e-6)
    assert len(seen[0].closed_branches) == 0
    assert len(seen[1].closed_branches) > 0
    shallow = best_factors(
        plans, given, 1.3, lambda plan: float(len(plan.closed_branches)), plans=2, weights=(1.0, 1e-6)
    )
    assert shallow == of_branches(given.branches, 1.0)


@pytest.mark.parametrize("closed", [True, False])
def test_a_part_is_made_dearer_or_cheaper_where_that_helps(network: GatedNetwork, closed: bool) -> None:
    plans, given = planner(network), scores(network, 10.0)
    plain = closed_parts(plans.for_speedup(given, 1.3))
    part = next(p for p in parts(plans) if p in plans.search.groups and (p in plain) == closed)

    def loss(plan: GatePlan) -> float:
        return 3.0 + ((part in closed_parts(plan)) == closed)

    found = best_factors(plans, given, 1.3, loss, plans=32, weights=(1.0,))
    assert (part in closed_parts(plans.for_speedup(scaled(plans, given, found), 1.3))) != closed
    changed = {name: factor for name, factor in found.items() if factor != 1.0}
    assert len(changed) == 1  # what helps nothing is left as it is
    assert all((factor > 1) == (name in plain) for name, factor in changed.items())


def test_no_more_plans_are_made_than_allowed(network: GatedNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    plans, given, made = planner(network), scores(network, 10.0), list[float]()
    whole = plans.for_speedup

    def counted(importance: Importance, speedup: float) -> GatePlan:
        made.append(speedup)
        return whole(importance, speedup)

    monkeypatch.setattr(plans, "for_speedup", counted)
    losses = iter(np.linspace(1.0, 0.0, 99))  # every other plan is better, so that only the limit ends it
    best_factors(plans, given, 1.3, lambda plan: float(next(losses)), plans=7)
    assert made == [1.3] * 7
    best_factors(plans, given, 1.3, lambda plan: 1.0, plans=2)
    assert len(made) == 9


def test_a_plan_that_comes_twice_is_judged_once(network: GatedNetwork) -> None:
    calls: list[GatePlan] = []

    def count(plan: GatePlan) -> float:
        calls.append(plan)
        return 0.0

    best_factors(planner(network), scores(network, 10.0), 1.3, count, plans=3, weights=(1.0, 1.0, 1.0))
    assert len(calls) == 1


def test_out_of_reach_nothing_is_judged(network: GatedNetwork) -> None:
    def never(plan: GatePlan) -> float:
        raise AssertionError

    assert best_factors(planner(network), scores(network, 1.0), 1e6, never, plans=32) == {}


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


def test_factors_whose_plan_ends_short_are_passed_over(network: GatedNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    plans, given = planner(network), scores(network, 10.0)
    whole = plans.for_speedup

    def short(importance: Importance, speedup: float) -> GatePlan:
        if max(importance.branches.values()) < 10:
            raise InputError("out of reach")
        return whole(importance, speedup)

    monkeypatch.setattr(plans, "for_speedup", short)
    found = best_factors(plans, given, 1.3, lambda plan: 1.0, plans=2, weights=(0.5, 1.0))
    assert found == of_branches(given.branches, 1.0)
