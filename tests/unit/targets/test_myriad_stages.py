"""Stages and engine cycles, held against what the vendor's compiler (OpenVINO 2021.4.2) made of the same networks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from fupruner.fusion.fuse import fuse_graph
from fupruner.graph.layer_shape import LayerShape
from fupruner.graph.trace import trace
from fupruner.targets.myriad.hardware import Window, cut_convolution, cut_pool
from fupruner.targets.myriad.stages import layer_stages, total_stages
from fupruner.targets.onnx_device import write_fixed
from fupruner.targets.onnx_layers import file_layers

IMAGE = torch.randn(1, 3, 32, 32)


def window(channels: int, size: int, outputs: int, kernel: int, stride: int, padding: int) -> Window:
    out = (size + 2 * padding - kernel) // stride + 1
    return Window(channels, size, size, outputs, out, out, kernel, stride, padding)


@pytest.mark.parametrize(
    ("conv", "cost", "block"),
    [
        (window(3, 32, 16, 3, 1, 1), 20, 4),
        (window(16, 32, 16, 3, 1, 1), 37, 8),
        (window(16, 32, 24, 3, 1, 1), 37, 8),
        (window(32, 32, 16, 3, 1, 1), 49, 16),
        (window(16, 32, 48, 3, 2, 1), 47, 4),
        (window(16, 32, 32, 1, 2, 0), 13, 2),
        (window(32, 16, 64, 3, 2, 1), 83, 4),
        (window(64, 8, 128, 3, 1, 1), 310, 4),
        (window(128, 8, 64, 3, 1, 1), 326, 8),
        (window(256, 14, 256, 3, 1, 1), 2800, 16),
        (window(64, 56, 256, 1, 1, 0), 64, 1),
    ],
)
def test_cost_and_mode_are_the_compilers(conv: Window, cost: int, block: int) -> None:
    cut = cut_convolution(conv)
    assert cut is not None
    assert (cut.cost, cut.block) == (cost, block)


@pytest.mark.parametrize(
    ("conv", "pieces"),
    [
        (window(64, 56, 64, 3, 1, 1), (1, 1)),
        (window(3, 224, 64, 7, 2, 3), (4, 1)),  # the output is larger than the chip
        (window(64, 56, 256, 1, 1, 0), (3, 1)),
        (window(256, 56, 512, 1, 2, 0), (14, 1)),  # four lines of 256 channels fill an engine
        (window(512, 28, 1024, 1, 2, 0), (7, 1)),
        (window(1024, 14, 2048, 1, 2, 0), (4, 1)),
        (window(256, 7, 512, 3, 1, 1), (1, 1)),
        (window(512, 7, 512, 3, 1, 1), (1, 2)),  # a block's kernels overflow the coefficient memory
    ],
)
def test_convolutions_are_cut_as_the_compiler_does(conv: Window, pieces: tuple[int, int]) -> None:
    cut = cut_convolution(conv)
    assert cut is not None
    assert (cut.rows, cut.depths) == pieces


def test_padded_pool_of_a_large_plane_is_cut() -> None:
    cut = cut_pool(window(64, 112, 64, 3, 2, 1))
    assert cut is not None
    assert (cut.rows, cut.trimmed) == (8, 7)


def test_what_an_engine_cannot_hold_is_none() -> None:
    assert cut_convolution(window(2048 * 20, 7, 8, 1, 1, 0)) is None


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, inner: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(inputs, inner, 3, stride, 1), nn.Conv2d(inner, outputs, 3, 1, 1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv2(torch.relu(self.conv1(x))) + self.shortcut(x))


def residual(
    blocks: int, widths: tuple[int, ...] = (16, 32, 64), inner: tuple[int, ...] | None = None, classes: int = 10
) -> nn.Module:
    """A CIFAR residual network with 1x1 projections, norms folded."""
    layers: list[nn.Module] = [nn.Conv2d(3, widths[0], 3, 1, 1), nn.ReLU()]
    width = widths[0]
    for i, (after, mid) in enumerate(zip(widths, inner or widths, strict=True)):
        for k in range(blocks):
            layers.append(Block(width, after, 2 if i and not k else 1, mid))
            width = after
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes)).eval()


def stages_of(module: nn.Module, folder: Path, *, engine: bool = True) -> tuple[int, int]:
    """Stages and the compiler's cost of a network as it ships."""
    write_fixed(module, (IMAGE,), folder / "network.onnx", 11)
    layers = [layer.shape for layer in file_layers(folder / "network.onnx")]
    return total_stages(layers, engine=engine), sum(layer_stages(layer, engine=engine).cost for layer in layers)


@pytest.mark.parametrize(
    ("network", "stages", "cost"),
    [
        (residual(3), 40, 1508),
        (residual(9), 94, 4472),
        (residual(3, (8, 16, 32)), 41, 755),
        (residual(3, (12, 22, 44)), 55, 1174),  # every narrow convolution rounds its input up first
        (residual(3, inner=(5, 11, 23)), 49, 989),
        (residual(3, inner=(8, 24, 40), classes=100), 40, 1292),
    ],
    ids=["resnet-20", "resnet-56", "half", "odd", "odd inside", "narrow inside"],
)
def test_stages_of_residual_networks_are_the_compilers(
    network: nn.Module, stages: int, cost: int, tmp_path: Path
) -> None:
    assert stages_of(network, tmp_path) == (stages, cost)


def test_stages_of_the_fused_network_are_the_compilers(tmp_path: Path) -> None:
    fused, _ = fuse_graph(trace(residual(3), (IMAGE,)), (IMAGE,), "aggressive")
    assert stages_of(fused, tmp_path) == (29, 2458)


def test_stages_without_engines_are_the_compilers(tmp_path: Path) -> None:
    assert stages_of(residual(3), tmp_path, engine=False)[0] == 58


def test_relu_behind_an_add_is_apart_where_lines_are_not_whole_units() -> None:
    conv = LayerShape(
        "conv", (64, 28, 28), (64, 28, 28), (3, 3), (1, 1), (1, 1), (1, 1), activation="relu", fused_add=True
    )
    assert layer_stages(conv).count == 3
    aligned = LayerShape(
        "conv", (64, 32, 32), (64, 32, 32), (3, 3), (1, 1), (1, 1), (1, 1), activation="relu", fused_add=True
    )
    assert layer_stages(aligned).count == 2
