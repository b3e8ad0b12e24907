"""The stream of batches that a training goes through, and the part of each that a process learns from."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree

from fupruner.errors import FuPrunerError, InputError, TrainingError
from fupruner.training.parallel import World
from fupruner.training.task import Task


@dataclass(frozen=True)
class Part:
    """What a process learns from at a step.

    Attributes:
        batch: its samples; all of the batch where one process is alone.
        samples: how many the whole batch has.
        share: of the batch, above 0 to 1.
    """

    batch: Any
    samples: int
    share: float = 1.0


def stream(task: Task, start: int, stop: int, world: World = World()) -> Iterator[tuple[int, Part]]:  # noqa: B008 - immutable
    """Steps and this process's part of their batches, over the borders of epochs.

    A task that has a method ``train_parts`` (see ``Classification``) makes parts alone; the batches of another are divided.

    Raises, in every process:
        InputError: a batch has fewer samples than there are processes.
        TrainingError: the task cannot give a batch that it said it has.
    """
    step = start
    while step < stop:
        epoch, offset = divmod(step, task.steps_per_epoch)
        batches = parts(task, epoch, offset, world)
        for index in range(offset, min(task.steps_per_epoch, offset + stop - step)):
            yield step, world.together(functools.partial(_next, batches, task, epoch, index))
            step += 1


def parts(task: Task, epoch: int, offset: int, world: World) -> Iterator[Part]:
    """This process's part of the batches of an epoch from index ``offset`` on."""
    made = getattr(task, "train_parts", None)
    if world.size == 1:
        for batch in task.train_batches(epoch, offset):
            yield Part(batch, len(task.inputs(batch)))
    elif made is None:
        for batch in task.train_batches(epoch, offset):
            samples = len(task.inputs(batch))
            yield _part(_divided(batch, samples, world), samples, task, world)
    else:
        for part, samples in made(epoch, offset, world.rank, world.size):
            yield _part(part, samples, task, world)


def require_divisible(samples: int, world: World) -> None:
    """Refuse a batch that leaves a process without a sample.

    Raises:
        InputError: there are more processes than samples.
    """
    if samples < world.size:
        raise InputError(
            f"A batch of {samples} cannot be divided over {world.size} processes.",
            hint="Choose a larger batch size, or start fewer processes.",
        )


def _part(part: Any, samples: int, task: Task, world: World) -> Part:
    require_divisible(samples, world)
    return Part(part, samples, len(task.inputs(part)) / samples)


def _divided(batch: Any, samples: int, world: World) -> Any:
    """Every n-th sample of a batch: of whatever of it is a tensor with one entry per sample; the rest is taken as it is."""

    def divided(value: Any) -> Any:
        if isinstance(value, Tensor) and value.dim() and len(value) == samples:
            return value[world.rank :: world.size].contiguous()
        return value

    return pytree.tree_map(divided, batch)


def _next(batches: Iterator[Part], task: Task, epoch: int, index: int) -> Part:
    """The next batch, or an error that says which one could not be had."""
    try:
        return next(batches)
    except StopIteration:
        raise TrainingError(
            f"Epoch {epoch} ended after {index} batches, though an epoch was said to have {task.steps_per_epoch}.",
            hint="steps_per_epoch of the task must be the number of batches that train_batches gives.",
        ) from None
    except FuPrunerError:
        raise
    except Exception as error:
        raise TrainingError(
            f"Batch {index} of epoch {epoch} cannot be had: the data raised {type(error).__name__}: {error}"
        ) from error
