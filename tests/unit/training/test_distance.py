"""Distances between a student's and a teacher's outputs: of maps, of several outputs, of outputs that are no logits."""

from __future__ import annotations

import pytest
import torch

from fupruner.errors import InputError
from fupruner.training.distance import distillation_loss, relative_error
from fupruner.training.outputs import lay_flat


def test_a_map_of_logits_counts_every_position_as_a_sample():
    student, teacher = torch.randn(2, 5, 3, 4), torch.randn(2, 5, 3, 4)
    rows = [x.permute(0, 2, 3, 1).reshape(-1, 5) for x in (student, teacher)]
    torch.testing.assert_close(distillation_loss(student, teacher), distillation_loss(*rows))


def test_several_outputs_count_alike():
    a, b, c, d = (torch.randn(3, 4) for _ in range(4))
    for distance in (distillation_loss, relative_error):
        torch.testing.assert_close(distance((a, c), (b, d)), (distance(a, b) + distance(c, d)) / 2)


def test_relative_error_is_0_for_the_teacher_and_1_for_nothing_at_any_scale():
    teacher = torch.randn(3, 7) * 1e3
    assert relative_error(teacher, teacher) == 0
    assert relative_error(torch.zeros(3, 7), teacher).item() == pytest.approx(1)
    assert torch.isfinite(relative_error(torch.zeros(3), torch.zeros(3)))


def test_half_precision_outputs_are_compared_in_single():
    assert distillation_loss(torch.ones(2, 3).bfloat16(), torch.ones(2, 3).bfloat16()).dtype == torch.float32


def test_outputs_that_do_not_pair_are_refused():
    with pytest.raises(InputError, match="gives 2 outputs, the teacher 1"):
        relative_error((torch.ones(1), torch.ones(1)), torch.ones(1))
    with pytest.raises(InputError, match=r"shape \(4,\) have no axis of classes"):
        distillation_loss(torch.ones(4), torch.ones(4))


def test_outputs_are_laid_flat_in_order():
    a, b, c = torch.zeros(1), torch.ones(1), torch.full((1,), 2.0)
    assert lay_flat(a) is a
    assert lay_flat([a]) is a
    assert lay_flat({"z": a, "a": [b, (c,)]}) == (a, b, c)
    with pytest.raises(InputError, match="gives a str without a tensor"):
        lay_flat("logits")
