"""What a run records of its task and its scores."""

from __future__ import annotations

import numpy as np
import pytest

from fupruner.errors import TrainingError
from fupruner.pruning.importance import Importance
from fupruner.runs.journal import Journal
from fupruner.runs.recorded import RecordedTask, recorded_scores


def test_the_error_of_a_difference_is_counted_once_and_unknown_where_a_task_cannot_tell_it() -> None:
    counted: list[float] = []

    class Telling:
        def drop_error(self, before: float, after: float) -> float:
            counted.append(before - after)
            return before - after

    journal = Journal()
    told = [RecordedTask(task, journal).drop_error(3.0, 1.0) for task in (Telling(), object())]  # type: ignore[arg-type]
    assert told == [2.0, None]
    journal._position = 0  # as in a resume
    assert [RecordedTask(object(), journal).drop_error(0.0, 0.0) for _ in range(2)] == told  # type: ignore[arg-type]
    assert counted == [2.0]


def test_scores_that_are_no_numbers_are_a_training_that_went_wrong():
    def diverged(_network):
        return Importance("made-up", np.array([0.1, np.nan]), {})

    with pytest.raises(TrainingError, match="Scores of gates are not numbers"):
        recorded_scores(diverged, Journal())(None)
