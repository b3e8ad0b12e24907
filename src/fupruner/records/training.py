"""What training tells about itself."""

from __future__ import annotations

from typing import Literal

from fupruner.records.base import Record


class EpochRecord(Record):
    """One epoch of training, as printed, logged and drawn.

    Attributes:
        stage: ``prune`` while gates open and close, ``recover`` after slimming.
        accuracy: the task's metric on the validation split, in percent for accuracy.
        predicted_speedup: of the gates as they are now.
        closed: gates closed at the end of the epoch.
        reopened: gates that came back during the epoch.
        measured_speedup: of a network cut at these gates, as last timed beside the original; None before the first time.
    """

    epoch: int
    stage: Literal["prune", "recover"]
    loss: float
    accuracy: float
    predicted_speedup: float
    closed: int
    reopened: int
    learning_rate: float
    seconds: float
    images_per_second: float
    measured_speedup: float | None = None


class DecisionRecord(Record):
    """One time at which it was decided anew, during training, which gates are closed.

    Attributes:
        step: the training step before which it was taken.
        asked_speedup: what the schedule asked for.
        predicted_speedup: what the plan predicts.
        closed: gates closed by it.
        reopened: gates that were closed before and are open now.
    """

    step: int
    asked_speedup: float
    predicted_speedup: float
    closed: int
    reopened: int


class History(Record):
    """The training of one attempt at a speed-up."""

    attempt: int
    asked_speedup: float
    epochs: tuple[EpochRecord, ...]
    decisions: tuple[DecisionRecord, ...] = ()
