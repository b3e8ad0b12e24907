"""The stream of batches: over borders of epochs, divided over processes, and what happens when there is none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from fupruner.errors import InputError, TrainingError
from fupruner.training.parallel import World
from fupruner.training.stream import part_of, stream


class Numbers:
    """A task of three batches an epoch, of which only what streams ask for is there."""

    steps_per_epoch = 3

    def train_batches(self, epoch: int, start: int = 0) -> Iterator[Any]:
        yield from [(epoch, index) for index in range(3)][start:]

    def inputs(self, batch: Any) -> Tensor:
        return batch["image"]


class Broken(Numbers):
    def train_batches(self, epoch: int, start: int = 0) -> Iterator[Any]:
        yield from super().train_batches(epoch, start) if epoch == 0 else []
        if epoch == 1:
            yield (1, 0)
            raise OSError("cannot read img_0007.png")


class Refusing(Numbers):
    def train_batches(self, epoch: int, start: int = 0) -> Iterator[Any]:
        raise InputError("There are no images.")


def test_steps_go_over_the_borders_of_epochs() -> None:
    found = list(stream(Numbers(), 2, 7))  # type: ignore[arg-type]
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


def test_parts_of_a_batch_make_up_the_whole() -> None:
    batch = {"image": torch.arange(5), "labels": [torch.arange(5, 10)], "weights": torch.ones(2), "name": "x"}
    parts = [part_of(batch, Numbers(), World(rank, 2, 2)) for rank in range(2)]  # type: ignore[arg-type]
    assert [share for _, share in parts] == [0.6, 0.4]
    assert torch.equal(torch.cat([part["image"] for part, _ in parts]), torch.tensor([0, 2, 4, 1, 3]))
    assert torch.equal(parts[1][0]["labels"][0], torch.tensor([6, 8]))
    assert parts[0][0]["weights"] is batch["weights"]
    assert part_of(batch, Numbers(), World()) == (batch, 1.0)  # type: ignore[arg-type]


def test_fewer_samples_than_processes_are_refused() -> None:
    with pytest.raises(InputError, match="A batch of 1 cannot be divided over 2 processes"):
        part_of({"image": torch.ones(1)}, Numbers(), World(0, 2, 2))  # type: ignore[arg-type]
