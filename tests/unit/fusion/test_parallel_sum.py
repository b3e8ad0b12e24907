from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from helpers import fired, fused, kinds, reasons

IMAGE = (2, 4, 9, 8)


class Sum(nn.Module):
    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        y = self.branches[0](x)
        for branch in self.branches[1:]:
            y = y + branch(x)
        return torch.relu(y)


def conv(kernel: int | tuple[int, int], norm: bool = False, **options: object) -> nn.Module:
    size = (kernel, kernel) if isinstance(kernel, int) else kernel
    options.setdefault("padding", (size[0] // 2, size[1] // 2))
    layer = nn.Conv2d(4, 4, size, **options)  # type: ignore[arg-type]
    return nn.Sequential(layer, nn.BatchNorm2d(4)) if norm else layer


@pytest.mark.parametrize(
    "branches",
    [
        pytest.param((conv(3, norm=True), conv(1, norm=True), nn.BatchNorm2d(4)), id="RepVGG"),
        pytest.param((nn.BatchNorm2d(4), conv(1, norm=True), conv(3, norm=True)), id="RepVGG, norm first"),
        pytest.param((conv((1, 3)), conv((3, 1)), conv(3)), id="asymmetric"),
        pytest.param((conv(3, stride=2), conv(1, stride=2)), id="strided"),
        pytest.param((conv(3, groups=4), conv(1, groups=4), nn.Identity()), id="depthwise and identity"),
        pytest.param((conv(3, groups=2), conv(3)), id="grouped and dense"),
        pytest.param((conv(3, dilation=2, padding=2), conv(1), nn.Identity()), id="dilated and 1x1"),
        pytest.param((conv(3), nn.Identity()), id="identity"),
        pytest.param((conv(5), conv(3), conv(3)), id="three sizes"),
    ],
)
def test_branches_of_one_input_become_one_conv(branches: tuple[nn.Module, ...]) -> None:
    graph, log = fused(Sum(*branches), torch.randn(IMAGE), "basic")
    assert kinds(graph) == {"Conv2d": 1, "ReLU": 1}
    assert fired(log)["parallel-sum"] == len(branches) - 1


def test_asymmetric_pair_alone_grows_and_is_aggressive() -> None:
    make: Callable[[], nn.Module] = lambda: Sum(conv((1, 3)), conv((3, 1)))  # noqa: E731
    graph, log = fused(make(), torch.randn(IMAGE), "basic")
    assert kinds(graph)["Conv2d"] == 2
    assert "would do 1.50 times the work" in reasons(log, "parallel-sum")
    graph, _ = fused(make(), torch.randn(IMAGE), "aggressive")
    assert kinds(graph) == {"Conv2d": 1, "ReLU": 1}


@pytest.mark.parametrize(
    ("branches", "reason"),
    [
        pytest.param((conv(3, dilation=2, padding=2), conv(3)), "differ", id="dilations"),
        pytest.param((conv(3, groups=4), conv(1, groups=2, bias=False), conv(3, groups=1)), "", id="all groups divide"),
    ],
)
def test_refuses(branches: tuple[nn.Module, ...], reason: str) -> None:
    graph, log = fused(Sum(*branches), torch.randn(IMAGE), "basic")
    if reason:
        assert kinds(graph)["Conv2d"] == 2
        assert reason in reasons(log, "parallel-sum")


class Tapped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = conv(3), conv(1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.b(x)
        return (self.a(x) + y) * torch.sigmoid(y)


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = conv(3), conv(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.relu(self.a(x) + self.b(x)))


def test_refuses_branch_that_others_read() -> None:
    _, log = fused(Tapped(), torch.randn(IMAGE), "basic")
    assert "b is read by 2 operators" in reasons(log, "parallel-sum")


def test_refuses_conv_called_twice() -> None:
    _, log = fused(Shared(), torch.randn(IMAGE), "basic")
    assert "b is called more than once" in reasons(log, "parallel-sum")


class Uneven(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = conv(3, padding=0), conv(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.a(x) + self.b(x)[:, :, 1:-1, 1:-1]


def test_ignores_branch_that_is_cropped() -> None:
    graph, log = fused(Uneven(), torch.randn(IMAGE), "basic")
    assert kinds(graph)["Conv2d"] == 2
    assert not log.fired


class Doubled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = conv(3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        return y + y


def test_a_value_added_to_itself_stays_right() -> None:
    fused(Doubled(), torch.randn(IMAGE), "aggressive")
