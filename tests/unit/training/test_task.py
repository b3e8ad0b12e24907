"""The ready-made classification task: losses, scores, and modes that are put back."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fupruner.errors import InputError
from fupruner.models.digits import digits_resnet
from fupruner.training import task as training_task
from fupruner.training.data import ImageData, Split, load_data
from fupruner.training.task import Classification, Predict, evaluating


@pytest.fixture(scope="module")
def data() -> ImageData:
    return load_data("digits")


def test_score_of_a_callable_equals_evaluate(data):
    task = Classification(data)
    model = digits_resnet().eval()
    accuracy = task.evaluate(model)
    assert task.score(lambda images: torch.from_numpy(model(images).detach().numpy())) == accuracy
    assert 0 <= accuracy <= 100


def test_score_counts_right_answers(data):
    right = iter(data.validation.labels.split(Classification.evaluation_batch))
    assert Classification(data).score(lambda images: F.one_hot(next(right), 10).float()) == 100
    share = 100 * float((data.validation.labels == 4).float().mean())
    always_four = torch.eye(10)[4]
    assert Classification(data).score(lambda images: always_four.expand(len(images), 10)) == pytest.approx(share)


def compared(images: int, seed: int) -> tuple[Classification, Predict, Predict]:
    """A task of two classes whose images hold the answers of two networks, right for 9 and for 8 of 10 images of all there are."""
    random = torch.rand(2, images, generator=torch.Generator().manual_seed(seed))
    labels = (torch.arange(images) % 2).long()
    first, second = random[0] < 0.9, (random[0] < 0.9) ^ (random[1] < 0.2)  # mostly right on the same images
    answers = torch.stack([torch.where(right, labels, 1 - labels) for right in (first, second)], 1)
    split = Split(answers.to(torch.uint8).view(images, 1, 1, 2), labels, (0.0,), (1 / 255,))
    task = Classification(ImageData(split, split, ("a", "b"), (0.0,), (1 / 255,)))
    return task, *(lambda x, which=which: F.one_hot(x[:, 0, 0, which].long(), 2) for which in (0, 1))


def test_the_error_of_a_difference_is_how_far_differences_of_other_images_lie_apart():
    drops, errors = [], []
    for seed in range(400):
        task, before, after = compared(300, seed)
        drops.append(task.score(before) - task.score(after))
        errors.append(task.drop_error(before, after))
    drop, error = torch.tensor(drops), torch.tensor(errors)
    assert float(error.mean()) == pytest.approx(float(drop.std()), rel=0.12)  # 400 draws tell it to 4 percent
    assert float(error.std()) < 0.15 * float(error.mean())


def test_the_error_of_a_difference_is_that_of_all_images_wherever_it_is_counted(monkeypatch):
    task, before, after = compared(4000, 0)
    known = task.drop_error(before, after)
    monkeypatch.setattr(training_task, "COMPARED", 1000)
    assert task.drop_error(before, after) == pytest.approx(known, rel=0.15)
    assert 0 < task.drop_error(before, before) < known / 10


def test_evaluate_puts_modes_back_and_changes_no_statistics(data):
    model = digits_resnet().train()
    model.block1.bn1.eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    Classification(data).evaluate(model)
    assert model.training
    assert not model.block1.bn1.training
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_modes_are_put_back_after_an_error():
    model = nn.BatchNorm1d(3).train()

    def fail() -> None:
        with evaluating(model):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert model.training


def test_mean_of_sample_losses_is_the_loss(data):
    task = Classification(data, batch_size=32)
    model = digits_resnet().eval()
    batch = next(iter(task.calibration_batches(32)))
    losses = task.sample_losses(model, batch)
    assert losses.shape == (32,)
    torch.testing.assert_close(losses.mean(), task.loss(model, batch))


def test_label_smoothing_changes_the_loss_only(data):
    plain, smooth = Classification(data), Classification(data, label_smoothing=0.2)
    model = digits_resnet().eval()
    batch = next(iter(plain.train_batches(0)))
    expected = F.cross_entropy(model(batch[0]), batch[1], label_smoothing=0.2)
    torch.testing.assert_close(smooth.loss(model, batch), expected)
    torch.testing.assert_close(smooth.sample_losses(model, batch), plain.sample_losses(model, batch))


def test_batches_of_an_epoch_are_full_and_counted(data):
    task = Classification(data, batch_size=100)
    sizes = [len(task.inputs(batch)) for batch in task.train_batches(0)]
    assert sizes == [100] * task.steps_per_epoch == [100] * 14
    assert len(list(task.train_batches(0, start=10))) == 4
    assert Classification(data, batch_size=5000).steps_per_epoch == 1


def test_calibration_batches_hold_as_many_images_as_asked(data):
    task = Classification(data, batch_size=64)
    assert [len(labels) for _, labels in task.calibration_batches(150)] == [64, 64, 22]


def test_augmentation_follows_the_data_unless_given(data):
    assert Classification(data).augment == "shift"
    assert Classification(data, augment="none").augment == "none"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"batch_size": 0}, "batch size is 0"),
        ({"augment": "heavy"}, "Unknown augmentation 'heavy'"),
        ({"label_smoothing": 1.0}, "Label smoothing is 1.0"),
    ],
)
def test_unusable_options_are_refused(data, options, said):
    with pytest.raises(InputError, match=said):
        Classification(data, **options)


def test_halves_of_the_validation_images_have_nothing_in_common(data):
    task = Classification(data, batch_size=32, augment="none", seed=3)
    first, second = task.divided()
    sizes = [len(half.data.validation) for half in (first, second)]
    assert sum(sizes) == len(data.validation)
    assert abs(sizes[0] - sizes[1]) <= 1
    pixels = torch.cat([half.data.validation.images for half in (first, second)]).flatten(1)
    together, whole = (sorted(map(tuple, p.tolist())) for p in (pixels, data.validation.images.flatten(1)))
    assert together == whole
    assert first.data.train is second.data.train is data.train
    assert (first.batch_size, first.augment, first.seed) == (32, "none", 3)


def test_the_division_depends_on_the_seed_alone(data):
    def labels(seed: int) -> list[int]:
        return Classification(data, seed=seed).divided()[0].data.validation.labels.tolist()

    assert labels(1) == labels(1) != labels(2)


def test_one_validation_image_is_not_divided(data):
    single = dataclasses.replace(data, validation=data.validation.part(torch.tensor([0])))
    task = Classification(single)
    assert task.divided() == (task, task)
