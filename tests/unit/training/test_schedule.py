"""The learning rate: exact at both ends, up, then down."""

from __future__ import annotations

from itertools import pairwise

import pytest

from fupruner.training.schedule import Schedule


@pytest.mark.parametrize("schedule", [Schedule(0.1, 100, 10), Schedule(0.1, 100), Schedule(0.1, 7, 6), Schedule(1, 1)])
def test_exact_at_peak_and_end_and_monotone_between(schedule):
    rates = [schedule.learning_rate(step) for step in range(schedule.steps + 1)]
    assert rates[schedule.warmup] == schedule.peak
    assert rates[-1] == 0
    assert all(a < b for a, b in pairwise(rates[: schedule.warmup + 1]))
    assert all(a > b for a, b in pairwise(rates[schedule.warmup :]))
    assert all(rate > 0 for rate in rates[:-1])


def test_rate_stays_zero_after_the_end():
    assert Schedule(0.1, 10).learning_rate(25) == 0


def test_warm_up_is_a_share_of_the_steps():
    assert Schedule.over(200, 0.1) == Schedule(0.1, 200, 10)
    assert Schedule.over(3, 0.1) == Schedule(0.1, 3, 0)


def test_what_is_left_falls_from_all_to_nothing():
    schedule = Schedule(0.1, 10)
    assert [schedule.left(step) for step in (0, 5, 10, 11)] == [1.0, 0.5, 0.0, 0.0]
