import numpy as np
import pytest

from fupruner.pruning.dynamic import DynamicPruning
from fupruner.pruning.gates import GatedNetwork
from fupruner.pruning.importance import Importance
from fupruner.pruning.plan import GatePlan, Planner
from fupruner.pruning.pricing import Pricer
from fupruner.pruning.schedule import BudgetSchedule
from unit.pruning import nets
from unit.pruning.test_plan import ByWork


class Scripted:
    """Scores that are given in advance, one set per decision: the ``low`` units of a group are unimportant, the others are not."""

    def __init__(self, network: GatedNetwork, lows: list[slice]) -> None:
        self.group = next(g for g in network.groups.prunable if g.name == "a")
        self.lows = iter(lows)
        self.units, self.calls = network.groups.labelling.units, 0

    def __call__(self, network: GatedNetwork) -> Importance:
        scores = np.full(self.units, 10.0**self.calls)
        self.calls += 1
        scores[self.group.units[next(self.lows)]] = 1e-3
        return Importance("scripted", scores, {b.name: 1e3 for b, _ in network.branches})


def dynamic(network: GatedNetwork, lows: list[slice], schedule: BudgetSchedule) -> DynamicPruning:
    planner = Planner(network, Pricer(network, ByWork()), "made-up", 16)
    return DynamicPruning(network, planner, Scripted(network, lows), schedule)


def test_filters_come_back_when_they_matter_again() -> None:
    network = nets.gated(nets.Chain(32), 3, 8, 8)
    first, rest = slice(0, 16), slice(16, 32)
    pruning = dynamic(network, [first, rest, rest, rest], BudgetSchedule(1.2, 0, 30, 4))
    decisions = [pruning.decide(step) for step in pruning.schedule.steps()]
    assert decisions[0].closed > 0
    assert sum(d.reopened for d in decisions[1:]) > 0
    group = next(g for g in network.groups.prunable if g.name == "a")
    assert network.is_open[group.units[:8]].any()


def closes(plan: GatePlan, units: np.ndarray) -> bool:
    return bool((~plan.is_open[units]).any())


@pytest.mark.parametrize(("liked", "worse"), [("first", 1.2), ("rest", 1.2), ("rest", 0.95)])
@pytest.mark.parametrize("offset", [0.0, -2.0])  # a loss may be negative
def test_a_new_plan_counts_unless_it_is_judged_clearly_worse_than_the_one_so_far(
    liked: str, worse: float, offset: float
) -> None:
    network = nets.gated(nets.Chain(32), 3, 8, 8)
    halves = {"first": slice(0, 16), "rest": slice(16, 32)}
    pruning = dynamic(network, [halves["first"], *[halves["rest"]] * 3], BudgetSchedule(1.2, 0, 30, 4))
    units = next(g for g in network.groups.prunable if g.name == "a").units[halves[liked]]
    pruning.judge = lambda plan: offset + (1.0 if closes(plan, units) else worse)
    for step in pruning.schedule.steps():
        pruning.decide(step)
    assert pruning.plan is not None
    assert pruning.plan.key == pruning.end.key
    assert closes(pruning.plan, units)
    faster = pruning.decide_again(1.25)
    assert faster.predicted_speedup >= 1.25
    assert not (pruning.plan.is_open & ~pruning.end.is_open).any()  # what was judged better stays closed


def test_equal_plans_are_not_judged() -> None:
    network = nets.gated(nets.Chain(32), 3, 8, 8)
    pruning = dynamic(network, [slice(0, 16)] * 4, BudgetSchedule(1.2, 0, 30, 4))
    pruning.judge = lambda plan: pytest.fail("the plan is the one that was there before")
    for step in pruning.schedule.steps():
        pruning.decide(step)


def test_steady_scores_reopen_nothing() -> None:
    network = nets.gated(nets.Chain(32), 3, 8, 8)
    pruning = dynamic(network, [slice(0, 16)] * 5, BudgetSchedule(1.5, 0, 30, 5))
    decisions = [pruning.decide(step) for step in pruning.schedule.steps()]
    assert sum(d.reopened for d in decisions) == 0
    assert [d.closed for d in decisions] == sorted(d.closed for d in decisions)


def test_gates_close_softly_and_are_shut_at_the_deadline() -> None:
    network = nets.gated(nets.Chain(32), 3, 8, 8)
    pruning = dynamic(network, [slice(0, 16)] * 5, BudgetSchedule(1.5, 0, 30, 5))
    smallest = []
    for step in pruning.schedule.steps():
        pruning.decide(step)
        smallest.append(min(float(gate.value.min()) for gate, _ in network.gates))
    assert smallest == sorted(smallest, reverse=True)
    assert 0 < smallest[0] < 1
    assert smallest[-1] == 0


def test_plan_at_the_deadline_meets_the_asked_speedup() -> None:
    network = nets.gated(nets.Residual(32), 3, 8, 8)
    planner = Planner(network, Pricer(network, ByWork()), "made-up", 16)
    flat = Importance("flat", np.full(network.groups.labelling.units, 0.01), {b.name: 0.1 for b, _ in network.branches})
    pruning = DynamicPruning(network, planner, lambda _: flat, BudgetSchedule(1.8, 0, 20, 3))
    decisions = [pruning.decide(step) for step in pruning.schedule.steps()]
    assert decisions[-1].asked_speedup == 1.8
    assert decisions[-1].predicted_speedup >= 1.8
    assert pruning.plan is not None


def test_what_closes_first_belongs_to_the_plan_in_the_end() -> None:
    network = nets.gated(nets.Residual(32), 3, 8, 8)
    planner = Planner(network, Pricer(network, ByWork()), "made-up", 16)
    flat = Importance("flat", np.full(network.groups.labelling.units, 0.01), {b.name: 0.1 for b, _ in network.branches})
    end, begin = planner.for_speedup(flat, 1.8), planner.for_speedup(flat, 1.2)
    assert end.closed_branches  # the whole is best had by a block
    assert not begin.closed_branches  # and a part of it by channels of another one
    pruning = DynamicPruning(network, planner, lambda _: flat, BudgetSchedule(1.8, 0, 30, 5))
    for step in pruning.schedule.steps():
        pruning.decide(step)
        assert pruning.plan is not None
        assert pruning.plan.closed_branches <= end.closed_branches
        assert (pruning.plan.is_open | ~end.is_open).all()
