import numpy as np
import pytest
import torch

from fupruner.pruning.deadline import TOLERANCE, WASTE, freeze
from fupruner.pruning.dynamic import DynamicPruning
from fupruner.pruning.importance import Importance
from fupruner.pruning.plan import GatePlan, Planner
from fupruner.pruning.pricing import Pricer
from fupruner.pruning.schedule import BudgetSchedule
from unit.pruning import nets
from unit.pruning.test_plan import ByWork

ASKED = 1.6


class Device:
    """Runs every network ``factor`` times as fast as the plan that it was cut by predicts."""

    def __init__(self, factor: float, asked: float = ASKED) -> None:
        self.network = nets.gated(nets.Residual(64), 3, 8, 8)
        planner = Planner(self.network, Pricer(self.network, ByWork()), "made-up", 16)
        random = np.random.default_rng(0).uniform(0.01, 1.0, self.network.groups.labelling.units)
        scores = Importance("random", random, {b.name: 3.0 for b, _ in self.network.branches})
        self.scored, self.notes, self.measured = 0, list[str](), list[GatePlan]()
        self.enough = set[float]()
        self.pruning = DynamicPruning(self.network, planner, self._score(scores), BudgetSchedule(asked, 0, 20, 3))
        for step in self.pruning.schedule.steps():
            self.pruning.decide(step)
        self.factor = factor
        self.cut = freeze(self.pruning, (torch.randn(2, 3, 8, 8),), self.measure, self.notes.append)

    def _score(self, scores: Importance):
        def score(_):
            self.scored += 1
            return scores

        return score

    def measure(self, _module, enough: float) -> float:
        self.enough.add(enough)
        record = self.pruning.plan.record
        self.measured.append(self.pruning.plan)
        return self.factor * record.baseline_ms / record.predicted_ms


def test_what_is_as_fast_as_asked_is_cut_as_planned() -> None:
    device = Device(0.98)
    assert device.enough == {TOLERANCE * ASKED}  # from where on a measurement is made once more
    assert device.notes == []
    assert len(device.pruning.decisions) == 3


@pytest.mark.parametrize("factor", [0.8, 1.3])
def test_what_is_too_slow_or_much_too_fast_is_planned_again_with_the_same_scores(factor: float) -> None:
    device = Device(factor)
    first, *again = device.pruning.decisions[2:]
    assert again
    assert all((decision.asked_speedup > ASKED) == (factor < 1) for decision in again)
    assert (again[-1].closed > first.closed) == (factor < 1)
    assert "planned again" in device.notes[0]
    assert TOLERANCE * ASKED <= device.cut.speedup <= WASTE * ASKED
    assert device.scored == 3
    assert device.cut.plan is device.pruning.plan
    assert (device.network.is_open == device.cut.plan.is_open).all()


def test_the_same_plan_is_measured_once() -> None:
    """Where plans are coarse, asking for a little more or less may bring the same one."""
    device = Device(1.045, asked=1.02)
    kept = [plan.key for plan in device.measured]
    assert len(kept) == len(set(kept))
    assert len(device.pruning.decisions) > len(kept) + 2


def test_less_is_closed_by_what_matters_least() -> None:
    """What comes back are the gates whose closing costs most, not any that happen to be closed."""
    device = Device(1.3)
    wide, scores = device.cut.plan, device.pruning.importance.units
    planned = device.pruning.planner.for_speedup(device.pruning.importance, device.pruning.decisions[-1].asked_speedup)
    assert scores[~wide.is_open].sum() <= 1.25 * scores[~planned.is_open].sum()


def test_a_speedup_that_no_plan_reaches_keeps_the_fastest_network() -> None:
    device = Device(0.001)
    assert "out of reach" in device.notes[-1]
    assert device.cut.speedup < ASKED
    assert device.cut.plan is device.pruning.plan
