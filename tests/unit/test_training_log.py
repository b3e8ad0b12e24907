"""What an epoch is said to have come to: accuracy, predicted and measured speed-up, gates."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import nn

from fupruner.progress import Silent
from fupruner.pruning.dynamic import Decision
from fupruner.records import Metric
from fupruner.runs.scalars import Scalars
from fupruner.training.meter import EpochResult, StepResult
from fupruner.training_log import TrainingLog

NETWORK = nn.Identity()


class Lines(Silent):  # type: ignore[misc] # final for users; tests look over its shoulder
    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, line: str) -> None:
        self.lines.append(line)


class Kept(Scalars):  # type: ignore[misc]
    def __init__(self) -> None:
        self.kept: list[tuple[int, str, float]] = []

    def write(self, step: int, **figures: float) -> None:
        self.kept += [(step, name, value) for name, value in figures.items()]


def result(epoch: int) -> EpochResult:
    return EpochResult(
        epoch=epoch, loss=0.5, accuracy=90.0 + epoch, learning_rate=0.1, seconds=2.0, images_per_second=812.0
    )


def log(decisions: list[Decision]) -> tuple[TrainingLog, Lines, Kept]:
    lines, kept = Lines(), Kept()
    pruning = SimpleNamespace(decisions=decisions)
    return TrainingLog(pruning, Metric(), 3, lines, kept), lines, kept  # type: ignore[arg-type]


def test_a_line_per_epoch_with_everything_that_is_known() -> None:
    decisions = [Decision(0, 1.2, 1.21, 10, 0), Decision(5, 1.5, 1.52, 34, 2)]
    told, lines, _ = log(decisions)
    told.epoch(result(0), NETWORK)
    told.timed(1.49)
    told.stage = "recover"
    told.epoch(result(1), NETWORK)
    assert lines.lines == [
        "epoch 1 of 3 (prune): accuracy 90.00 %, speed-up 1.52x predicted, not measured yet, 34 gates closed, 2 reopened, 812 images/s",
        "epoch 2 of 3 (recover): accuracy 91.00 %, speed-up 1.52x predicted, 1.49x measured, 34 gates closed, 0 reopened, 812 images/s",
    ]


def test_history_has_epochs_with_measured_speed_ups_and_all_decisions() -> None:
    told, _, _ = log([Decision(0, 1.2, 1.21, 10, 0), Decision(5, 1.5, 1.52, 34, 2)])
    told.timed(1.4)
    told.epoch(result(0), NETWORK)
    history = told.history(2, 1.5)
    assert (history.attempt, history.asked_speedup) == (2, 1.5)
    assert [epoch.measured_speedup for epoch in history.epochs] == [1.4]
    assert [(d.step, d.closed, d.reopened) for d in history.decisions] == [(0, 10, 0), (5, 34, 2)]


def test_scalars_stand_at_their_steps() -> None:
    told, _, kept = log([])
    told.decision(Decision(0, 1.2, 1.21, 10, 1))
    told.step(StepResult(step=6, total=9, loss=0.7, learning_rate=0.1, images_per_second=9.0), NETWORK)
    told.timed(1.3)
    told.epoch(result(0), torch.nn.Identity())
    found = {name: (step, value) for step, name, value in kept.kept}
    assert found["gates/closed"] == (0, 10)
    assert found["loss/step"] == (6, 0.7)
    assert found["speed-up/measured"] == (7, 1.3)
    assert found["accuracy"] == (7, 90.0)
