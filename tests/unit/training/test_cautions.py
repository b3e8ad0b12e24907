"""Data on which a run is coarser than its user may think."""

from __future__ import annotations

import torch

from fupruner.training.custom import CustomTask
from fupruner.training.data import ImageData, Split
from fupruner.training.task import Classification, cautions


def task(train: int, validation: int, batch_size: int) -> Classification:
    def split(count: int) -> Split:
        return Split(torch.zeros(count, 1, 4, 4, dtype=torch.uint8), torch.arange(count) % 2, (0.5,), (0.5,))

    data = ImageData(split(train), split(validation), ("a", "b"), (0.5,), (0.5,))
    return Classification(data, batch_size=batch_size)


def test_enough_data_is_not_commented_on():
    assert cautions(task(100, 400, 100), 0.5) == []
    assert cautions(task(100, 2, 100), 0.0) == []  # not one image may be lost, and that can be told


def test_batch_larger_than_the_data_is_one_step_with_all_of_it():
    big = task(100, 400, 101)
    assert cautions(big, 0.5) == [
        "A batch of 101 is larger than the 100 training images: every epoch is one step with all of them."
    ]
    assert [len(images) for images, _ in big.train_batches(0)] == [100]


def test_validation_set_of_one_image_is_said_to_tell_little():
    one = task(100, 1, 10)
    assert one.divided() == (one, one)
    (line,) = cautions(one, 1.0)
    assert (
        "judged on 1 of 1 validation images: one image more or less is 100 points, so that a drop of 1 cannot" in line
    )


def test_other_tasks_are_not_looked_into():
    found = CustomTask([torch.zeros(1)], loss=lambda model, batch: model(batch), evaluate=lambda model: 0.0)
    assert cautions(found, 1.0) == []
