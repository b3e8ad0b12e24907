"""Encoded images of any size to bytes of one size: all of them at once where memory holds them, otherwise when they are asked for."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Undecoded:
    """Images that are decoded anew whenever they are asked for, by index, as from a tensor of bytes (N, C, H, W).

    Attributes:
        split: the encoded images.
        image_shape: channels, height and width that they are brought to, see :func:`decode`.
    """

    split: RawSplit
    image_shape: Shape

    def __len__(self) -> int:
        return len(self.split)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, C, H, W)."""
        return (len(self), *self.image_shape)

    def __getitem__(self, indices: Tensor) -> Tensor:
        """Bytes (B, C, H, W) of the images at these indices (B,).

        Raises:
            DataError: an image is corrupt or no longer there.
        """
        try:
            return _decoded(self.split, indices.tolist(), self.image_shape)
        except DataError as error:
            raise DataError(
                str(error.args[0]),
                hint="Repair it, then start again; a run that had begun goes on with 'fupruner resume'.",
            ) from None

    def part(self, indices: Tensor) -> Undecoded:
        """The images at these indices, not decoded."""
        return Undecoded(self.split.take(indices.tolist()), self.image_shape)


def decode(split: RawSplit, shape: Shape) -> Tensor | Undecoded:
    """A split, converted to the channels and brought to the size of ``shape``.

    An image of another size is scaled, keeping its proportions, until it covers the size (until it exceeds it by
    one seventh where the size is above 64 pixels), and its centre is cut out.

    Returns:
        Bytes (N, C, H, W); where they would need more than 4 GiB, what decodes them when they are asked for.

    Raises:
        DataError: an image is corrupt, the channels are neither 1 nor 3, or the encoded images themselves, where they are in
            memory, need more than 4 GiB.
    """
    if shape[0] not in _MODES:
        raise DataError(f"The model wants images of {shape[0]} channels; images have 1 (grey) or 3 (colour).")
    if bytes_of(split, shape) <= _MEMORY_LIMIT:
        return _decoded(split, range(len(split)), shape)
    encoded = sum(len(image) for image in split.images if isinstance(image, bytes))
    if encoded > _MEMORY_LIMIT:
        raise DataError(
            f"{len(split)} images in {split.where} need {encoded / 2**30:.1f} GiB of memory as they are, more than the limit of "
            f"{_MEMORY_LIMIT / 2**30:.0f} GiB.",
            hint="Write them as files into folders named after the classes: those stay on disk.",
        )
    return Undecoded(split, shape)


def bytes_of(split: RawSplit, shape: Shape) -> int:
    """What a split needs in memory once it is decoded."""
    return len(split) * math.prod(shape)


def _decoded(split: RawSplit, indices: Sequence[int], shape: Shape) -> Tensor:
    """Bytes (B, C, H, W) of some of the images."""
    channels, height, width = shape
    block = np.empty((len(indices), height, width, channels), dtype=np.uint8)

    def fill(row: int) -> None:
        block[row] = _pixels(split, indices[row], shape)

    if max(height, width) <= _SMALL:
        for row in range(len(indices)):
            fill(row)
    else:
        with ThreadPoolExecutor() as pool:
            list(pool.map(fill, range(len(indices))))
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
        return Image.open(encoded if isinstance(encoded, str) else io.BytesIO(encoded))
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
