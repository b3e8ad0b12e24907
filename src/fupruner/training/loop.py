"""The training loop. Whatever else happens during training happens in the functions that it is given."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from fupruner.errors import DivergedError
from fupruner.training.average import Average
from fupruner.training.learner import learning
from fupruner.training.meter import EpochResult, Meter, OnEpoch, OnStep, StepResult
from fupruner.training.optimizers import make_optimizer
from fupruner.training.parallel import World
from fupruner.training.recipe import Precision, Recipe
from fupruner.training.schedule import Schedule
from fupruner.training.seeds import mix
from fupruner.training.stream import stream
from fupruner.training.task import Task

Result = TypeVar("Result", StepResult, EpochResult)


def train(
    model: nn.Module,
    task: Task,
    *,
    epochs: int,
    learning_rate: float,
    weight_decay: float = 5e-4,
    precision: Precision = "bf16-mixed",
    seed: int = 0,
    teacher: nn.Module | None = None,
    on_step: Sequence[OnStep] = (),
    on_epoch: Sequence[OnEpoch] = (),
) -> list[EpochResult]:
    """Train a model in place over a schedule of its own; see :func:`train_steps` for arguments, results and errors."""
    schedule = Schedule.over(epochs * task.steps_per_epoch, learning_rate)
    recipe = Recipe(weight_decay, precision, seed, teacher)
    return train_steps(model, task, schedule, recipe=recipe, on_step=on_step, on_epoch=on_epoch)


def train_steps(
    model: nn.Module, task: Task, schedule: Schedule, *, start: int = 0, stop: int | None = None, recipe: Recipe = Recipe(),  # noqa: B008 - immutable
    optimizer: Optimizer | None = None, average: Average | None = None, world: World | None = None,
    on_step: Sequence[OnStep] = (), on_epoch: Sequence[OnEpoch] = (),
) -> list[EpochResult]:  # fmt: skip
    """Run steps of a schedule, in place; returns the epochs that ended.

    Step k learns from batch k of the task's stream, with the schedule's learning rate and a seed of its own for dropout. So a
    training cut in two, the second part given the optimizer and the average of the first, equals the whole. The model ends in
    the mode, layout and place in which it came, at the schedule's end with averaged weights where the recipe has an ``ema``.

    Args:
        model: a network whose parameters that require gradients are trained.
        task: gives batches and loss, and judges the model at the end of each epoch.
        schedule: learning rate by step.
        start: first step.
        stop: step before which to stop; the schedule's end if None.
        recipe: how it learns.
        optimizer: state to go on with; a fresh one, see :func:`~fupruner.training.optimizers.make_optimizer`, if None.
        average: likewise.
        world: processes that train together, each on its part of every batch; this one alone if None.
        on_step: called after each step with its result and the model.
        on_epoch: called after the last step of each epoch with its result and the model.

    Raises:
        InputError: the model has nothing to train.
        DivergedError: the loss is not a number, and the model is as it was when the epoch began.
        TrainingError: a batch cannot be had.
    """
    stop, world = schedule.steps if stop is None else stop, world or World()
    optimizer = optimizer or make_optimizer(model, recipe.weight_decay, recipe.optimizer)
    average = average or Average(model, recipe.ema)
    diary = _Diary(model, task, schedule, average, on_step, on_epoch)
    with learning(model, task, optimizer, recipe, world) as learn:
        for step, part in stream(task, start, stop, world):
            torch.manual_seed(mix(recipe.seed, step))
            diary.step(step, learn(part, schedule.learning_rate(step), schedule.left(step)), part.samples)
    if stop >= schedule.steps:
        average.settle(model)
    return diary.epochs


class _Diary:
    """Keeps count of steps and epochs, tells those who watch, and puts back the weights where the loss is no number."""

    def __init__(
        self, model: nn.Module, task: Task, schedule: Schedule, average: Average, on_step: Sequence[OnStep], on_epoch: Sequence[OnEpoch]
    ) -> None:  # fmt: skip
        self.model, self.task, self.schedule, self.average = model, task, schedule, average
        self.on_step, self.on_epoch = on_step, on_epoch
        self.epochs: list[EpochResult] = []
        self._meter, self._good = Meter(), _state(model)

    def step(self, step: int, loss: float, images: int) -> None:
        """Take in a step that was made; where it was the last of an epoch, judge the model."""
        rate, epoch = self.schedule.learning_rate(step), step // self.task.steps_per_epoch
        if not math.isfinite(loss):
            self.model.load_state_dict(self._good)
            raise _diverged(loss, step, epoch, rate)
        self.average.update(self.model)
        speed = self._meter.count(loss, images)
        _notify(self.on_step, StepResult(step, self.schedule.steps, loss, rate, speed), self.model)
        if (step + 1) % self.task.steps_per_epoch == 0:
            self._end_epoch(epoch, rate)

    def _end_epoch(self, epoch: int, rate: float) -> None:
        meter = self._meter
        seconds, mean = meter.seconds, meter.loss / meter.steps
        accuracy = self.task.evaluate(self.average.of(self.model))
        self.epochs.append(EpochResult(epoch, mean, accuracy, rate, seconds, meter.images / seconds))
        _notify(self.on_epoch, self.epochs[-1], self.model)
        self._meter, self._good = Meter(), _state(self.model)


def _notify(watchers: Sequence[Callable[[Result, nn.Module], None]], result: Result, model: nn.Module) -> None:
    for watcher in watchers:
        watcher(result, model)


def _state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def _diverged(loss: float, step: int, epoch: int, rate: float) -> DivergedError:
    return DivergedError(
        f"The loss became {loss} in epoch {epoch}, step {step} (learning rate {rate:.3g}). "
        f"The weights are back to those from before the epoch.",
        hint="Lower the learning rate, or train in float32.",
    )
