"""The learning rate as a function of the step alone: phases, pauses and resumed runs all follow one curve."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """A linear warm-up to a peak, then half a cosine down to zero.

    Attributes:
        peak: highest learning rate, reached at step ``warmup``.
        steps: length of the whole training; the rate would be 0 at this step.
        warmup: steps before the peak.
    """

    peak: float
    steps: int
    warmup: int = 0

    @classmethod
    def over(cls, steps: int, peak: float, warmup_share: float = 0.05) -> Schedule:
        """A schedule of so many steps, of which a share warms up."""
        return cls(peak, steps, round(steps * warmup_share))

    def left(self, step: int) -> float:
        """Share of the training that is still to come before a step: 1 at first, 0 from the end on."""
        return max(0.0, 1 - step / self.steps)

    def learning_rate(self, step: int) -> float:
        """Learning rate of a step, counted from 0 over the whole training."""
        if step < self.warmup:
            return self.peak * (step + 1) / (self.warmup + 1)
        if step >= self.steps:
            return 0.0
        progress = (step - self.warmup) / (self.steps - self.warmup)
        return self.peak * (1 + math.cos(math.pi * progress)) / 2
