"""Encoded images of any size to one block of bytes in memory."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from fupruner.errors import DataError
from fupruner.training.sources import RawSplit

Shape = tuple[int, int, int]

_MODES = {1: "L", 3: "RGB"}
_DEEP_MODES = ("I", "F")  # converting them cuts off every value above 255
_MEMORY_LIMIT = 4 * 2**30
_SMALL = 64  # up to this side, decoding in threads costs more than it saves
_MARGIN = 8 / 7  # larger images are scaled to 256/224 of the crop, as networks for them are commonly evaluated


def image_shape_of(split: RawSplit) -> Shape:
    """Channels, height and width of the first image; anything but greyscale counts as three channels.

    Raises:
        DataError: the image cannot be decoded.
    """
    with _open(split, 0) as image:
        return (1 if image.mode in ("1", "L") else 3, image.height, image.width)


def decode(split: RawSplit, shape: Shape) -> Tensor:
    """Decode a split, converted to the channels and brought to the size of ``shape``.

    An image of another size is scaled, keeping its proportions, until it covers the size (until it exceeds it by
    one seventh where the size is above 64 pixels), and its centre is cut out.

    Returns:
        Bytes (N, C, H, W).

    Raises:
        DataError: an image is corrupt, the channels are neither 1 nor 3, or all of it needs more than 4 GiB.
    """
    channels, height, width = shape
    if channels not in _MODES:
        raise DataError(f"The model wants images of {channels} channels; images have 1 (grey) or 3 (colour).")
    needed = len(split) * channels * height * width
    if needed > _MEMORY_LIMIT:
        raise DataError(
            f"{len(split)} images of {channels}x{height}x{width} in {split.where} need {needed / 2**30:.1f} GiB of "
            f"memory, more than the limit of {_MEMORY_LIMIT / 2**30:.0f} GiB.",
            hint="Use a part of the images: a few thousand are enough to prune by.",
        )
    block = np.empty((len(split), height, width, channels), dtype=np.uint8)

    def fill(index: int) -> None:
        block[index] = _pixels(split, index, shape)

    if max(height, width) <= _SMALL:
        for index in range(len(split)):
            fill(index)
    else:
        with ThreadPoolExecutor() as pool:
            list(pool.map(fill, range(len(split))))
    return torch.from_numpy(block).permute(0, 3, 1, 2).contiguous()


def _pixels(split: RawSplit, index: int, shape: Shape) -> npt.NDArray[np.uint8]:
    channels, height, width = shape
    with _open(split, index) as image:
        if image.mode.startswith(_DEEP_MODES):
            raise DataError(
                f"{split.name_of(index)} has pixels of more than 8 bits (mode {image.mode}).",
                hint="Convert the images to 8 bits per channel; how to scale them depends on what they show.",
            )
        try:
            fitted = _fit(image.convert(_MODES[channels]), height, width)
        except (OSError, ValueError, SyntaxError) as error:
            raise _corrupt(split, index, error) from None
    return np.asarray(fitted).reshape(height, width, channels)


def _open(split: RawSplit, index: int) -> Image.Image:
    encoded = split.images[index]
    try:
        if isinstance(encoded, np.ndarray):
            return Image.fromarray(encoded)
        return Image.open(encoded if isinstance(encoded, Path) else io.BytesIO(encoded))
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise _corrupt(split, index, error) from None


def _corrupt(split: RawSplit, index: int, error: Exception) -> DataError:
    reason = "it is not an image" if isinstance(error, UnidentifiedImageError) else str(error)
    return DataError(
        f"{split.name_of(index)} cannot be decoded: {reason}.", hint="Repair or remove it, then start again."
    )


def _fit(image: Image.Image, height: int, width: int) -> Image.Image:
    if image.size == (width, height):
        return image
    margin = _MARGIN if max(height, width) > _SMALL else 1.0
    scale = margin * max(height / image.height, width / image.width)
    covering = (max(width, round(image.width * scale)), max(height, round(image.height * scale)))
    image = image.resize(covering, Image.Resampling.BILINEAR)
    left, top = (covering[0] - width) // 2, (covering[1] - height) // 2
    return image.crop((left, top, left + width, top + height))
