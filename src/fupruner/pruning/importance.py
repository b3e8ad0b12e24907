"""Importance: the predicted increase of the loss when a gate closes. One function per criterion, all of the same form.

``fisher`` and ``taylor`` speak in nats per sample and cover channels and branches in one currency. The others need no
data; their scores are shares of a layer, so they order gates but are no prediction of the loss.
"""

from __future__ import annotations

from collections.abc import Callable

from fupruner.errors import unknown_name
from fupruner.pruning.gates import GatedNetwork
from fupruner.pruning.gradient_criteria import branch_losses, fisher, taylor
from fupruner.pruning.scores import Importance, Scores
from fupruner.pruning.weight_criteria import bn_scale, geometric_median, l1, l2, random
from fupruner.training.task import CalibrationData

Criterion = Callable[[GatedNetwork, CalibrationData | None, int], Importance]

CRITERIA: dict[str, Criterion] = {
    "fisher": fisher, "taylor": taylor, "l1": l1, "l2": l2, "geometric-median": geometric_median, "bn-scale": bn_scale, "random": random,
}  # fmt: skip
"""Criteria by name: from a network, a task (None without data) and a number of calibration images to scores."""
NEEDS_DATA = frozenset({"fisher", "taylor"})


def criterion(name: str) -> Criterion:
    """The criterion of a name.

    Raises:
        InputError: there is none; the message names the nearest.
    """
    if name not in CRITERIA:
        raise unknown_name("importance", name, CRITERIA)
    return CRITERIA[name]


__all__ = [
    "CRITERIA", "NEEDS_DATA", "Criterion", "Importance", "Scores", "bn_scale", "branch_losses", "criterion", "fisher", "geometric_median",
    "l1", "l2", "random", "taylor",
]  # fmt: skip
