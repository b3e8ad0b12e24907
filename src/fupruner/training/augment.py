"""Augmentation of whole batches: one gather flips, shifts and mirrors the border at once; then a square may be blanked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor

AugmentName = Literal["none", "light", "standard", "strong", "shift"]


@dataclass(frozen=True)
class Augmentation:
    """How images of a batch are varied, each on its own.

    Attributes:
        flip: whether half of them are mirrored left to right.
        shift: the largest shift along each axis, as a part of the image's height or width; what comes in over the
            border is the image's own mirror image.
        cutout: side of a square that is blanked, as a part of the image's shorter side; it may reach over the border
            (DeVries and Taylor, arXiv 1708.04552).
    """

    flip: bool = False
    shift: float = 0.0
    cutout: float = 0.0


AUGMENTATIONS: Mapping[AugmentName, Augmentation] = MappingProxyType(
    {
        "none": Augmentation(),
        "light": Augmentation(flip=True),  # short schedules
        "standard": Augmentation(flip=True, shift=1 / 8),  # the 4 pixels of He et al. at 32x32
        "strong": Augmentation(flip=True, shift=1 / 8, cutout=1 / 4),  # long schedules
        "shift": Augmentation(shift=1 / 8),  # what a mirror would turn into something else: digits, letters
    }
)


def gather(images: Tensor, chosen: Tensor, augmentation: Augmentation, generator: torch.Generator) -> Tensor:
    """Take images out of (N, C, H, W) and vary them.

    Args:
        images: all images, of any type.
        chosen: indices (B,) into them.
        augmentation: how they are varied.
        generator: where the random decisions come from.

    Returns:
        The varied images (B, C, H, W), of the same type.
    """
    if augmentation == Augmentation():
        return images[chosen]
    count, (channels, height, width) = len(chosen), images.shape[1:]
    rows = _window(height, count, augmentation.shift, generator)
    columns = _window(width, count, augmentation.shift, generator)
    if augmentation.flip:
        mirrored = torch.rand(count, generator=generator) < 0.5
        columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    # Where each pixel of the batch lies in the flattened images.
    planes = (chosen[:, None] * channels + torch.arange(channels)) * (height * width)
    within = rows[:, :, None] * width + columns[:, None, :]
    batch = images.view(-1)[planes[:, :, None, None] + within[:, None]]
    return _blank(batch, augmentation.cutout, generator) if augmentation.cutout else batch


def _blank(batch: Tensor, cutout: float, generator: torch.Generator) -> Tensor:
    """Replace a square of each image, anywhere, by the image's mean."""
    count, _, height, width = batch.shape
    side = max(1, round(min(height, width) * cutout))
    rows = _covered(height, count, side, generator)
    columns = _covered(width, count, side, generator)
    square = (rows[:, :, None] & columns[:, None, :])[:, None]
    mean = batch.float().mean(dim=(1, 2, 3), keepdim=True).to(batch.dtype)
    return torch.where(square, mean, batch)


def _covered(size: int, count: int, side: int, generator: torch.Generator) -> Tensor:
    """Which positions (count, size) along an axis a stretch of a length covers, its middle anywhere."""
    first = torch.randint(0, size, (count, 1), generator=generator) - side // 2
    position = torch.arange(size)
    return (position >= first) & (position < first + side)


def _window(size: int, count: int, shift: float, generator: torch.Generator) -> Tensor:
    """Source positions (count, size) along one axis, moved by up to ``shift`` and reflected at the borders."""
    reach = min(int(size * shift), size - 1)
    moved = torch.randint(-reach, reach + 1, (count, 1), generator=generator) + torch.arange(size)
    moved = moved.abs()
    return size - 1 - (size - 1 - moved).abs()
