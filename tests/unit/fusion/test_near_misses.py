"""What looks like a rule's pattern and is not: the rule leaves it, and says why where it recognises it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from helpers import fired, fused, reasons
from strategies import Branches

X = torch.randn(2, 4, 9, 8)


class _ReadTwice(nn.Module):
    """second(first(x)) beside first(x)."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        return torch.cat([self.second(y).flatten(1), y.flatten(1)], 1)


class _Permute(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1)


WORK = "times the work"


@pytest.mark.parametrize(
    ("rule", "model", "reason"),
    [
        ("remove-no-op", nn.Sequential(nn.Flatten(2), nn.Sigmoid()), ""),
        ("merge-permutes", _ReadTwice(_Permute(), _Permute()), ""),
        ("merge-clips", _ReadTwice(nn.ReLU(), nn.ReLU6()), ""),
        ("conv-after-conv-wide", nn.Sequential(nn.Conv2d(4, 16, 1), nn.ReLU(), nn.Conv2d(16, 1, 1), nn.Conv2d(1, 16, 1)), WORK),
        (
            "parallel-sum-wide",
            Branches([nn.Conv2d(4, 4, (1, 9), padding=(0, 4)), nn.Conv2d(4, 4, (9, 1), padding=(4, 0))], "sum"),
            WORK,
        ),
        ("concat-stack-wide", Branches([nn.Conv2d(4, 16, 1), nn.Conv2d(4, 1, 5, padding=2)], "cat"), WORK),
        ("concat-stack", Branches([nn.Conv2d(4, 3, 3, padding=1), nn.Conv2d(4, 3, 3, padding=2, dilation=2)], "cat"), "dilations"),
        (
            "same-input-stack",
            Branches([nn.Sequential(nn.Conv2d(4, 4, 1), nn.Tanh()), nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.Tanh())], "sum"),
            "",
        ),
        ("conv-before-pool", nn.Sequential(nn.Conv2d(4, 4, 3), nn.AvgPool2d(3, 2, 1)), "zeros inside are not zeros outside"),
        ("conv-before-pool", nn.Sequential(nn.Conv2d(4, 4, 3), nn.AvgPool2d(2, ceil_mode=True)), "in ceil mode"),
        ("pool-as-depthwise", nn.Sequential(nn.ReLU(), nn.AvgPool2d(3, 2, 1, count_include_pad=False)), "average fewer pixels"),
        (
            "sum-of-convs",
            Branches([nn.Sequential(nn.MaxPool2d(2, ceil_mode=True), nn.Conv2d(4, 4, 3, padding=1)), nn.Conv2d(4, 4, 3, 2, 1)], "sum"),
            "read images of different sizes",
        ),
    ],
)  # fmt: skip
def test_near_miss(rule: str, model: nn.Module, reason: str) -> None:
    log = fused(model, X, "aggressive", only=[rule])[1]
    assert not fired(log)
    assert reason in reasons(log, rule)
    assert bool(reason) == bool(reasons(log, rule))
