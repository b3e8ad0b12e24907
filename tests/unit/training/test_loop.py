"""The training loop: it learns, it can be cut anywhere, it stops at nonsense, it leaves others' things alone."""

from __future__ import annotations

import copy
import subprocess
import sys

import pytest
import torch
from torch import nn

from fupruner.errors import InputError, TrainingError
from fupruner.models.resolve import load_model
from fupruner.training.average import Average
from fupruner.training.data import ImageData, load_data
from fupruner.training.loop import train, train_steps
from fupruner.training.meter import EpochResult
from fupruner.training.optimizers import make_optimizer
from fupruner.training.recipe import Recipe, supported
from fupruner.training.schedule import Schedule
from fupruner.training.task import Classification


@pytest.fixture(scope="module")
def data() -> ImageData:
    return load_data("digits")


@pytest.fixture
def task(data) -> Classification:
    return Classification(data, batch_size=128)  # 11 steps an epoch


def small_net(dropout: float = 0.0) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(dropout), nn.Flatten(), nn.Linear(288, 10)
    )


def same_state(first: nn.Module, second: nn.Module) -> bool:
    other = second.state_dict()
    return all(torch.equal(value, other[key]) for key, value in first.state_dict().items())


@pytest.fixture(scope="module")
def trained(data) -> tuple[nn.Module, list[EpochResult]]:
    model = load_model("fupruner:digits_resnet").module
    return model, train(model, Classification(data, batch_size=64), epochs=5, learning_rate=0.05)


def test_training_on_digits_reaches_97_percent(data, trained):
    model, results = trained
    assert [result.epoch for result in results] == list(range(5))
    assert results[-1].accuracy > 97
    assert results[-1].accuracy > results[0].accuracy
    assert results[-1].loss < results[0].loss / 5
    assert results[-1].accuracy == Classification(data).evaluate(model)


def test_learning_from_a_teacher_leaves_it_alone(data, trained):
    teacher = trained[0]
    before = copy.deepcopy(teacher)
    results = train(small_net(), Classification(data), epochs=5, learning_rate=0.1, teacher=teacher)
    assert results[-1].accuracy > 85
    assert same_state(teacher, before)
    assert all(parameter.requires_grad and parameter.grad is None for parameter in teacher.parameters())


@pytest.mark.parametrize("cut", [5, 11, 15])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_training_in_parts_equals_training_in_full(task, cut, precision):
    schedule = Schedule.over(22, 0.05)
    whole, parts = small_net(dropout=0.3), small_net(dropout=0.3)
    train_steps(whole, task, schedule, recipe=Recipe(precision=precision))
    optimizer = make_optimizer(parts, 5e-4)
    train_steps(parts, task, schedule, stop=cut, optimizer=optimizer, recipe=Recipe(precision=precision))
    torch.rand(7)  # what happens in between does not matter
    train_steps(parts, task, schedule, start=cut, optimizer=optimizer, recipe=Recipe(precision=precision))
    assert same_state(whole, parts)


