from __future__ import annotations

import pytest
import torch
from torch import nn

from helpers import fired, fused, kinds, reasons

IMAGE = (2, 4, 9, 8)


@pytest.mark.parametrize(
    ("layer", "norm", "shape"),
    [
        pytest.param(nn.Conv2d(4, 6, 3, padding=1), nn.BatchNorm2d(6), IMAGE, id="conv2d"),
        pytest.param(
            nn.Conv2d(4, 6, 3, stride=2, dilation=2, bias=False),
            nn.BatchNorm2d(6),
            IMAGE,
            id="strided, dilated, no bias",
        ),
        pytest.param(nn.Conv2d(4, 8, 3, groups=2), nn.BatchNorm2d(8), IMAGE, id="grouped"),
        pytest.param(
            nn.Conv2d(4, 8, 3, groups=4), nn.BatchNorm2d(8, affine=False), IMAGE, id="depthwise, norm without affine"
        ),
        pytest.param(
            nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular"), nn.BatchNorm2d(6), IMAGE, id="circular padding"
        ),
        pytest.param(nn.ConvTranspose2d(4, 6, 3, stride=2), nn.BatchNorm2d(6), IMAGE, id="transposed"),
        pytest.param(
            nn.ConvTranspose2d(4, 6, 3, groups=2, output_padding=1, stride=2),
            nn.BatchNorm2d(6),
            IMAGE,
            id="transposed, grouped",
        ),
        pytest.param(nn.Conv1d(4, 6, 3), nn.BatchNorm1d(6), (2, 4, 9), id="conv1d"),
        pytest.param(nn.Conv3d(4, 6, 3), nn.BatchNorm3d(6), (2, 4, 5, 6, 4), id="conv3d"),
        pytest.param(nn.Linear(4, 6), nn.BatchNorm1d(6), (2, 4), id="linear"),
    ],
)
def test_norm_folds_into_layer_before_it(layer: nn.Module, norm: nn.Module, shape: tuple[int, ...]) -> None:
    graph, log = fused(nn.Sequential(layer, norm, nn.ReLU()), torch.randn(shape), "basic")
    assert not any(name.startswith("BatchNorm") for name in kinds(graph))
    assert fired(log)["norm-after-layer"] == 1


class TwoReaders(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        return torch.relu(self.norm(y)) * y


class CalledTwice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm1, self.norm2 = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm2(self.conv(torch.relu(self.norm1(self.conv(x)))))


class SharedNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.norm = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.b(torch.relu(self.norm(self.a(x)))))


class SharedWeight(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.norm = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.b.weight = self.a.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.b(torch.relu(self.a(x))))


def test_refuses_conv_that_others_read() -> None:
    graph, log = fused(TwoReaders(), torch.randn(IMAGE), "basic")
    assert kinds(graph)["BatchNorm2d"] == 1
    assert "read by 2 operators, not by the norm alone" in reasons(log, "norm-after-layer")


def test_refuses_conv_called_twice() -> None:
    graph, log = fused(CalledTwice(), torch.randn(IMAGE), "basic")
    assert kinds(graph)["BatchNorm2d"] == 2
    assert "conv is called more than once or shares its weights" in reasons(log, "norm-after-layer")


def test_refuses_conv_that_shares_its_weights() -> None:
    graph, log = fused(SharedWeight(), torch.randn(IMAGE), "basic")
    assert kinds(graph)["BatchNorm2d"] == 1
    assert "is called more than once or shares its weights" in reasons(log, "norm-after-layer")


def test_folds_norm_that_is_called_twice() -> None:
    graph, _ = fused(SharedNorm(), torch.randn(IMAGE), "basic")
    assert kinds(graph)["BatchNorm2d"] == 0


def test_refuses_norm_without_running_statistics() -> None:
    graph, log = fused(
        nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)),
        torch.randn(IMAGE),
        "basic",
        **{},
    )
    assert kinds(graph)["BatchNorm2d"] == 1
    assert "no running statistics" in reasons(log, "norm-after-layer")
