"""The stream of batches that a training goes through, and the part of each that a process learns from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree

from fupruner.errors import FuPrunerError, InputError, TrainingError
from fupruner.training.parallel import World
from fupruner.training.task import Task


def stream(task: Task, start: int, stop: int) -> Iterator[tuple[int, Any]]:
    """Steps and their batches, over the borders of epochs.

    Raises:
        TrainingError: the task cannot give a batch that it said it has.
    """
    step = start
    while step < stop:
        epoch, offset = divmod(step, task.steps_per_epoch)
        batches = _from(task, epoch, offset)
        for index in range(offset, min(task.steps_per_epoch, offset + stop - step)):
            yield step, _next(batches, task, epoch, index)
            step += 1


def part_of(batch: Any, task: Task, world: World) -> tuple[Any, float]:
    """Every n-th sample of a batch, and which share of the batch that is; all of it where one process is alone.

    Whatever of the batch is a tensor with one entry per sample is divided; the rest is taken as it is.

    Raises:
        InputError: there are fewer samples than processes.
    """
    if world.size == 1:
        return batch, 1.0
    samples = len(task.inputs(batch))
    if samples < world.size:
        raise InputError(
            f"A batch of {samples} cannot be divided over {world.size} processes.",
            hint="Choose a larger batch size, or start fewer processes.",
        )

    def divided(value: Any) -> Any:
        if isinstance(value, Tensor) and value.dim() and len(value) == samples:
            return value[world.rank :: world.size].contiguous()
        return value

    part = pytree.tree_map(divided, batch)
    return part, len(task.inputs(part)) / samples


def _from(task: Task, epoch: int, offset: int) -> Iterator[Any]:
    yield from task.train_batches(epoch, offset)


def _next(batches: Iterator[Any], task: Task, epoch: int, index: int) -> Any:
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
