"""The stream of batches: over borders of epochs, divided over processes, and what happens when there is none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from fupruner.errors import InputError, TrainingError
from fupruner.training.augment import AUGMENTATIONS, AugmentName
from fupruner.training.data import ImageData, Split
from fupruner.training.parallel import World
from fupruner.training.stream import parts, stream
from fupruner.training.task import Classification


class Numbers:
    """A task of three batches an epoch, of which only what streams ask for is there."""

    steps_per_epoch = 3

    def train_batches(self, epoch: int, start: int = 0) -> Iterator[Any]:
        yield from [{"index": (epoch, index), "image": torch.ones(4)} for index in range(3)][start:]

    def inputs(self, batch: Any) -> Tensor:
        return batch["image"]


class Broken(Numbers):
    def train_batches(self, epoch: int, start: int = 0) -> Iterator[Any]:
        yield from super().train_batches(epoch, start) if epoch == 0 else []
        if epoch == 1:
            yield {"image": torch.ones(4)}
            raise OSError("cannot read img_0007.png")


class Refusing(Numbers):
    def train_batches(self, epoch: int, start: int = 0) -> Iterator[Any]:
        raise InputError("There are no images.")


def test_steps_go_over_the_borders_of_epochs() -> None:
    found = [(step, part.batch["index"]) for step, part in stream(Numbers(), 2, 7)]  # type: ignore[arg-type]
    assert found == [(2, (0, 2)), (3, (1, 0)), (4, (1, 1)), (5, (1, 2)), (6, (2, 0))]


def test_what_the_data_raises_is_said_with_its_place() -> None:
    with pytest.raises(TrainingError, match=r"Batch 1 of epoch 1 .*OSError: cannot read img_0007.png") as caught:
        list(stream(Broken(), 0, 6))  # type: ignore[arg-type]
    assert isinstance(caught.value.__cause__, OSError)


def test_too_few_batches_are_said_and_do_not_hang() -> None:
    with pytest.raises(TrainingError, match="Epoch 2 ended after 0 batches, though an epoch was said to have 3"):
        list(stream(Broken(), 6, 9))  # type: ignore[arg-type]


def test_own_errors_pass() -> None:
    with pytest.raises(InputError, match="There are no images"):
        list(stream(Refusing(), 0, 1))  # type: ignore[arg-type]


class Mixed(Numbers):
    """Its batches hold more than tensors with one entry per sample."""

    batch: Any = {"image": torch.arange(5), "labels": [torch.arange(5, 10)], "weights": torch.ones(2), "name": "x"}  # noqa: RUF012

    def train_batches(self, epoch: int, start: int = 0) -> Iterator[Any]:
        yield self.batch


def parts_of_two(task: Any) -> list[Any]:
    return [next(parts(task, 0, 0, World(rank, 2, 2))) for rank in range(2)]


def test_parts_of_a_batch_make_up_the_whole() -> None:
    first, second = parts_of_two(Mixed())
    assert (first.share, second.share) == (0.6, 0.4)
    assert first.samples == second.samples == 5
    assert torch.equal(torch.cat([first.batch["image"], second.batch["image"]]), torch.tensor([0, 2, 4, 1, 3]))
    assert torch.equal(second.batch["labels"][0], torch.tensor([6, 8]))
    assert first.batch["weights"] is Mixed.batch["weights"]
    alone = next(parts(Mixed(), 0, 0, World()))  # type: ignore[arg-type]
    assert (alone.batch, alone.samples, alone.share) == (Mixed.batch, 5, 1.0)


@pytest.mark.parametrize("augment", AUGMENTATIONS)
def test_images_are_divided_and_augmented_as_in_the_whole_batch(augment: AugmentName) -> None:
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (12, 3, 9, 8), dtype=torch.uint8, generator=random)
    split = Split(images, torch.arange(12), (0.5,) * 3, (0.25,) * 3)
    task = Classification(ImageData(split, split, tuple("abcdefghijkl"), (0.5,) * 3, (0.25,) * 3), 5, augment)
    whole = list(task.train_batches(3, 1))
    divided = [list(parts(task, 3, 1, World(rank, 2, 2))) for rank in range(2)]
    assert len(whole) == len(divided[0]) == len(divided[1]) == 1
    for (expected, labels), both in zip(whole, zip(*divided, strict=True), strict=True):
        assert [part.share for part in both] == [0.6, 0.4]
        for rank, part in enumerate(both):
            assert torch.equal(part.batch[0], expected[rank::2])
            assert torch.equal(part.batch[1], labels[rank::2])


@pytest.mark.parametrize("divides_itself", [False, True])
def test_fewer_samples_than_processes_are_refused(divides_itself: bool) -> None:
    task = Mixed()
    if divides_itself:
        task.train_parts = lambda *_: iter([({"image": torch.ones(1)}, 5)])  # type: ignore[attr-defined]
    with pytest.raises(InputError, match="A batch of 5 cannot be divided over 6 processes"):
        next(parts(task, 0, 0, World(0, 6, 6)))  # type: ignore[arg-type]
