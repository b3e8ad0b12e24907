"""What the user brings to training and pruning: data, a loss to minimise, a figure to keep."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fupruner.errors import InputError
from fupruner.options import Options
from fupruner.progress import counted
from fupruner.records import Metric
from fupruner.training.augment import AUGMENTATIONS, AugmentName
from fupruner.training.data import WHOLE, Batch, ImageData, Split, calibration, evenly_spaced
from fupruner.training.distance import distillation_loss
from fupruner.training.modes import device_of, modes_kept, stop_training
from fupruner.training.outputs import Outputs
from fupruner.training.seeds import generator

SHORT = 10
"""Fewer epochs than this leave no time to profit from strong augmentation."""

COMPARED = 2000
"""Images on which two networks are compared, to tell how much of a difference is chance."""

Predict = Callable[[Tensor], Any]
"""Anything from normalised inputs (N, ...) to outputs: a module, or a file that a runtime executes."""


class CalibrationData(Protocol):
    """What importance asks of data. A batch may be anything; only the task looks inside."""

    def calibration_batches(self, images: int) -> Iterable[Any]:
        """Batches of about so many training images in all, not augmented, the same ones each time."""

    def inputs(self, batch: Any) -> Tensor:
        """What of a batch goes into the network, the batch axis first."""

    def sample_losses(self, model: Predict, batch: Any) -> Tensor:
        """Loss of each sample (N,), without regularisation; the model is called exactly once."""


class Task(CalibrationData, Protocol):
    """What the pipeline asks of a task. :class:`training.custom.CustomTask` makes one from a loss and a metric.

    It may have ``drop_error`` and ``train_parts``, too: see :class:`Classification`.
    """

    @property
    def metric(self) -> Metric:
        """Name and unit of what ``score`` gives."""

    @property
    def steps_per_epoch(self) -> int:
        """Batches of an epoch."""

    def train_batches(self, epoch: int, start: int = 0) -> Iterable[Any]:
        """Batches of an epoch from index ``start`` on; the same ones for the same epoch."""

    def loss(self, model: Predict, batch: Any) -> Tensor:
        """Mean loss of a batch, a scalar; the model is called exactly once."""

    def distance(self, student: Outputs, teacher: Outputs) -> Tensor:
        """How far outputs lie from a teacher's, a scalar; distillation minimises it."""

    def score(self, predict: Predict) -> float:
        """The figure to keep, on validation data; in percent for accuracy, higher is better."""

    def evaluate(self, model: nn.Module) -> float:
        """``score`` of a module in eval mode; its mode is put back."""

    def divided(self) -> tuple[Task, Task]:
        """The same task twice, with parts of the validation data that have nothing in common.

        A search looks at the first, and its answer is judged by the second. Where there is nothing to divide, it is the
        task itself both times.
        """


