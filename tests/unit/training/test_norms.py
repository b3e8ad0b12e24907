"""Re-estimating batch norms."""

from __future__ import annotations

import torch
from torch import nn

from fupruner.training.norms import reestimate_norms


def test_statistics_become_the_average_over_the_batches():
    model = nn.Sequential(nn.BatchNorm2d(3, momentum=0.3), nn.Dropout(0.9)).eval()
    model[0].running_mean.fill_(7)
    batches = [torch.randn(8, 3, 4, 4) * 3 + 1 for _ in range(5)]
    assert reestimate_norms(model, batches) == 1
    torch.testing.assert_close(model[0].running_mean, torch.stack([b.mean((0, 2, 3)) for b in batches]).mean(0))
    torch.testing.assert_close(model[0].running_var, torch.stack([b.var((0, 2, 3)) for b in batches]).mean(0))
    assert model[0].momentum == 0.3
    assert not any(module.training for module in model.modules())


def test_second_norm_sees_what_the_first_gives():
    model = nn.Sequential(nn.BatchNorm2d(2), nn.BatchNorm2d(2)).train()
    reestimate_norms(model, [torch.randn(64, 2, 4, 4) * 5 + 2])
    torch.testing.assert_close(model[1].running_mean, torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(model[1].running_var, torch.ones(2), atol=1e-2, rtol=0)
    assert all(module.training for module in model.modules())


def test_nothing_changes_without_batches_or_norms():
    norm = nn.BatchNorm2d(2)
    norm.running_mean.fill_(3)
    assert reestimate_norms(norm, []) == 1
    assert norm.running_mean.tolist() == [3, 3]
    assert reestimate_norms(nn.Conv2d(1, 1, 1), [torch.zeros(1, 1, 2, 2)]) == 0
