from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fupruner.pruning.schedule import BudgetSchedule

schedules = st.builds(
    BudgetSchedule,
    speedup=st.floats(1.01, 10),
    first=st.integers(0, 50),
    deadline=st.integers(51, 500),
    decisions=st.integers(1, 12),
)


@given(schedules)
def test_budget_never_loosens_and_is_exact_at_both_ends(schedule: BudgetSchedule) -> None:
    asked = [schedule.speedup_at(step) for step in range(schedule.deadline + 10)]
    assert all(b >= a for a, b in pairwise(asked))
    assert asked[schedule.deadline] == asked[-1] == schedule.speedup
    assert all(a == 1.0 for a in asked[: schedule.first])


@given(schedules)
def test_last_decision_falls_on_the_deadline(schedule: BudgetSchedule) -> None:
    steps = schedule.steps()
    assert steps[-1] == schedule.deadline
    assert len(steps) <= schedule.decisions
    assert steps == sorted(set(steps))


def test_most_of_the_budget_is_asked_for_early() -> None:
    schedule = BudgetSchedule(2.0, 0, 100, 5)
    assert schedule.speedup_at(0) == pytest.approx(1 / (1 - 0.5 * (1 - 0.8**3)))
    assert schedule.speedup_at(50) > 1.8