@final
class Classification:
    """Images to classes: cross-entropy to minimise, top-1 accuracy to keep.

    Args:
        data: images and labels.
        batch_size: images per training step.
        augment: name of the augmentation; the one that suits the data if None.
        seed: of shuffling, augmentation and the choice of calibration images.
        label_smoothing: part of the target that is spread over all classes, 0 to below 1.

    Raises:
        InputError: an option is out of range.
    """

    evaluation_batch = 250
    metric = Metric()

    def __init__(
        self,
        data: ImageData,
        batch_size: int = 128,
        augment: AugmentName | None = None,
        seed: int = 0,
        label_smoothing: float = 0.0,
    ) -> None:
        if batch_size < 1:
            raise InputError(f"The batch size is {batch_size}; it must be 1 or more.")
        if augment is not None and augment not in AUGMENTATIONS:
            raise InputError(f"Unknown augmentation {augment!r}.", hint=f"Known: {', '.join(AUGMENTATIONS)}.")
        if not 0 <= label_smoothing < 1:
            raise InputError(f"Label smoothing is {label_smoothing}; it must lie in 0 to below 1.")
        self.data = data
        self.batch_size = batch_size
        self.augment: AugmentName = augment or data.augment
        self.seed = seed
        self.label_smoothing = label_smoothing

    @property
    def steps_per_epoch(self) -> int:
        """Full batches in the training split, at least one."""
        return max(1, len(self.data.train) // self.batch_size)

    @property
    def images_per_step(self) -> int:
        """As many as asked for, or all that there are."""
        return min(self.batch_size, len(self.data.train))

    def train_batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Shuffled and augmented batches of one size; what is left at the end of an epoch is passed over."""
        return self._train_batches(epoch, start)

    def train_parts(self, epoch: int, start: int, rank: int, size: int) -> Iterator[tuple[Batch, int]]:
        """Of each of these batches every ``size``-th image, beginning at ``rank``, and how many the batch has in all."""
        return ((part, self.images_per_step) for part in self._train_batches(epoch, start, slice(rank, None, size)))

    def calibration_batches(self, images: int) -> Iterator[Batch]:
        """Batches of up to ``images`` training images in all, not augmented."""
        inputs, labels = calibration(self.data.train, images, self.seed)
        batches = zip(torch.split(inputs, self.batch_size), torch.split(labels, self.batch_size), strict=True)
        return counted(batches, "calibrate, images", len(inputs), _images)

    def inputs(self, batch: Batch) -> Tensor:
        """The images of a batch."""
        return batch[0]

    def loss(self, model: Predict, batch: Batch) -> Tensor:
        """Mean cross-entropy in nats, with label smoothing."""
        images, labels = batch
        return F.cross_entropy(model(images), labels, label_smoothing=self.label_smoothing)

    def sample_losses(self, model: Predict, batch: Batch) -> Tensor:
        """Cross-entropy of each image in nats."""
        images, labels = batch
        return F.cross_entropy(model(images), labels, reduction="none")

    def distance(self, student: Outputs, teacher: Outputs) -> Tensor:
        """Divergence of softened predictions, in nats."""
        return distillation_loss(student, teacher)

    def score(self, predict: Predict) -> float:
        """Top-1 accuracy on the validation split in percent."""
        correct = 0
        batches = self.data.validation.batches(self.evaluation_batch)
        for images, labels in counted(batches, "judge, images", len(self.data.validation), _images):
            correct += int((predict(images).argmax(1).cpu() == labels).sum())
        return 100.0 * correct / len(self.data.validation)

    def drop_error(self, before: Predict, after: Predict) -> float:
        """Standard error, in points, of what is lost in accuracy between two networks that were judged on the validation split.

        Both saw the same images, so only those make it that one of the two alone gets right: where they are a share p of N
        images and the one network has d more of them than the other, as a share, it is sqrt((p - d^2) / N). Both shares are taken
        on up to ``COMPARED`` images. Half an image is added to each of the four cases, so that it is not 0 where they happen to
        have no such image (Agresti and Min, Statistics in Medicine 24, 2005).
        """
        split = self.data.validation
        chosen = evenly_spaced(len(split), COMPARED)
        lost = gained = 0
        for images, labels in split.part(chosen).batches(self.evaluation_batch):
            was, now = (predict(images).argmax(1).cpu() == labels for predict in (before, after))
            lost, gained = lost + int((was & ~now).sum()), gained + int((now & ~was).sum())
        share, more = (lost + gained + 1) / (len(chosen) + 2), (lost - gained) / (len(chosen) + 2)
        return 100 * math.sqrt((share - more**2) / len(split))

    def evaluate(self, model: nn.Module) -> float:
        """Top-1 accuracy of a module on the validation split in percent."""
        with evaluating(model) as predict:
            return self.score(predict)

    def divided(self) -> tuple[Classification, Classification]:
        """The task with one half of the validation images, drawn by the seed, and with the other half."""
        count = len(self.data.validation)
        if count < 2:
            return self, self
        order = torch.randperm(count, generator=generator(self.seed, count))
        halves = (order[: count // 2].sort().values, order[count // 2 :].sort().values)
        first, second = (self._judged_by(self.data.validation.part(indices)) for indices in halves)
        return first, second

    def _train_batches(self, epoch: int, start: int, part: slice = WHOLE) -> Iterator[Batch]:
        return self.data.train.batches(
            self.batch_size,
            shuffle=True,
            seed=self.seed,
            epoch=epoch,
            augment=self.augment,
            start=start,
            drop_last=True,
            part=part,
        )

    def _judged_by(self, validation: Split) -> Classification:
        data = dataclasses.replace(self.data, validation=validation)
        return Classification(data, self.batch_size, self.augment, self.seed, self.label_smoothing)


def drop_error(task: Task, before: Predict, after: Predict) -> float | None:
    """Standard error of what is lost of a task's figure between two networks; None where the task has no ``drop_error`` to tell it."""
    counted = getattr(task, "drop_error", None)
    return None if counted is None else counted(before, after)


def _images(batch: Batch) -> int:
    return len(batch[0])


def labelled_images(data: ImageData, options: Options) -> Classification:
    """The classification of images that the options ask for."""
    augment = suitable_augmentation(data, options.epochs) if options.augment == "auto" else options.augment
    return Classification(data, options.batch_size, augment, options.seed, options.label_smoothing)


def suitable_augmentation(data: ImageData, epochs: int) -> AugmentName:
    """What suits the images, without shifts in a short schedule."""
    return "light" if data.augment == "standard" and epochs < SHORT else data.augment


def cautions(task: Task, max_drop: float) -> list[str]:
    """What makes a run on this data coarser than its user may think, in words."""
    if not isinstance(task, Classification):
        return []
    found, images, judged = [], len(task.data.train), max(1, len(task.data.validation) // 2)
    if task.batch_size > images:
        found.append(
            f"A batch of {task.batch_size} is larger than the {images} training images: every epoch is one step with all of them."
        )
    if 100 / judged > max_drop > 0:
        found.append(
            f"Accuracy is judged on {judged} of {len(task.data.validation)} validation images: one image more or less is "
            f"{100 / judged:.3g} points, so that a drop of {max_drop:g} cannot be told."
        )
    return found


@contextmanager
def evaluating(model: nn.Module) -> Iterator[Predict]:
    """A module as a function on its own device, in eval mode and without gradients; its modes are put back."""
    device = device_of(model)
    with modes_kept(model), torch.inference_mode():
        stop_training(model)
        yield lambda inputs: model(inputs.to(device))


QUANTISATION_IMAGES = 128
PROOF_IMAGES = 4
"""Images of the user's own on which a rewritten network is compared in float64, beside random ones."""


def calibration_images(task: CalibrationData) -> Callable[[], Tensor]:
    """Training images of a task (N, ...), on the CPU, for what has to be calibrated before it ships."""

    def images() -> Tensor:
        return torch.cat([task.inputs(batch).detach().cpu() for batch in task.calibration_batches(QUANTISATION_IMAGES)])

    return images


def proof_inputs(task: CalibrationData) -> list[tuple[Tensor, ...]]:
    """A few training images of a task, as inputs on which a rewritten network is to be proved."""
    images = torch.cat([task.inputs(batch).detach().cpu() for batch in task.calibration_batches(PROOF_IMAGES)])
    return [(images[:PROOF_IMAGES],)]
