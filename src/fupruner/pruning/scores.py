"""Scores of gates: the record that every criterion returns, and what shows whether it is sound."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fupruner.errors import InputError

Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Importance:
    """Scores of everything that can be closed.

    Attributes:
        criterion: the function that made them.
        units: (units,) predicted loss increase of closing each unit alone; they add up over a bundle.
        branches: the same for whole branches, by name.
        activations: the same for activations; those without a score are left alone.
    """

    criterion: str
    units: Scores
    branches: dict[str, float]
    activations: dict[str, float] = field(default_factory=dict)


def require_finite(scores: Scores, criterion: str) -> None:
    """Raise an ``InputError`` if a score is not a number."""
    if not np.isfinite(scores).all():
        bad = int((~np.isfinite(scores)).sum())
        raise InputError(
            f"{bad} of {len(scores)} {criterion} scores are not numbers.",
            hint="The loss or a weight is NaN or infinite; check the calibration images and the network's outputs.",
        )
