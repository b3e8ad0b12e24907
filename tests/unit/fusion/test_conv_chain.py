from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from helpers import fired, fused, kinds, reasons

IMAGE = (2, 4, 11, 10)


@pytest.mark.parametrize(
    "layers",
    [
        pytest.param((nn.Conv2d(4, 8, 3, padding=1), nn.Conv2d(8, 2, 1)), id="3x3 then 1x1"),
        pytest.param((nn.Conv2d(4, 8, 3, stride=2, padding=1), nn.Conv2d(8, 2, 1, stride=2)), id="both strided"),
        pytest.param(
            (nn.Conv2d(4, 16, 1, bias=False), nn.Conv2d(16, 4, 3, padding=1)), id="1x1 without bias then padded 3x3"
        ),
        pytest.param((nn.Conv2d(4, 16, 1), nn.Conv2d(16, 4, 3, dilation=2)), id="1x1 then dilated"),
        pytest.param((nn.Conv2d(4, 32, 3, dilation=2, padding=2), nn.Conv2d(32, 4, 1)), id="dilated then 1x1"),
        pytest.param((nn.Conv2d(4, 8, 1, groups=2), nn.Conv2d(8, 4, 3, groups=2)), id="equal groups"),
        pytest.param((nn.Conv2d(4, 8, 3, groups=4), nn.Conv2d(8, 8, 1, groups=8)), id="groups that divide"),
        pytest.param((nn.Conv2d(4, 64, 2, stride=2), nn.Conv2d(64, 4, 2)), id="2x2 strided then 2x2"),
        pytest.param((nn.Conv2d(4, 64, (1, 3)), nn.Conv2d(64, 4, (3, 1))), id="asymmetric"),
    ],
)
def test_convs_in_a_row_merge(layers: tuple[nn.Module, nn.Module]) -> None:
    graph, log = fused(nn.Sequential(*layers), torch.randn(IMAGE), "basic", torch.randn(2, 4, 14, 17))
    assert fired(log) == {"conv-after-conv": 1}
    assert kinds(graph) == {"Conv2d": 1}


def test_linear_layers_in_a_row_merge() -> None:
    graph, _ = fused(nn.Sequential(nn.Linear(6, 8), nn.Dropout(), nn.Linear(8, 2)), torch.randn(3, 6), "basic")
    assert kinds(graph) == {"Linear": 1}


def test_conv1d_and_conv3d_merge() -> None:
    for kind, shape in ((nn.Conv1d, (2, 4, 9)), (nn.Conv3d, (2, 4, 5, 6, 7))):
        graph, _ = fused(nn.Sequential(kind(4, 8, 3), kind(8, 2, 1)), torch.randn(shape), "basic")
        assert sum(kinds(graph).values()) == 1


def test_closed_activation_lets_convs_merge() -> None:
    graph, _ = fused(nn.Sequential(nn.Conv2d(4, 8, 3), nn.Identity(), nn.Conv2d(8, 2, 1)), torch.randn(IMAGE), "basic")
    assert kinds(graph) == {"Conv2d": 1}


@pytest.mark.parametrize(
    ("layers", "reason"),
    [
        pytest.param(
            (nn.Conv2d(4, 8, 3, padding=1), nn.Conv2d(8, 2, 3, padding=1)),
            "zeros inside are not zeros outside",
            id="inner padding",
        ),
        pytest.param(
            (nn.Conv2d(4, 8, 1), nn.Conv2d(8, 2, 3, padding=1)),
            "the convolution before it adds a bias",
            id="bias and padding",
        ),
        pytest.param((nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 8, 1)), "times the work", id="separable"),
        pytest.param(
            (nn.Conv2d(8, 2, 1), nn.Conv2d(2, 8, 1)), "merged with 0 it would do 2.00 times the work", id="bottleneck"
        ),
        pytest.param(
            (nn.Conv2d(4, 8, 2, padding="same"), nn.Conv2d(8, 2, 1)),
            "the sides are padded differently",
            id="uneven padding",
        ),
    ],
)
def test_refuses(layers: tuple[nn.Module, nn.Module], reason: str) -> None:
    x = torch.randn(2, layers[0].in_channels, 11, 10)  # type: ignore[arg-type, call-overload]
    graph, log = fused(nn.Sequential(*layers), x, "basic")
    assert kinds(graph)["Conv2d"] == 2
    assert reason in reasons(log, "conv-after-conv").replace("_0", "0")


def test_wide_merge_is_aggressive() -> None:
    graph, log = fused(nn.Sequential(nn.Conv2d(8, 2, 1), nn.Conv2d(2, 8, 1)), torch.randn(2, 8, 5, 5), "aggressive")
    assert fired(log) == {"conv-after-conv-wide": 1}
    assert kinds(graph) == {"Conv2d": 1}


class Tapped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(4, 8, 3), nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.a(x)
        return torch.sigmoid(y), self.b(y)


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.conv(x))


def test_refuses_first_conv_that_others_read() -> None:
    _, log = fused(Tapped(), torch.randn(IMAGE), "basic")
    assert "a is read by 2 operators" in reasons(log, "conv-after-conv")


def test_refuses_conv_called_twice() -> None:
    _, log = fused(Shared(), torch.randn(IMAGE), "basic")
    assert "conv is called more than once" in reasons(log, "conv-after-conv")
