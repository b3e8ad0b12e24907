"""The smallest network that shows what a family of rules does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn


class Residual(nn.Module):
    """A branch beside an identity, and an activation after the sum."""

    def __init__(self, branch: nn.Module, last: bool = True) -> None:
        super().__init__()
        self.branch, self.last = branch, nn.ReLU() if last else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape."""
        found: Tensor = self.last(self.branch(x) + x)
        return found


class Parallel(nn.Module):
    """Branches of one input, added or concatenated."""

    def __init__(self, *branches: nn.Module, added: bool) -> None:
        super().__init__()
        self.branch, self.added = nn.ModuleList(branches), added

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to the sum of outputs, or to all their channels."""
        outputs = [branch(x) for branch in self.branch]
        if not self.added:
            return torch.cat(outputs, 1)
        total = outputs[0]
        for each in outputs[1:]:
            total = total + each
        return total


@dataclass(frozen=True)
class Family:
    """What is drawn for a file of rules.

    Attributes:
        module: the file.
        network: to be rewritten, for images of 8x8.
        rules: to use; the last one has to fire.
        prepared: rules that are used before the first drawing.
        channels: of the images.
    """

    module: str
    network: nn.Module
    rules: Sequence[str]
    prepared: Sequence[str] = ()
    channels: int = 4


def conv(a: int, b: int, kernel: int = 3, bias: bool = True) -> nn.Module:
    """A convolution that keeps the size of images."""
    return nn.Conv2d(a, b, kernel, padding=kernel // 2, bias=bias)


BASIC_BLOCK = nn.Sequential(nn.ReLU(), Residual(nn.Sequential(conv(4, 6), nn.ReLU(), conv(6, 4))))
PREACTIVATION = nn.Sequential(
    conv(4, 4), Residual(nn.Sequential(nn.BatchNorm2d(4), nn.ReLU(), conv(4, 6), nn.ReLU(), conv(6, 4)))
)
FAMILIES = (
    Family("clean_up", nn.Sequential(nn.Dropout(), conv(4, 4), nn.ReLU(), nn.ReLU6(), nn.Identity()), ("merge-clips", "remove-no-op")),
    Family("norm_after", nn.Sequential(conv(4, 6, bias=False), nn.BatchNorm2d(6), nn.ReLU()), ("norm-after-layer",)),
    Family("affine", nn.Sequential(nn.BatchNorm2d(4), conv(4, 6, 1)), ("affine-before-layer",)),
    Family("permutation", nn.Sequential(nn.ReLU(), nn.ChannelShuffle(2), conv(4, 6)), ("permutation-into-weights",)),
    Family("parallel_sum", Parallel(conv(4, 4), conv(4, 4, 1), nn.BatchNorm2d(4), added=True), ("parallel-sum",)),
    Family("upsample", nn.Sequential(nn.ReLU(), nn.Upsample(scale_factor=2), conv(4, 6)), ("upsample-into-conv",)),
    Family("concat", Parallel(conv(4, 3), conv(4, 5), added=False), ("concat-stack",)),
    Family("pooling", nn.Sequential(conv(4, 6), nn.AvgPool2d(2)), ("conv-before-pool",)),
    Family("conv_chain", nn.Sequential(conv(4, 8), conv(8, 2, 1)), ("conv-after-conv",)),
    Family("shortcut", BASIC_BLOCK, ("shortcut-into-filters",)),
    Family("preactivation", PREACTIVATION, ("preactivation-into-filters",)),
    Family("sum_of_convs", Parallel(nn.Sequential(nn.MaxPool2d(3, 1, 1), conv(4, 6)), conv(4, 6), added=True), ("sum-of-convs",)),
    Family("linear", nn.Sequential(conv(4, 6), nn.Flatten(), nn.Linear(6 * 8 * 8, 3)), ("linear-as-conv",)),
    Family("shortcut_back", BASIC_BLOCK, ("filters-into-shortcut",), prepared=("shortcut-into-filters",)),
)  # fmt: skip
