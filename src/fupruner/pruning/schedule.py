"""How the budget tightens while training goes on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class BudgetSchedule:
    """An asymptotic schedule: most of the budget is closed early, when most of the training is still to come.

    The share of the saving that is asked for after a share t of the pruning phase is 1 - (1 - t)^3, the cubic form of
    Zhu and Gupta (arXiv 1710.01878).

    Attributes:
        speedup: asked for at the end.
        first: step of the first decision.
        deadline: step of the last decision; from then on gates are frozen.
        decisions: how many decisions there are in all, evenly spaced, the last one at the deadline.
    """

    speedup: float
    first: int
    deadline: int
    decisions: int

    def steps(self) -> list[int]:
        """Steps before which gates are decided, in order."""
        if self.decisions == 1 or self.deadline <= self.first:
            return [self.deadline]
        gap = (self.deadline - self.first) / (self.decisions - 1)
        return sorted({round(self.first + i * gap) for i in range(self.decisions)})

    def softness_at(self, step: int) -> float:
        """What closed gates multiply by: falls in a straight line over the decisions, to 0 from the deadline on."""
        if step >= self.deadline:
            return 0.0
        steps = self.steps()
        return 1 - sum(1 for s in steps if s <= step) / len(steps)

    def speedup_at(self, step: int) -> float:
        """Speed-up asked for at a step: 1 before the first decision, the full one from the deadline on."""
        if step >= self.deadline:
            return self.speedup
        if step < self.first:
            return 1.0
        steps = self.steps()
        done = sum(1 for s in steps if s <= step) / len(steps)
        share = 1 - (1 - done) ** 3
        return 1 / (1 - share * (1 - 1 / self.speedup))