def test_a_resumed_optimizer_continues_from_its_saved_state(task, tmp_path):
    schedule = Schedule.over(12, 0.05)
    whole, first = small_net(), small_net()
    train_steps(whole, task, schedule)
    optimizer = make_optimizer(first, 5e-4)
    train_steps(first, task, schedule, stop=6, optimizer=optimizer)
    torch.save({"model": first.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "state.pt")
    saved = torch.load(tmp_path / "state.pt", weights_only=True)
    second = small_net()
    second.load_state_dict(saved["model"])
    resumed = make_optimizer(second, 5e-4)
    resumed.load_state_dict(saved["optimizer"])
    train_steps(second, task, schedule, start=6, optimizer=resumed)
    assert same_state(whole, second)


def test_the_average_ends_in_the_model_and_is_what_epochs_are_judged_by(task):
    model, states, judged = small_net(), [], []
    train_steps(
        model, task, Schedule.over(22, 0.3), recipe=Recipe(ema=0.9, precision="32-true"),
        on_step=[lambda _, given: states.append(copy.deepcopy(given.state_dict()))],
        on_epoch=[lambda result, given: judged.append((result.accuracy, task.evaluate(given)))],
    )  # fmt: skip
    expected = states[0]
    for count, state in enumerate(states[1:], start=1):
        decay = min(0.9, (1 + count) / (10 + count))
        expected = {name: decay * expected[name] + (1 - decay) * value for name, value in state.items()}
    found = model.state_dict()
    for name in ("0.weight", "1.running_var", "5.bias"):
        torch.testing.assert_close(found[name], expected[name], rtol=1e-5, atol=1e-6, msg=name)
        assert not torch.equal(found[name], states[-1][name])
    assert judged[-1][0] == task.evaluate(model)
    assert judged[-1][0] != judged[-1][1]


@pytest.mark.parametrize("cut", [4, 11])
def test_training_with_an_average_in_parts_equals_that_in_full(task, cut, tmp_path):
    schedule, recipe = Schedule.over(15, 0.05), Recipe(ema=0.9)
    whole, first, second = small_net(), small_net(), small_net()
    train_steps(whole, task, schedule, recipe=recipe)
    optimizer, average = make_optimizer(first, 5e-4), Average(first, 0.9)
    train_steps(first, task, schedule, stop=cut, recipe=recipe, optimizer=optimizer, average=average)
    state = {"model": first.state_dict(), "optimizer": optimizer.state_dict(), "average": average.state_dict()}
    torch.save(state, tmp_path / "state.pt")
    saved = torch.load(tmp_path / "state.pt", weights_only=True)
    second.load_state_dict(saved["model"])
    optimizer, average = make_optimizer(second, 5e-4), Average(second, 0.9)
    optimizer.load_state_dict(saved["optimizer"])
    average.load_state_dict(saved["average"])
    train_steps(second, task, schedule, start=cut, recipe=recipe, optimizer=optimizer, average=average)
    assert same_state(whole, second)


def test_without_a_decay_there_is_no_average(task):
    model, plain = small_net(), small_net()
    average = Average(model, 0.0)
    assert average.of(model) is model
    assert average.state_dict() == {}
    train_steps(model, task, Schedule.over(5, 0.05), average=average)
    train_steps(plain, task, Schedule.over(5, 0.05))
    assert same_state(model, plain)


def test_a_phase_on_another_network_continues_the_schedule(task):
    schedule = Schedule(0.05, 20, 2)
    rates = []
    for model, start, stop in ((small_net(), 0, 8), (load_model("fupruner:digits_resnet").module, 8, 20)):
        train_steps(model, task, schedule, start=start, stop=stop, on_step=[lambda r, _: rates.append(r.learning_rate)])
    assert rates == [schedule.learning_rate(step) for step in range(20)]


def test_hooks_are_called_in_order_with_the_model_itself(task):
    model, calls = small_net(), []
    train_steps(
        model,
        task,
        Schedule.over(24, 0.01),
        start=9,
        stop=23,
        on_step=[lambda result, given: calls.append((result.step, result.total, given is model))],
        on_epoch=[lambda result, given: calls.append(("epoch", result.epoch, given is model))],
    )
    steps = [(step, 24, True) for step in range(9, 23)]
    assert calls == [*steps[:2], ("epoch", 0, True), *steps[2:13], ("epoch", 1, True), *steps[13:]]


def test_a_hook_may_change_the_weights(task):
    model = small_net()

    def close(_result, given):
        with torch.no_grad():
            given[0].weight[3] = 0

    train_steps(model, task, Schedule.over(5, 0.05), on_step=[close])
    assert model[0].weight[3].abs().sum() == 0
    assert model[0].weight[2].abs().sum() > 0


def test_module_comes_back_in_its_mode_layout_and_without_gradients(task):
    model = small_net().eval()
    model[1].train()
    train_steps(model, task, Schedule.over(2, 0.05))
    assert [module.training for module in model] == [False, True, False, False, False, False]
    assert model[0].weight.is_contiguous()
    assert all(parameter.grad is None for parameter in model.parameters())


def test_training_leaves_the_random_state_of_others_alone(task):
    model = small_net(dropout=0.5)
    state = torch.random.get_rng_state()
    train_steps(model, task, Schedule.over(2, 0.05))
    assert torch.equal(torch.random.get_rng_state(), state)


def test_loss_that_is_no_number_stops_and_puts_the_epoch_back(task):
    model = small_net()
    at_epoch = []

    def poison(result, given):
        if result.step == 14:
            with torch.no_grad():
                given[5].bias[0] = float("nan")

    hooks = {"on_step": [poison], "on_epoch": [lambda _, given: at_epoch.append(copy.deepcopy(given))]}
    with pytest.raises(TrainingError, match=r"The loss became nan in epoch 1, step 15 \(learning rate") as caught:
        train_steps(model, task, Schedule.over(33, 0.01), **hooks)
    assert "Lower the learning rate" in str(caught.value)
    assert same_state(model, at_epoch[0])
    assert model[0].weight.is_contiguous()


def test_frozen_parameters_stay_and_a_frozen_model_is_refused(task):
    model = small_net()
    model[0].requires_grad_(False)
    before = model[0].weight.clone()
    train_steps(model, task, Schedule.over(3, 0.1))
    assert torch.equal(model[0].weight, before)
    with pytest.raises(InputError, match="nothing to train"):
        train_steps(model.requires_grad_(False), task, Schedule.over(3, 0.1))


def test_bf16_falls_back_where_the_processor_would_emulate_it(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    assert supported("bf16-mixed") == "32-true"
    assert supported("32-true") == "32-true"


def test_importing_training_imports_no_reader_of_data():
    code = "import sys, fupruner.training.loop, fupruner.models.resolve; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert not set(done.stdout.split()) & {"datasets", "sklearn", "torchvision", "timm", "pandas"}
