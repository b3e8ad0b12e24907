"""Augmentation of whole batches: gathering rows, then columns, flips, shifts and mirrors the border; then a square may be blanked.

What happens to each image is drawn first, for the whole batch, so that a process which has a part of it varies that as the others
would.
"""

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


@dataclass(frozen=True)
class Variation:
    """What happens to each of B images.

    Attributes:
        rows: where each row comes from, (B, H).
        columns: likewise, (B, W).
        blanked: which rows (B, H) and columns (B, W) the blanked square covers; None where there is none.
    """

    rows: Tensor
    columns: Tensor
    blanked: tuple[Tensor, Tensor] | None = None

    def __getitem__(self, which: slice) -> Variation:
        """What happens to some of them."""
        blanked = None if self.blanked is None else (self.blanked[0][which], self.blanked[1][which])
        return Variation(self.rows[which], self.columns[which], blanked)


def draw(count: int, size: tuple[int, int], augmentation: Augmentation, generator: torch.Generator) -> Variation | None:
    """Draw what happens to each image of a batch; None where nothing does.

    Args:
        count: images of the batch.
        size: height and width.
        augmentation: how they may be varied.
        generator: where the random decisions come from.
    """
    if augmentation == Augmentation():
        return None
    height, width = size
    rows = _window(height, count, augmentation.shift, generator)
    columns = _window(width, count, augmentation.shift, generator)
    if augmentation.flip:
        mirrored = torch.rand(count, generator=generator) < 0.5
        columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    if not augmentation.cutout:
        return Variation(rows, columns)
    side = max(1, round(min(height, width) * augmentation.cutout))
    blanked = (_covered(height, count, side, generator), _covered(width, count, side, generator))
    return Variation(rows, columns, blanked)


def gather(images: Tensor, chosen: Tensor, variation: Variation | None) -> Tensor:
    """Take images (B, C, H, W) out of (N, C, H, W), of any type, by their indices (B,), and vary them."""
    batch = images[chosen]
    if variation is None:
        return batch
    batch = batch.gather(2, variation.rows[:, None, :, None].expand(batch.shape))
    batch = batch.gather(3, variation.columns[:, None, None, :].expand(batch.shape))
    if variation.blanked is None:
        return batch
    rows, columns = variation.blanked
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
