"""Which parts of a network give most: scores are corrected by what whole plans turn out to lose.

Scores of single gates do not add up: what a closed branch costs is measured with everything else in place, and much of it the
layers around it can make up for, while many channels, each cheap alone, are dear together. So plans are judged as a whole: each is
cut for real, what is left makes up for it by least squares (``compensate``), and the loss on other calibration images decides: on
the same ones every plan looks better than it is, and another one looks best. First come a few plans that differ in what all branches
weigh against channels; from the best of them on, one part after the other is made dearer or cheaper, and kept so where that helps.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import fx

from fupruner.errors import InputError
from fupruner.progress import Advance, part
from fupruner.pruning.compensate import compensate
from fupruner.pruning.factors import Factors, closed_parts, of_branches, parts, scaled
from fupruner.pruning.gates import GatedNetwork
from fupruner.pruning.importance import Importance
from fupruner.pruning.plan import GatePlan, Planner
from fupruner.pruning.slim import slim
from fupruner.training.task import CalibrationData

WEIGHTS = (1.0, 0.6, 0.35, 0.2, 0.1)
"""What the scores of all branches are multiplied by, one plan each."""
STEP = 8.0
"""By how much a single part is made dearer or cheaper: enough to change its place among all others."""
HELPS = 0.02
"""Share of the loss that another plan has to save to be taken."""
IMAGES = 256
"""Calibration images that what is left of a plan is fitted on."""
JUDGED = 512
"""Further ones that it is judged on."""


def best_factors(
    planner: Planner,
    importance: Importance,
    speedup: float,
    loss: Callable[[GatePlan], float],
    *,
    plans: int,
    weights: Sequence[float] = WEIGHTS,
) -> Factors:
    """Factors on the scores of parts whose plan for a speed-up has the least loss found when judged as a whole.

    Args:
        planner: for the network and target.
        importance: scores of gates.
        speedup: that all plans are made for.
        loss: of a plan as a whole, see ``compensated_loss``.
        plans: at most so many are made; those that close the same are judged once.
        weights: of all branches, to start from; the first wins a tie, and where no plan reaches the speed-up.
    """
    if planner.largest_speedup(importance) < speedup:
        return {}
    weights = weights[:plans] if importance.branches else weights[:1]
    with part("judge, plans", plans) as advance:
        trial = _Trial(planner, importance, speedup, loss, advance)
        starts = [trial.of(of_branches(importance.branches, weight)) for weight in weights]
        return _refined(trial, min(starts, key=lambda tried: tried.loss), plans).factors


@dataclass(frozen=True)
class _Tried:
    """A plan made with some factors; none where moves in another order end short of the speed-up."""

    factors: Factors
    plan: GatePlan | None
    loss: float


@dataclass
class _Trial:
    """Makes plans with given factors and has them judged; ``advance`` is told of each."""

    planner: Planner
    importance: Importance
    speedup: float
    loss: Callable[[GatePlan], float]
    advance: Advance
    known: dict[tuple[bytes, frozenset[str]], float] = field(default_factory=dict)
    made: int = 0

    def of(self, factors: Factors) -> _Tried:
        """One more plan; what closes the same as one before is not judged again."""
        self.made += 1
        try:
            plan = self.planner.for_speedup(scaled(self.planner, self.importance, factors), self.speedup)
        except InputError:
            return _Tried(factors, None, math.inf)
        finally:
            self.advance(1)
        if plan.key not in self.known:
            self.known[plan.key] = self.loss(plan)
        return _Tried(factors, plan, self.known[plan.key])


def _refined(trial: _Trial, best: _Tried, plans: int) -> _Tried:
    """Go through all parts, those that take most time first, until a whole round helps no more or enough plans were made."""
    every = parts(trial.planner)
    helped = True
    while helped and best.plan is not None:
        helped = False
        for name in every:
            if trial.made >= plans:
                return best
            factor = STEP if name in closed_parts(best.plan) else 1 / STEP
            tried = trial.of({**best.factors, name: factor * best.factors.get(name, 1.0)})
            if best.loss - tried.loss > HELPS * abs(best.loss):
                best, helped = tried, True
    return best


def compensated_loss(
    network: GatedNetwork, original: fx.GraphModule, task: CalibrationData, images: int = IMAGES, judged: int = JUDGED
) -> Callable[[GatePlan], float]:
    """A function from a plan to the mean loss of what is left, in nats per sample, after least squares on other images.

    The gates of the network are put back after each call. Calibration images are drawn once, at the first.

    Args:
        network: with the weights that the plan is for.
        original: the graph that it was made from, see ``compensate``.
        task: gives calibration batches and losses.
        images: calibration images to fit on, about so many.
        judged: further ones to judge on. Fewer are divided in the same ratio, by batches; a single batch serves for both.

    Raises:
        InputError: by the first call, if there are no calibration images.
    """

    @cache
    def drawn() -> tuple[list[Any], list[Any]]:
        batches = list(task.calibration_batches(images + judged))
        if not batches:
            raise InputError("There are no calibration images to judge plans by.")
        return _divided(task, batches, images / (images + judged))

    def loss(plan: GatePlan) -> float:
        fitted, others = drawn()
        inputs = (task.inputs(fitted[0])[:1],)
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
