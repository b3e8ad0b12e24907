"""Any task, from two functions of its user: the loss of a batch, and the figure to keep."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Sized
from itertools import count, islice
from typing import Any, cast, final

import torch
from torch import Tensor, nn

from fupruner.errors import FuPrunerError, InputError, TrainingError
from fupruner.progress import part
from fupruner.records import Metric
from fupruner.training.distance import Distance, relative_error
from fupruner.training.outputs import Outputs, lay_flat
from fupruner.training.seeds import mix
from fupruner.training.task import Predict, evaluating

Loss = Callable[[Predict, Any], Tensor]
"""From a model and a batch to the loss: the mean over the batch, or one figure per sample (N,)."""

_END = object()


def first_of(batch: Any) -> Tensor:
    """The first thing of a batch, or the batch itself where it is a tensor.

    Raises:
        InputError: that is no tensor.
    """
    found = batch if isinstance(batch, Tensor) else batch[0] if isinstance(batch, tuple | list) and batch else None
    if not isinstance(found, Tensor):
        raise InputError(
            f"It is not clear what of a batch ({type(batch).__name__}) goes into the network.",
            hint="Say it, like inputs=lambda batch: batch['image'].",
        )
    return found


@final
class Calibration:
    """What importance asks of data, from batches and a loss.

    Args:
        batches: without augmentation; asked for anew each time, with the random state seeded.
        loss: see ``CustomTask``.
        inputs: what of a batch goes into the network.
        place: brings a batch to where the network is.
        seed: of the order of batches.
    """

    def __init__(
        self,
        batches: Iterable[Any],
        loss: Loss,
        inputs: Callable[[Any], Tensor] = first_of,
        place: Callable[[Any], Any] = lambda batch: batch,
        seed: int = 0,
    ) -> None:
        self.batches, self.seed = batches, seed
        self._loss, self._inputs, self._place = loss, inputs, place

    def calibration_batches(self, images: int) -> Iterator[Any]:
        """Whole batches until there are so many samples, or no more.

        Raises:
            TrainingError: the data raised an error.
        """
        seen = 0
        with part("calibrate, samples", images) as advance:
            for batch in _told(_seeded(self.batches, self.seed)):
                yield self._place(batch)
                seen += len(self.inputs(batch))
                advance(len(self.inputs(batch)))
                if seen >= images:
                    return

    def inputs(self, batch: Any) -> Tensor:
        """What of a batch goes into the network."""
        return self._inputs(batch)

    def sample_losses(self, model: Predict, batch: Any) -> Tensor:
        """Loss of each sample; where only the mean is known, that for each: sum and gradient are the same.

        Raises:
            InputError: the loss is neither a scalar nor one figure per sample.
        """
        loss, samples = self._loss(model, batch), len(self.inputs(batch))
        if loss.shape not in ((), (samples,)):
            raise InputError(
                f"The loss of a batch of {samples} has the shape {tuple(loss.shape)}.",
                hint="Return the mean over the batch, a scalar, or one figure per sample.",
            )
        return loss.expand(samples)


@final
class CustomTask:
    """Segmentation, detection, regression: whatever has a loss to minimise and a figure to keep.

    In ``loss`` and ``evaluate`` the model is a function from inputs (N, ...) to what the network gives: a tensor, or a
    tuple of all its output tensors in order. During training it is a network, at the end the shipped file in its runtime.

    Args:
        train: batches of an epoch, such as a ``DataLoader``; asked for anew each epoch, with the random state seeded.
        loss: called as ``loss(model, batch)``; calls the model once and returns the mean loss of the batch, a scalar,
            or the loss of each sample, (N,). The mean has to be one over samples, so that each counts for itself.
        evaluate: called as ``evaluate(model)``; returns the figure to keep, on validation data. Higher is better.
        judge: the same on data that the search does not look at; the answer is judged by it. ``evaluate`` unless given.
        metric: its name, or a ``Metric`` with a unit.
        inputs: what of a batch goes into the network; the first thing of it unless given.
        calibration: batches without augmentation, to take scores on; ``train`` unless given.
        distance: what distillation minimises; ``relative_error`` suits any output, ``distillation_loss`` logits (N, classes, ...).
        steps_per_epoch: batches of an epoch, where ``len(train)`` does not tell.
        seed: of the order of batches.

    Raises:
        InputError: the number of batches is not known, or is 0.
    """

    def __init__(
        self,
        train: Iterable[Any],
        *,
        loss: Loss,
        evaluate: Callable[[Predict], float],
        judge: Callable[[Predict], float] | None = None,
        metric: Metric | str = Metric(),  # noqa: B008 - immutable
        inputs: Callable[[Any], Tensor] = first_of,
        calibration: Iterable[Any] | None = None,
        distance: Distance = relative_error,
        steps_per_epoch: int | None = None,
        seed: int = 0,
    ) -> None:
        steps = len(cast("Sized", train)) if steps_per_epoch is None and hasattr(train, "__len__") else steps_per_epoch
        if steps is None:
            raise InputError("How many batches an epoch has is not known.", hint="Give steps_per_epoch.")
        if steps < 1:
            raise InputError(f"An epoch has {steps} batches; it needs at least one.")
        self.train = train
        self.metric = Metric(name=metric, unit="") if isinstance(metric, str) else metric
        self.steps_per_epoch, self.seed = steps, seed
        self._loss: Loss = lambda model, batch: loss(_flat(model), batch)
        self.calibration = Calibration(train if calibration is None else calibration, self._loss, inputs, seed=seed)
        self._evaluate, self._judge, self._distance = evaluate, judge, distance

    def train_batches(self, epoch: int, start: int = 0) -> Iterator[Any]:
        """Batches of an epoch; those before ``start`` are made and passed over.

        Raises:
            InputError: an epoch ends before it has the batches that it should have.
        """
        number = -1
        for number, batch in enumerate(islice(_seeded(self.train, self.seed, epoch), self.steps_per_epoch)):
            if number >= start:
                yield batch
        if number + 1 < self.steps_per_epoch:
            raise InputError(f"Epoch {epoch} ended after {number + 1} of {self.steps_per_epoch} batches.")

    def calibration_batches(self, images: int) -> Iterator[Any]:
        """Whole batches until there are so many samples, or no more."""
        return self.calibration.calibration_batches(images)

    def inputs(self, batch: Any) -> Tensor:
        """What of a batch goes into the network."""
        return self.calibration.inputs(batch)

    def loss(self, model: Predict, batch: Any) -> Tensor:
        """Mean loss of a batch."""
        return self._loss(model, batch).mean()

    def sample_losses(self, model: Predict, batch: Any) -> Tensor:
        """Loss of each sample, or the mean loss for each; see ``Calibration``."""
        return self.calibration.sample_losses(model, batch)

    def distance(self, student: Outputs, teacher: Outputs) -> Tensor:
        """How far outputs lie from a teacher's."""
        return self._distance(student, teacher)

    def score(self, predict: Predict) -> float:
        """The figure to keep.

        Raises:
            TrainingError: it is not a finite number.
        """
        value = float(self._evaluate(_flat(predict)))
        if not math.isfinite(value):
            raise TrainingError(f"The {self.metric.name} is {value}, which is no figure to keep.")
        return value

    def evaluate(self, model: nn.Module) -> float:
        """The figure to keep, of a module in eval mode."""
        with evaluating(model) as predict:
            return self.score(predict)

    def divided(self) -> tuple[CustomTask, CustomTask]:
        """The task as it is, and judged by ``judge`` where that was given."""
        if self._judge is None:
            return self, self
        judged = copy.copy(self)
        judged._evaluate = self._judge
        return self, judged


def _flat(model: Predict) -> Predict:
    return lambda inputs: lay_flat(model(inputs))


def _told(batches: Iterator[Any]) -> Iterator[Any]:
    """The same batches; an error of the data says which batch it was."""
    for number in count():
        try:
            batch = next(batches, _END)
        except FuPrunerError:
            raise
        except Exception as error:
            raise TrainingError(
                f"Batch {number} of the calibration data cannot be had: the data raised {type(error).__name__}: {error}"
            ) from error
        if batch is _END:
            return
        yield batch


def _seeded(batches: Iterable[Any], *seed: int) -> Iterator[Any]:
    """Make each batch with torch's random state seeded for it; the state of others is put back."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(mix(*seed))
        iterator = iter(batches)
    for number in count():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(mix(*seed, number))
            batch = next(iterator, _END)
        if batch is _END:
            return
        yield batch
