"""Feature maps to learn from: the right layers, nothing where maps agree, only channels that are left."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fupruner.graph import shapes
from fupruner.graph.trace import trace
from fupruner.models.resolve import load_model
from fupruner.training.data import load_data
from fupruner.training.features import FeatureLoss, recorded, stage_ends
from fupruner.training.loop import train_steps
from fupruner.training.recipe import Recipe
from fupruner.training.schedule import Schedule
from fupruner.training.task import Classification


def net(width: int = 8) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(64 * width, 10))


def test_stages_of_a_cifar_network_end_with_their_last_activation():
    inputs = (torch.randn(1, 3, 32, 32),)
    graph = trace(load_model("fupruner:resnet20").module, inputs)
    shapes.propagate(graph, inputs)
    assert stage_ends(graph) == ("layer1.2.relu_1", "layer2.2.relu_1", "layer3.2.relu_1")


def test_a_network_without_maps_has_no_stages():
    inputs = (torch.randn(1, 1, 8, 8),)
    graph = trace(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), inputs)
    shapes.propagate(graph, inputs)
    assert stage_ends(graph) == ()


def test_equal_maps_cost_nothing_and_an_empty_map_costs_one():
    maps = {"a": torch.randn(2, 4, 3, 3)}
    assert FeatureLoss(maps, maps, {"a": None})().item() == 0
    assert FeatureLoss({"a": torch.zeros(2, 4, 3, 3)}, maps, {"a": None})().item() == pytest.approx(1)


def test_only_channels_that_are_left_are_compared():
    taught = torch.randn(2, 4, 3, 3)
    kept = torch.tensor([3, 1])
    assert FeatureLoss({"a": taught[:, [3, 1]]}, {"a": taught}, {"a": kept})().item() == 0
    assert FeatureLoss({"a": taught[:, [1, 3]]}, {"a": taught}, {"a": kept})().item() > 0.1


def test_no_gradient_reaches_the_teacher():
    taught, own = torch.randn(2, 4, 3, 3, requires_grad=True), torch.randn(2, 4, 3, 3, requires_grad=True)
    FeatureLoss({"a": own}, {"a": taught}, {"a": None})().backward()
    assert own.grad is not None
    assert taught.grad is None


def test_recording_ends_with_its_context():
    module = net()
    with recorded(module, ["1"]) as outputs:
        module(torch.randn(2, 1, 8, 8))
        assert outputs["1"].shape == (2, 8, 8, 8)
        outputs.clear()
    module(torch.randn(2, 1, 8, 8))
    assert outputs == {}


def test_a_student_comes_closer_to_its_teachers_maps():
    task, teacher, student = Classification(load_data("digits"), batch_size=64), net(), net(4)
    kept = torch.tensor([0, 2, 4, 6])
    images = next(iter(task.calibration_batches(64)))[0]

    def distance() -> float:
        with recorded(teacher, ["1"]) as taught, recorded(student, ["1"]) as own, torch.no_grad():
            teacher(images), student(images)
            return FeatureLoss(own, taught, {"1": kept})().item()

    before = distance()
    recipe = Recipe(precision="32-true", teacher=teacher, hints={"1": kept})
    train_steps(student, task, Schedule.over(20, 0.05), recipe=recipe)
    assert distance() < before / 2
