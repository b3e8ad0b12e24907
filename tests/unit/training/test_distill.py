"""Distillation: nothing to learn from an equal teacher, one forward of each network, the teacher left alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fupruner.training.data import load_data
from fupruner.training.distance import distillation_loss
from fupruner.training.distill import distilled, frozen_copy
from fupruner.training.task import Classification


def test_equal_logits_give_no_loss_and_no_gradient():
    teacher = torch.randn(6, 10)
    student = (teacher + 3.0).requires_grad_()  # a constant does not change a prediction
    loss = distillation_loss(student, teacher)
    loss.backward()
    assert abs(loss.item()) < 1e-6
    assert float(student.grad.abs().max()) < 1e-6


def test_loss_is_the_divergence_of_softened_predictions():
    student, teacher = torch.randn(4, 5, dtype=torch.float64), torch.randn(4, 5, dtype=torch.float64)
    p, q = (teacher / 2).softmax(1), (student / 2).softmax(1)
    expected = 4 * (p * (p.log() - q.log())).sum(1).mean()
    assert distillation_loss(student, teacher, temperature=2).item() == pytest.approx(float(expected), rel=1e-5)


def test_gradient_moves_the_student_towards_the_teacher():
    teacher = torch.tensor([[5.0, 0.0]])
    student = torch.zeros(1, 2, requires_grad=True)
    distillation_loss(student, teacher).backward()
    assert student.grad[0, 0] < 0 < student.grad[0, 1]


def test_objective_mixes_both_parts_and_calls_each_network_once():
    task = Classification(load_data("digits"), batch_size=8)
    batch = next(iter(task.train_batches(0)))
    calls = {"student": 0, "teacher": 0}
    student, teacher = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

    def counted(name, module):
        def call(inputs):
            calls[name] += 1
            return module(inputs)

        return call

    loss = distilled(task, counted("teacher", teacher), soft_share=0.7)(counted("student", student), batch)
    expected = 0.7 * distillation_loss(student(batch[0]), teacher(batch[0])) + 0.3 * task.loss(student, batch)
    torch.testing.assert_close(loss, expected)
    assert calls == {"student": 1, "teacher": 1}
    loss.backward()
    assert student[1].weight.grad is not None
    assert teacher[1].weight.grad is None


def test_maps_count_less_the_less_of_the_training_is_left():
    task = Classification(load_data("digits"), batch_size=8)
    batch = next(iter(task.train_batches(0)))
    student, teacher = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    maps = torch.tensor(3.0)
    with_maps = distilled(task, teacher, features=lambda: maps, feature_weight=2.0)
    without = distilled(task, teacher)(student, batch)
    for left in (1.0, 0.25, 0.0):
        torch.testing.assert_close(with_maps(student, batch, left), without + 6.0 * left)


def test_frozen_copy_shares_nothing_with_the_teacher():
    teacher = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).train()
    copied = frozen_copy(teacher, "cpu")
    assert not any(parameter.requires_grad for parameter in copied.parameters())
    assert not any(module.training for module in copied.modules())
    assert all(parameter.requires_grad for parameter in teacher.parameters())
    assert all(module.training for module in teacher.modules())
    assert copied[0].weight.data_ptr() != teacher[0].weight.data_ptr()
