"""A small residual network for handwritten digits of 8x8 pixels: trains in seconds, and leaves something to prune."""

from __future__ import annotations

from torch import Tensor, nn

WIDTHS = (32, 64, 128)


class ProjectedBlock(nn.Module):
    """Two 3x3 convolutions beside an identity, or beside a strided 1x1 convolution where the shape changes.

    Args:
        in_channels: channels of the input.
        channels: channels of the output.
        stride: of the first convolution and of the projection.
    """

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != channels:
            projection = nn.Conv2d(in_channels, channels, 1, stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(channels))
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, channels, ceil(H / stride), ceil(W / stride))."""
        out = self.relu1(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out)) + self.shortcut(x)
        result: Tensor = self.relu2(out)
        return result


class DigitsResNet(nn.Module):
    """A 3x3 convolution, three residual blocks with 32, 64 and 128 channels, average pooling, a linear layer.

    Args:
        num_classes: outputs.
    """

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, WIDTHS[0], 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(WIDTHS[0])
        self.relu = nn.ReLU()
        self.block1 = ProjectedBlock(WIDTHS[0], WIDTHS[0], stride=1)
        self.block2 = ProjectedBlock(WIDTHS[0], WIDTHS[1], stride=2)
        self.block3 = ProjectedBlock(WIDTHS[1], WIDTHS[2], stride=2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(WIDTHS[2], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised images (N, 1, H, W) to logits (N, num_classes)."""
        x = self.relu(self.bn(self.conv(x)))
        x = self.block3(self.block2(self.block1(x)))
        logits: Tensor = self.linear(self.pool(x).flatten(1))
        return logits


def digits_resnet(num_classes: int = 10) -> DigitsResNet:
    """Residual network of 8 layers for images of 1x8x8."""
    return DigitsResNet(num_classes)
