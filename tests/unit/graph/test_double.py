from __future__ import annotations

import pytest
import torch
from torch import nn

from fupruner.graph.double import FastDepthwise, depthwise_conv2d
from helpers import FLOAT64


@pytest.mark.parametrize("stride", [1, (2, 1)])
@pytest.mark.parametrize(
    ("kernel", "padding", "dilation"), [(3, 1, 1), ((1, 5), (0, 4), (1, 2)), (1, 0, 1), ((2, 3), (1, 0), 1)]
)
@pytest.mark.parametrize(("each", "bias"), [(1, True), (2, False)])
def test_agrees_with_torch(
    stride: object, kernel: object, padding: object, dilation: object, each: int, bias: bool
) -> None:
    conv = nn.Conv2d(6, 6 * each, kernel, stride, padding, dilation, groups=6, bias=bias).double()  # type: ignore[arg-type]
    x = torch.randn(2, 6, 9, 8, dtype=torch.float64)
    expected = conv(x)
    torch.testing.assert_close(
        depthwise_conv2d(x, conv.weight, conv.bias, stride, padding, dilation, 6), expected, rtol=FLOAT64, atol=FLOAT64
    )
    with FastDepthwise():
        torch.testing.assert_close(conv(x), expected, rtol=FLOAT64, atol=FLOAT64)


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(6, 6, 3, groups=3),
        nn.Conv2d(6, 6, 3, padding="same", groups=6),
        nn.Conv2d(1, 4, 3),
        nn.Conv1d(6, 6, 3, groups=6),
    ],
)
def test_everything_else_is_left_to_torch(conv: nn.Module) -> None:
    x = torch.randn(2, conv.in_channels, *[9] * len(conv.kernel_size), dtype=torch.float64)  # type: ignore[arg-type, operator]
    with FastDepthwise():
        assert conv.double()(x).shape[0] == 2


def test_refuses_an_image_smaller_than_the_kernel() -> None:
    with pytest.raises(RuntimeError, match="smaller than the kernel"):
        depthwise_conv2d(
            torch.zeros(1, 2, 2, 2, dtype=torch.float64), torch.zeros(2, 1, 3, 3, dtype=torch.float64), groups=2
        )
