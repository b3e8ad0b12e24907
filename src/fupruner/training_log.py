"""What the training of an attempt tells: lines and figures on the screen, records for the run folder, scalars for TensorBoard."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Literal

from torch import nn

from fupruner.progress import Progress
from fupruner.pruning.dynamic import Decision, DynamicPruning
from fupruner.records import DecisionRecord, EpochRecord, History, Metric
from fupruner.runs.scalars import Scalars
from fupruner.training.meter import EpochResult, StepResult


@dataclass
class TrainingLog:
    """Turns what training and pruning come to into records, lines and scalars.

    Attributes:
        pruning: decides about gates.
        metric: name and unit of the figure that epochs are judged by.
        epochs_planned: of the attempt.
        progress: told of steps, decisions and epochs.
        scalars: told of the same.
        stage: ``prune`` while gates open and close, ``recover`` after slimming.
        measured: speed-up of the network cut at the gates that are in force, where it was timed.
        epochs: records so far.
    """

    pruning: DynamicPruning
    metric: Metric
    epochs_planned: int
    progress: Progress
    scalars: Scalars
    stage: Literal["prune", "recover"] = "prune"
    measured: float | None = None
    epochs: list[EpochRecord] = field(default_factory=list)
    _seen: int = 0
    _step: int = 0

    def step(self, result: StepResult, _: nn.Module) -> None:
        """Tell of a training step."""
        self._step = result.step + 1
        self.progress.advance(1, loss=result.loss, images_per_second=result.images_per_second)
        self.scalars.write(result.step, **{"loss/step": result.loss, "learning rate": result.learning_rate})

    def decision(self, decision: Decision) -> None:
        """Tell of a decision about all gates."""
        self.progress.note(
            f"step {decision.step}: {decision.predicted_speedup:.2f}x predicted, "
            f"{decision.closed} gates closed, {decision.reopened} reopened"
        )
        self.scalars.write(
            decision.step,
            **{
                "gates/closed": decision.closed, "gates/reopened": decision.reopened, "speed-up/asked": decision.asked_speedup,
                "speed-up/predicted": decision.predicted_speedup,
            },
        )  # fmt: skip

    def timed(self, speedup: float) -> float:
        """Take in a measured speed-up of the gates in force, and hand it back."""
        self.measured = speedup
        self.scalars.write(self._step, **{"speed-up/measured": speedup})
        return speedup

    def epoch(self, result: EpochResult, _: nn.Module) -> None:
        """Keep and tell what an epoch came to."""
        decisions = self.pruning.decisions
        last = decisions[-1] if decisions else None
        record = EpochRecord(
            epoch=result.epoch + 1, stage=self.stage, loss=result.loss, accuracy=result.accuracy,
            predicted_speedup=last.predicted_speedup if last else 1.0, closed=last.closed if last else 0,
            reopened=sum(d.reopened for d in decisions[self._seen :]), learning_rate=result.learning_rate, seconds=result.seconds,
            images_per_second=result.images_per_second, measured_speedup=self.measured,
        )  # fmt: skip
        self._seen = len(decisions)
        self.epochs.append(record)
        self.progress.note(self._line(record))
        self.scalars.write(
            self._step,
            **{
                self.metric.name: record.accuracy, "loss/epoch": record.loss, "images per second": record.images_per_second,
            },
        )  # fmt: skip

    def history(self, attempt: int, asked: float) -> History:
        """The record of the attempt's training."""
        decisions = tuple(DecisionRecord(**asdict(decision)) for decision in self.pruning.decisions)
        return History(attempt=attempt, asked_speedup=asked, epochs=tuple(self.epochs), decisions=decisions)

    def _line(self, record: EpochRecord) -> str:
        measured = "not measured yet" if record.measured_speedup is None else f"{record.measured_speedup:.2f}x measured"
        return (
            f"epoch {record.epoch} of {self.epochs_planned} ({record.stage}): {self.metric.name} {self.metric.text(record.accuracy)}, "
            f"speed-up {record.predicted_speedup:.2f}x predicted, {measured}, "
            f"{record.closed} gates closed, {record.reopened} reopened, {record.images_per_second:.0f} images/s"
        )
