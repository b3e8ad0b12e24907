"""A task made of its user's functions: batches that repeat, losses per sample, outputs laid flat, words for bad ones."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from fupruner.errors import InputError, TrainingError
from fupruner.records import Metric
from fupruner.training.custom import CustomTask
from fupruner.training.loop import train_steps
from fupruner.training.optimizers import make_optimizer
from fupruner.training.recipe import Recipe
from fupruner.training.schedule import Schedule


def loader(count: int = 20, batch_size: int = 4) -> DataLoader:
    x = torch.arange(count, dtype=torch.float32).view(-1, 1)
    return DataLoader(TensorDataset(x, 2 * x), batch_size=batch_size, shuffle=True)


def squared(model, batch):
    return F.mse_loss(model(batch[0]), batch[1])


def task(**changed) -> CustomTask:
    return CustomTask(**{"train": loader(), "loss": squared, "evaluate": lambda model: 1.0, **changed})


def firsts(batches) -> list[float]:
    return [float(x[0]) for x, _ in batches]


def test_batches_of_an_epoch_repeat_and_differ_between_epochs_and_seeds():
    first, again, other = task(), task(), task(seed=1)
    assert first.steps_per_epoch == 5
    torch.rand(3)
    assert firsts(first.train_batches(0)) == firsts(again.train_batches(0)) == firsts(first.train_batches(0))
    assert firsts(first.train_batches(0)) != firsts(first.train_batches(1))
    assert firsts(first.train_batches(0)) != firsts(other.train_batches(0))
    assert firsts(first.train_batches(0, start=3)) == firsts(first.train_batches(0))[3:]


def test_making_batches_leaves_the_random_state_of_others_alone():
    state = torch.random.get_rng_state()
    list(task().train_batches(0))
    assert torch.equal(torch.random.get_rng_state(), state)


def test_random_augmentation_of_a_later_start_is_that_of_the_whole_epoch():
    noisy = task(train=DataLoader(_Noise(), batch_size=2))
    whole = [batch.clone() for batch in noisy.train_batches(2)]
    rest = list(noisy.train_batches(2, start=1))
    assert all(torch.equal(a, b) for a, b in zip(whole[1:], rest, strict=True))


class _Noise(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.rand(3)


@pytest.mark.parametrize("cut", [3, 5, 8])
def test_training_in_parts_equals_training_in_full(cut):
    def net():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(1, 8), nn.Dropout(0.2), nn.Linear(8, 1))

    whole, parts, schedule = net(), net(), Schedule.over(10, 1e-4)
    train_steps(whole, task(), schedule, recipe=Recipe(precision="32-true"))
    optimizer = make_optimizer(parts, 5e-4)
    train_steps(parts, task(), schedule, stop=cut, optimizer=optimizer, recipe=Recipe(precision="32-true"))
    train_steps(parts, task(), schedule, start=cut, optimizer=optimizer, recipe=Recipe(precision="32-true"))
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), parts.parameters(), strict=True))


def test_calibration_gives_whole_batches_until_there_are_enough():
    plain = task(calibration=loader(batch_size=5))
    assert [len(x) for x, _ in plain.calibration_batches(11)] == [5, 5, 5]
    assert len(list(plain.calibration_batches(1000))) == 4
    assert firsts(plain.calibration_batches(20)) == firsts(plain.calibration_batches(20))


def test_mean_loss_and_losses_per_sample_have_the_same_gradients():
    batch = next(iter(task().calibration_batches(4)))
    grads = []
    for loss in (squared, lambda model, b: F.mse_loss(model(b[0]), b[1], reduction="none").mean(1)):
        torch.manual_seed(0)
        model, made = nn.Linear(1, 1), task(loss=loss)
        losses = made.sample_losses(model, batch)
        assert losses.shape == (4,)
        torch.testing.assert_close(losses.mean(), made.loss(model, batch))
        losses.sum().backward()
        grads.append(model.weight.grad)
    torch.testing.assert_close(*grads)


def test_several_outputs_are_laid_flat_for_module_and_file_alike():
    class Two(nn.Module):
        def forward(self, x):
            return {"boxes": x, "scores": [2 * x]}

    seen = []

    def loss(model, batch):
        boxes, scores = model(batch[0])
        seen.append((boxes, scores))
        return (boxes + scores).mean()

    made = task(loss=loss, evaluate=lambda model: float(model(torch.ones(1, 1))[1]))
    made.loss(Two(), next(iter(made.train_batches(0))))
    assert torch.equal(2 * seen[0][0], seen[0][1])
    assert made.evaluate(Two()) == made.score(lambda x: (x, 2 * x)) == 2.0


def test_metric_is_a_name_or_a_name_with_a_unit():
    assert task(metric="mAP").metric == Metric(name="mAP", unit="")
    assert task(metric=Metric(name="mean IoU")).metric.unit == "%"


def test_a_figure_that_is_no_number_is_refused_by_name():
    with pytest.raises(TrainingError, match="The mAP is nan"):
        task(metric="mAP", evaluate=lambda model: float("nan")).score(lambda x: x)


def test_loss_of_another_shape_is_refused():
    made = task(loss=lambda model, batch: model(batch[0]))
    with pytest.raises(InputError, match=r"batch of 4 has the shape \(4, 1\)"):
        made.sample_losses(lambda x: x, next(iter(made.train_batches(0))))


def test_batches_that_are_dictionaries_ask_for_inputs():
    batch = {"image": torch.ones(3, 2)}
    with pytest.raises(InputError, match="not clear what of a batch"):
        task().inputs(batch)
    assert task(inputs=lambda b: b["image"]).inputs(batch).shape == (3, 2)


def test_number_of_batches_has_to_be_known_and_kept():
    with pytest.raises(InputError, match="How many batches"):
        task(train=iter([1]))
    with pytest.raises(InputError, match="has 0 batches"):
        task(train=[])
    with pytest.raises(InputError, match="Epoch 3 ended after 5 of 7 batches"):
        list(task(steps_per_epoch=7).train_batches(3))
    assert len(list(task(steps_per_epoch=2).train_batches(0))) == 2


def test_the_judge_is_asked_only_for_the_answer():
    given = task(evaluate=lambda model: 1.0, judge=lambda model: 2.0)
    search, judged = given.divided()
    assert (search.score(nn.Identity()), judged.score(nn.Identity()), given.score(nn.Identity())) == (1.0, 2.0, 1.0)
    assert firsts(search.train_batches(0)) == firsts(judged.train_batches(0))


def test_without_a_judge_nothing_is_divided():
    given = task()
    assert given.divided() == (given, given)


def test_data_that_raises_while_it_calibrates_says_which_batch():
    def batches():
        yield torch.zeros(4, 1), torch.zeros(4, 1)
        raise OSError("the drive is gone")

    class Source:
        def __iter__(self):
            return batches()

    broken = task(calibration=Source())
    with pytest.raises(
        TrainingError, match="Batch 1 of the calibration data cannot be had: the data raised OSError: the drive"
    ):
        list(broken.calibration_batches(100))
    assert len(list(broken.calibration_batches(4))) == 1
