from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from helpers import fired, fused, kinds, reasons

IMAGE = (2, 4, 9, 8)


class LayerScale(nn.Module):
    """Channels last inside, a scale per channel outside, as in ConvNeXt."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.gamma = nn.Linear(4, 4), nn.Parameter(torch.rand(4, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.gamma * self.linear(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Arithmetic(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 6, 3, padding=1)
        self.register_buffer("scale", torch.rand(1, 6, 1, 1) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return 1.5 - ((self.conv(x) * self.scale - 2) / 3 + self.scale)


def test_constants_fold_into_conv_before_them() -> None:
    graph, _ = fused(Arithmetic(), torch.randn(IMAGE), "basic")
    assert {k for k in kinds(graph) if k != "Conv2d"} <= {"rsub"}


def test_layer_scale_folds_through_a_permutation_of_axes() -> None:
    graph, log = fused(LayerScale(), torch.randn(IMAGE), "basic")
    assert fired(log)["affine-after-layer"] == 1
    assert kinds(graph)["mul"] == 0


class PerPixel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.scale = nn.Conv2d(4, 6, 3, padding=1), nn.Parameter(torch.rand(1, 1, 1, 8))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) * self.scale


class ReadTwice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return torch.sigmoid(y) * (y * 2)


def test_refuses_constant_along_another_axis() -> None:
    _, log = fused(PerPixel(), torch.randn(IMAGE), "basic")
    assert "does not run along the output channels of conv" in reasons(log, "affine-after-layer")


def test_refuses_scale_of_a_conv_that_others_read() -> None:
    _, log = fused(ReadTwice(), torch.randn(IMAGE), "basic")
    assert "conv is read by 2 operators" in reasons(log, "affine-after-layer")


class Normalise(nn.Module):
    """Input normalisation in front of a network."""

    def __init__(self, mean: list[float], std: list[float], conv: nn.Module) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        return self.conv((x - self.mean) / self.std)


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(4, 6, 3, bias=False),
        nn.Conv2d(4, 8, 3, groups=2, stride=2),
        nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"),
    ],
    ids=["no padding", "grouped, strided", "reflect padding"],
)
def test_normalisation_folds_into_conv(conv: nn.Module) -> None:
    graph, log = fused(Normalise([0.1, 0.2, 0.3, 0.4], [0.5, 0.6, 0.7, 0.8], conv), torch.randn(IMAGE), "basic")
    assert fired(log)["affine-before-layer"] == 2
    assert set(kinds(graph)) <= {"Conv2d", "pad"}


def test_equal_pad_values_become_an_explicit_pad() -> None:
    graph, _ = fused(Normalise([0.5] * 4, [0.25] * 4, nn.Conv2d(4, 6, 3, padding=1)), torch.randn(IMAGE), "basic")
    assert kinds(graph)["constant_pad_nd"] == 1
    assert kinds(graph)["sub"] == 0


def test_scale_alone_folds_into_padded_and_transposed_convs() -> None:
    for conv in (nn.Conv2d(4, 6, 3, padding=1), nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2)):
        graph, _ = fused(Normalise([0.0] * 4, [0.5, 0.6, 0.7, 0.8], conv), torch.randn(IMAGE), "basic")
        assert kinds(graph)["div"] == 0


def test_refuses_shift_before_zero_padding() -> None:
    graph, log = fused(nn.Sequential(nn.BatchNorm2d(4), nn.Conv2d(4, 6, 3, padding=1)), torch.randn(IMAGE), "basic")
    assert kinds(graph)["BatchNorm2d"] == 1
    assert "it pads with zeros" in reasons(log, "affine-before-layer")


def test_refuses_shift_before_transposed_conv() -> None:
    _, log = fused(nn.Sequential(nn.BatchNorm2d(4), nn.ConvTranspose2d(4, 6, 3)), torch.randn(IMAGE), "basic")
    assert "fewer taps meet at its border" in reasons(log, "affine-before-layer")


def test_norm_that_stands_alone_is_refused_in_words() -> None:
    graph, log = fused(
        nn.Sequential(nn.ReLU(), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1)), torch.randn(IMAGE), "basic"
    )
    assert kinds(graph)["BatchNorm2d"] == 1
    assert reasons(log, "affine-before-layer") == "it stands between ReLU and ReLU: no layer can take it in"


class Head(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.linear = nn.BatchNorm2d(4), nn.Linear(4 * 3 * 3, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(torch.flatten(nn.functional.adaptive_avg_pool2d(self.norm(x), 3), 1))


def test_norm_folds_through_pooling_and_flattening_into_linear() -> None:
    graph, log = fused(Head(), torch.randn(IMAGE), "basic")
    assert fired(log)["affine-before-layer"] == 1
    assert kinds(graph)["BatchNorm2d"] == 0


class TwoHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.a, self.b = nn.BatchNorm2d(4), nn.Conv2d(4, 3, 1), nn.Conv2d(4, 3, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.norm(x)
        return self.a(y), self.b(y)


def test_norm_folds_into_every_conv_that_reads_it() -> None:
    graph, log = fused(TwoHeads(), torch.randn(IMAGE), "basic")
    assert fired(log)["affine-before-layer"] == 2
    assert kinds(graph)["BatchNorm2d"] == 0


class ConvTwice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.conv = nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(torch.relu(self.conv(self.norm(x))))


def test_refuses_conv_called_twice() -> None:
    _, log = fused(ConvTwice(), torch.randn(IMAGE), "basic")
    assert "conv is called more than once" in reasons(log, "affine-before-layer")
