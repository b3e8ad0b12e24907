"""Dynamic pruning: gates are decided again and again while the network trains, and frozen at a deadline."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fupruner.pruning.factors import Factors, scaled
from fupruner.pruning.gates import GatedNetwork
from fupruner.pruning.importance import Importance
from fupruner.pruning.plan import GatePlan, Planner
from fupruner.pruning.schedule import BudgetSchedule

CLEARLY = 0.1
"""Share of a plan's loss by which that of another has to be larger to count as worse: a few hundred images judge it."""
_NEXT_TO_NONE = 1e-3


@dataclass(frozen=True)
class Decision:
    """One decision about all gates.

    Attributes:
        step: the training step before which it was taken.
        asked_speedup: what the schedule asked for.
        predicted_speedup: what the plan predicts.
        closed: units and branches closed by it.
        reopened: units and branches that were closed before and are open now.
    """

    step: int
    asked_speedup: float
    predicted_speedup: float
    closed: int
    reopened: int


@dataclass(frozen=True)
class _Question:
    """What a decision is about: what closing costs, and how the gates were before."""

    step: int
    scores: Importance
    was_open: NDArray[np.bool_]
    was_closed: frozenset[str]


@dataclass
class DynamicPruning:
    """Decides gates at set steps under a tightening budget. It owns no training loop.

    Attributes:
        network: its gates are opened and closed.
        planner: makes plans from scores.
        score: takes importance with the weights as they are now.
        schedule: when to decide, and for which speed-up.
        correct: factors on the scores of parts, from scores and the speed-up in the end; asked at the first decision.
        judge: loss of what a plan would leave, as a whole. A later decision keeps the plan for the end that it finds where the new one is
            judged clearly worse: scores of single gates do not add up, least of all beside gates that are half closed. None: the new
            one counts.
        decisions: what was decided so far.
        plan: the plan in force, or None before the first decision.
        end: the plan for the end that it is a part of, likewise.
    """

    network: GatedNetwork
    planner: Planner
    score: Callable[[GatedNetwork], Importance]
    schedule: BudgetSchedule
    correct: Callable[[Importance, float], Factors] = lambda importance, speedup: {}
    judge: Callable[[GatePlan], float] | None = None
    decisions: list[Decision] = field(default_factory=list)
    plan: GatePlan | None = None
    end: GatePlan | None = None
    importance: Importance | None = None
    factors: Factors = field(default_factory=dict)
    _last: _Question | None = None

    def decide(self, step: int) -> Decision:
        """Take scores, plan for the speed-up in the end and for as much of it as the schedule asks for now, and set the gates."""
        was_open, was_closed = self.network.is_open, self.network.closed_branches
        self.importance = _average(self.importance, self.score(self.network), len(self.decisions))
        if not self.decisions:
            self.factors = self.correct(self.importance, self.schedule.speedup)
        rest = _for_the_rest(self.importance, was_open, was_closed, self.network.softness)
        self._last = _Question(step, scaled(self.planner, rest, self.factors), was_open, was_closed)
        asked = self.schedule.speedup_at(step)
        return self._decided(self._last, asked, self._towards_the_end(self._last.scores, asked))

    def decide_again(self, speedup: float) -> Decision:
        """Answer the last decision's question for another speed-up: what its plan for the end closes goes first.

        Raises:
            InputError: the speed-up is out of reach.
        """
        assert self._last is not None and self.end is not None  # noqa: S101, PT018 - something was decided
        scores = _first(self._last.scores, self.end)
        return self._decided(self._last, speedup, self.planner.for_speedup(scores, speedup))

    def adopt(self, plan: GatePlan) -> None:
        """Set the gates as a plan of the last decision has them."""
        assert self._last is not None  # noqa: S101 - something was decided
        self.network.set(plan.is_open, plan.closed_branches, self.schedule.softness_at(self._last.step))
        self.plan = plan

    def _decided(self, question: _Question, asked: float, plan: GatePlan) -> Decision:
        self.adopt(plan)
        decision = Decision(
            step=question.step,
            asked_speedup=asked,
            predicted_speedup=plan.record.baseline_ms / plan.record.predicted_ms,
            closed=int((~plan.is_open).sum()) + len(plan.closed_branches),
            reopened=int(np.sum(plan.is_open & ~question.was_open)) + len(question.was_closed - plan.closed_branches),
        )
        self.decisions.append(decision)
        return decision

    def _towards_the_end(self, scores: Importance, asked: float) -> GatePlan:
        """The part of the plan for the whole speed-up that comes first.

        What is cheapest for a small speed-up, a few channels everywhere, is not the beginning of what is cheapest for a large one, whole
        branches; and what has begun to close stays closed, because closing its rest costs little.
        """
        self.end = self._better(self.planner.for_speedup(scores, self.schedule.speedup))
        if asked >= self.schedule.speedup:
            return self.end
        return self.planner.for_speedup(_within(scores, self.end), asked)

    def _better(self, plan: GatePlan) -> GatePlan:
        """A new plan for the end, or the one so far where the new one is judged clearly worse."""
        before = self.end
        if before is None or self.judge is None or before.key == plan.key:
            return plan
        loss = self.judge(before)
        return before if self.judge(plan) - loss > CLEARLY * abs(loss) else plan


def _within(scores: Importance, plan: GatePlan) -> Importance:
    """The same scores, with a charge on everything that a plan leaves open that is dearer than all that it closes."""
    every = [*scores.branches.values(), *scores.activations.values()]
    charge = 1.0 + float(np.abs(scores.units).sum()) + sum(map(abs, every))

    def charged(named: dict[str, float]) -> dict[str, float]:
        return {name: score if name in plan.closed_branches else score + charge for name, score in named.items()}

    units = np.where(plan.is_open, scores.units + charge, scores.units)
    return Importance(scores.criterion, units, charged(scores.branches), charged(scores.activations))


def _first(scores: Importance, plan: GatePlan) -> Importance:
    """The same scores, with next to none for all that a plan closes."""

    def lowered(named: dict[str, float]) -> dict[str, float]:
        return {name: _NEXT_TO_NONE * score if name in plan.closed_branches else score for name, score in named.items()}

    units = np.where(plan.is_open, scores.units, _NEXT_TO_NONE * scores.units)
    return Importance(scores.criterion, units, lowered(scores.branches), lowered(scores.activations))


def _average(before: Importance | None, now: Importance, count: int) -> Importance:
    """Mean of the scores of all decisions so far: one snapshot of a network in motion is noisy."""
    if before is None:
        return now
    units = (count * before.units + now.units) / (count + 1)

    def averaged(old: dict[str, float], new: dict[str, float]) -> dict[str, float]:
        return {name: (count * old[name] + score) / (count + 1) for name, score in new.items()}

    activations = averaged(before.activations, now.activations)
    return Importance(now.criterion, units, averaged(before.branches, now.branches), activations)


def _for_the_rest(
    importance: Importance, is_open: NDArray[np.bool_], closed: frozenset[str], softness: float
) -> Importance:
    """What closing the rest of a closing gate costs: its loss is quadratic in the gate, so the square of what is left.

    The longer a gate has been closing, the clearer it has to pay to open it again; without this, noise in the scores
    would open and close gates at every decision.
    """
    left = softness * softness
    units = np.where(is_open, importance.units, left * importance.units)

    def rest(scores: dict[str, float]) -> dict[str, float]:
        return {name: left * score if name in closed else score for name, score in scores.items()}

    return Importance(importance.criterion, units, rest(importance.branches), rest(importance.activations))
