"""What a run records of its task and its scores."""

from __future__ import annotations

import numpy as np
import pytest

from fupruner.errors import TrainingError
from fupruner.pruning.importance import Importance
from fupruner.runs.journal import Journal
from fupruner.runs.recorded import recorded_scores


def test_scores_that_are_no_numbers_are_a_training_that_went_wrong():
    def diverged(_network):
        return Importance("made-up", np.array([0.1, np.nan]), {})

    with pytest.raises(TrainingError, match="Scores of gates are not numbers"):
        recorded_scores(diverged, Journal())(None)
