"""What training tells about itself: one result per step, one per epoch."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from torch import nn


@dataclass(frozen=True)
class StepResult:
    """One step of training, as given to ``on_step``.

    Attributes:
        step: counted from 0 over the whole schedule.
        total: steps of the whole schedule.
        loss: of the batch.
        learning_rate: of the step.
        images_per_second: since the epoch began, or since training did.
    """

    step: int
    total: int
    loss: float
    learning_rate: float
    images_per_second: float


@dataclass(frozen=True)
class EpochResult:
    """One epoch of training, as given to ``on_epoch``; averages are over the part of it that was trained here.

    Attributes:
        epoch: counted from 0 over the whole schedule.
        loss: mean of the training loss.
        accuracy: what ``task.evaluate`` gives after the epoch.
        learning_rate: of the last step.
        seconds: of training, without evaluation.
        images_per_second: of training, without evaluation.
    """

    epoch: int
    loss: float
    accuracy: float
    learning_rate: float
    seconds: float
    images_per_second: float


OnStep = Callable[[StepResult, nn.Module], None]
OnEpoch = Callable[[EpochResult, nn.Module], None]


@dataclass
class Meter:
    """Sums over the steps since it was made."""

    began: float = field(default_factory=time.perf_counter)
    loss: float = 0.0
    steps: int = 0
    images: int = 0

    def count(self, loss: float, images: int) -> float:
        """Add a step; returns images per second so far."""
        self.loss += loss
        self.steps += 1
        self.images += images
        return self.images / self.seconds

    @property
    def seconds(self) -> float:
        """Time since the meter was made, never 0."""
        return max(time.perf_counter() - self.began, 1e-9)
