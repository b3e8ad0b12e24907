"""How much depth a plan gives for width.

Scores of single gates do not add up: what a closed branch costs is measured with everything else in place, and much of it the
layers around it can make up for, while many channels, each cheap alone, are dear together. So a few plans that differ in what
branches weigh against channels are judged as a whole: each is cut for real, what is left makes up for it by least squares
(``compensate``), and the loss on other calibration images decides: on the same ones every plan looks better than
it is, and another one looks best.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx

from fupruner.errors import InputError
from fupruner.pruning.compensate import compensate
from fupruner.pruning.gates import GatedNetwork
from fupruner.pruning.importance import Importance
from fupruner.pruning.plan import GatePlan, Planner
from fupruner.pruning.scores import weighted
from fupruner.pruning.slim import slim
from fupruner.training.task import CalibrationData

WEIGHTS = (1.0, 0.6, 0.35, 0.2, 0.1)
"""What the scores of branches are multiplied by, one plan each."""
IMAGES = 256
"""Calibration images that what is left of a plan is fitted on."""
JUDGED = 512
"""Further ones that it is judged on."""


def best_weight(
    planner: Planner,
    importance: Importance,
    speedup: float,
    loss: Callable[[GatePlan], float],
    weights: Sequence[float] = WEIGHTS,
) -> float:
    """The weight of branches whose plan for a speed-up has the least loss when judged as a whole.

    Args:
        planner: for the network and target.
        importance: scores of gates.
        speedup: that all plans are made for.
        loss: of a plan as a whole, see ``compensated_loss``.
        weights: to choose from; the first wins a tie, and where no plan reaches the speed-up.
    """
    if not importance.branches or planner.largest_speedup(importance) < speedup:
        return weights[0]
    known: dict[tuple[bytes, frozenset[str]], float] = {}
    losses = []
    for weight in weights:
        try:
            plan = planner.for_speedup(weighted(importance, weight), speedup)
        except InputError:  # moves in another order may end short of it
            losses.append(math.inf)
            continue
        if plan.key not in known:
            known[plan.key] = loss(plan)
        losses.append(known[plan.key])
    return weights[losses.index(min(losses))]


def compensated_loss(
    network: GatedNetwork, original: fx.GraphModule, task: CalibrationData, images: int = IMAGES, judged: int = JUDGED
) -> Callable[[GatePlan], float]:
    """A function from a plan to the mean loss of what is left, in nats per sample, after least squares on other images.

    The gates of the network are put back after each call.

    Args:
        network: with the weights that the plan is for.
        original: the graph that it was made from, see ``compensate``.
        task: gives calibration batches and losses.
        images: calibration images to fit on, about so many.
        judged: further ones to judge on. Fewer are divided in the same ratio, by batches; a single batch serves for both.

    Raises:
        InputError: there are no calibration images.
    """
    batches = list(task.calibration_batches(images + judged))
    if not batches:
        raise InputError("There are no calibration images to judge plans by.")
    fitted, others = _divided(task, batches, images / (images + judged))
    inputs = (task.inputs(batches[0])[:1],)

    def loss(plan: GatePlan) -> float:
        before = (network.is_open, network.closed_branches, network.softness)
        network.set(plan.is_open, plan.closed_branches)
        try:
            small = compensate(network, slim(network, inputs), original, [task.inputs(batch) for batch in fitted])
        finally:
            network.set(*before)
        with torch.no_grad():
            return float(torch.cat([task.sample_losses(small, batch).float() for batch in others]).mean())

    return loss


def _divided(task: CalibrationData, batches: list[Any], share: float) -> tuple[list[Any], list[Any]]:
    """Batches with about a share of all samples, and the others; all of them twice where there is one alone."""
    ends = list(itertools.accumulate(len(task.inputs(batch)) for batch in batches))
    first = 1 + next(i for i, end in enumerate(ends) if end >= int(share * ends[-1]))
    return batches[:first], batches[first:] or batches
