"""What looks like a rule's pattern and is not: the rule leaves it, and says why where it recognises it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fupruner.fusion.rules import ORDER
from helpers import fired, fused, reasons
from strategies import Arithmetic, Branches, Residual, Shuffle, Upsample

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


class _Reserving(nn.Module):
    """Two convolutions, the second of which also reads beside the centre of a channel that the first one merely carries."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(4, 5, 3, padding=1, bias=False), nn.Conv2d(5, 4, 3, padding=1)
        with torch.no_grad():
            self.first.weight[4] = 0
            self.first.weight[4, 2, 1, 1] = 1

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.relu(self.first(torch.relu(x))))


class _Tokens(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(2)


def _block(*branch: nn.Module) -> nn.Module:
    return nn.Sequential(nn.ReLU(), Residual(nn.Sequential(*branch), nn.Identity(), nn.ReLU()))


NEAR_MISSES: list[tuple[str, nn.Module, str]] = [
    ("norm-after-layer", _ReadTwice(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)), "is read by 2 operators, not by the norm alone"),
    ("affine-after-layer", _ReadTwice(nn.Conv2d(4, 4, 3), Arithmetic(4)), "is read by 2 operators"),
    ("affine-before-layer", nn.Sequential(nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, padding=1)), "it pads with zeros"),
    ("permutation-into-weights", nn.Sequential(nn.ReLU(), Shuffle(2), nn.Conv2d(4, 4, 3, groups=2)), "is grouped"),
    ("parallel-sum", Branches([nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=2, dilation=2)], "sum"), "dilations"),
    ("activation-before-pool", nn.Sequential(nn.Conv2d(4, 6, 3), nn.MaxPool2d(2), nn.LeakyReLU(-0.5)), "does not keep order"),
    ("pool-before-pointwise", nn.Sequential(nn.Conv2d(4, 6, 1), nn.AvgPool2d(3, 2, 1)), "counts zeros at the border"),
    ("upsample-into-conv", nn.Sequential(nn.ReLU(), Upsample(), nn.Conv2d(4, 6, 3, 2)), "a stride, a dilation or uneven sides"),
    ("conv-after-conv", nn.Sequential(nn.Conv2d(4, 6, 3), nn.Conv2d(6, 4, 3, padding=1)), "zeros inside are not zeros outside"),
    ("shortcut-into-filters", _block(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 2, padding="same")), "not centred"),
    (
        "preactivation-into-filters",
        nn.Sequential(nn.MaxPool2d(2), Residual(nn.Sequential(
            nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1)), nn.Identity(), nn.ReLU())),
        "does not come from an ungrouped convolution",
    ),
    ("pool-into-filters", nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(4, 6, 3, padding=1)), "zeros inside are not zeros outside"),
    ("filters-into-shortcut", _Reserving(), "it reads reserved channels beside its centre tap too"),
    ("linear-as-conv", nn.Sequential(_Tokens(), nn.Linear(72, 3)), "does not put all of an image 4x9x8 into one row"),
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
]  # fmt: skip
"""Rule, a network that it must leave alone, and a part of the reason, empty where the pattern does not even begin."""


def test_every_rule_has_a_near_miss() -> None:
    assert {rule for rule, _, _ in NEAR_MISSES} == {rule.name for rule in ORDER}


@pytest.mark.parametrize(("rule", "model", "reason"), NEAR_MISSES)
def test_near_miss(rule: str, model: nn.Module, reason: str) -> None:
    log = fused(model, X, "aggressive", only=[rule])[1]
    assert not fired(log)
    assert reason in reasons(log, rule)
    assert bool(reason) == bool(reasons(log, rule))
