"""Labelled images, and the batches that networks are trained, calibrated and judged on."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from fupruner.errors import DataError
from fupruner.training.ahead import read_ahead
from fupruner.training.augment import AUGMENTATIONS, AugmentName, Variation, draw, gather
from fupruner.training.decode import Undecoded, bytes_of, decode, image_shape_of
from fupruner.training.digits import read_digits
from fupruner.training.folders import read_class_folders
from fupruner.training.seeds import generator
from fupruner.training.sources import RawData, SplitNames
from fupruner.training.tables import parquet_files, read_hub, read_parquet

Batch = tuple[Tensor, Tensor]
Statistics = tuple[float, ...]

WHOLE = slice(None)
_STATISTICS_FROM = 4_000
_AT_ONCE = 250  # images that statistics are taken from at a time


@dataclass(frozen=True)
class Split:
    """Images and labels of one split.

    Attributes:
        images: bytes (N, C, H, W), or what decodes them when they are asked for.
        labels: class indices (N,), int64.
        mean: per channel, of pixels in 0..1, that batches are normalised with.
        std: likewise.
    """

    images: Tensor | Undecoded
    labels: Tensor
    mean: Statistics
    std: Statistics

    def __len__(self) -> int:
        return len(self.images)

    def part(self, indices: Tensor) -> Split:
        """Some of the images, by index, with their labels."""
        images = self.images.part(indices) if isinstance(self.images, Undecoded) else self.images[indices]
        return Split(images, self.labels[indices], self.mean, self.std)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Channels, height and width."""
        return tuple(self.images.shape[1:])

    def batches(
        self,
        batch_size: int,
        *,
        shuffle: bool = False,
        seed: int = 0,
        epoch: int = 0,
        augment: AugmentName = "none",
        start: int = 0,
        drop_last: bool = False,
        part: slice = WHOLE,
        device: torch.device | str = "cpu",
    ) -> Iterator[Batch]:
        """Go through the split once.

        Every batch depends on (seed, epoch, its index) alone, so a run can go on at any batch.

        Args:
            batch_size: images per batch; the last one has what is left.
            shuffle: whether the order is random.
            seed: of order and augmentation.
            epoch: varies order and augmentation.
            augment: name of the augmentation.
            start: index of the first batch to give.
            drop_last: leave out the last batch where it is smaller than the others (unless it is the only one).
            part: which images of each batch are given, augmented as in the whole; the others are not even decoded.
            device: where batches are put.

        Yields:
            Normalised images (B, C, H, W) in float32, and labels (B,).
        """
        count, (_, height, width) = len(self), self.image_shape
        order = torch.randperm(count, generator=generator(seed, epoch)) if shuffle else torch.arange(count)
        end = count - count % batch_size if drop_last and count >= batch_size else count

        def batch(index: int) -> tuple[Tensor, Tensor]:
            chosen = order[index * batch_size : min((index + 1) * batch_size, end)]
            variation = draw(len(chosen), (height, width), AUGMENTATIONS[augment], generator(seed, epoch, index))
            return self._varied(chosen[part], variation and variation[part]), self.labels[chosen[part]]

        indices = range(start, math.ceil(end / batch_size))
        for images, labels in read_ahead(batch, indices) if isinstance(self.images, Undecoded) else map(batch, indices):
            yield self.normalise(images.to(device)), labels.to(device)

    def normalise(self, images: Tensor) -> Tensor:
        """Bytes (B, C, H, W) to float32 with the split's mean and standard deviation taken out."""
        std = torch.tensor(self.std, device=images.device).view(-1, 1, 1)
        mean = torch.tensor(self.mean, device=images.device).view(-1, 1, 1)
        return images.float().sub_(mean * 255).div_(std * 255)

    def _varied(self, chosen: Tensor, variation: Variation | None) -> Tensor:
        """Bytes (B, C, H, W) of the images at these indices, augmented."""
        images = self.images
        if isinstance(images, Undecoded):
            images, chosen = images[chosen], torch.arange(len(chosen))
        return gather(images, chosen, variation)


@dataclass(frozen=True)
class ImageData:
    """A data set for classification.

    Attributes:
        train: what networks learn from.
        validation: what they are judged on.
        classes: names, by class index.
        mean: per channel, of pixels in 0..1, that both splits are normalised with.
        std: likewise.
        augment: name of the augmentation that suits the images.
        notes: decisions that were taken for the user, worth telling.
    """

    train: Split
    validation: Split
    classes: tuple[str, ...]
    mean: Statistics
    std: Statistics
    augment: AugmentName = "standard"
    notes: tuple[str, ...] = ()


def load_data(
    source: str,
    *,
    image_shape: tuple[int, ...] | None = None,
    mean: Statistics | None = None,
    std: Statistics | None = None,
    train_split: str = "train",
    validation_split: str = "validation",
) -> ImageData:
    """Read a data set into memory; images stay encoded where memory does not hold all pixels of a split, see ``decode``.

    Args:
        source: ``digits``; a folder of class folders, or of splits that are such folders; parquet files with the
            columns image and label (one, several with commas between, or a folder); or ``hf:NAME``.
        image_shape: channels, height and width that the model takes; of the first image if None.
        mean: per channel, of pixels in 0..1; of the training images if None.
        std: likewise.
        train_split: name of the split to train on.
        validation_split: name of the split to judge on; for the default name, val, valid and test are tried too, and
            a source of one split is divided.

    Raises:
        DataError: the source is not there, is laid out in another way, has unusable images or labels, or is too large
            and not in files of one image each.
    """
    raw = _read(source, SplitNames(train_split, validation_split))
    if image_shape is None:
        image_shape = image_shape_of(raw.train)
    if len(image_shape) != 3:
        raise DataError(f"The model takes inputs of shape {'x'.join(map(str, image_shape))}, which are no images.")
    channels, height, width = image_shape
    train, validation = (decode(split, (channels, height, width)) for split in (raw.train, raw.validation))
    if mean is None or std is None:
        mean, std = _statistics(train)
    if not len(mean) == len(std) == channels:
        raise DataError(f"Mean and standard deviation are given for {len(mean)} channels; images have {channels}.")
    return ImageData(
        train=Split(train, torch.tensor(raw.train.labels), mean, std),
        validation=Split(validation, torch.tensor(raw.validation.labels), mean, std),
        classes=raw.classes,
        mean=mean,
        std=std,
        augment=raw.augment,
        notes=(*raw.notes, *_undecoded_notes(train, validation)),
    )


def _undecoded_notes(*splits: Tensor | Undecoded) -> Iterator[str]:
    for images in splits:
        if isinstance(images, Undecoded):
            needed = bytes_of(images.split, images.image_shape) / 2**30
            yield (
                f"{len(images)} images in {images.split.where} would need {needed:.1f} GiB of memory: they are decoded when they are "
                "needed, again each time."
            )


def _read(source: str, names: SplitNames) -> RawData:
    if source == "digits":
        return read_digits(names)
    if source.startswith("hf:"):
        return read_hub(source.removeprefix("hf:"), names)
    files = parquet_files(source)
    if files:
        return read_parquet(files, source, names)
    path = Path(source)
    if not path.exists():
        raise DataError(
            f"There is no data at {source}.", hint="Give digits, a folder of images, parquet files, or hf:NAME."
        )
    if not path.is_dir():
        raise DataError(f"{source} is neither a folder nor a parquet file.")
    return read_class_folders(path, names)


def _statistics(images: Tensor | Undecoded) -> tuple[Statistics, Statistics]:
    """Mean and standard deviation per channel, of pixels in 0..1; a constant channel keeps its scale.

    They come from images all over, for they may lie in the order of their classes.
    """
    chosen = evenly_spaced(len(images), _STATISTICS_FROM)
    counts = torch.zeros(images.shape[1], 256, dtype=torch.float64)
    for indices in chosen.split(_AT_ONCE):
        for channel, pixels in enumerate(images[indices].unbind(1)):
            counts[channel] += torch.bincount(pixels.flatten(), minlength=256)
    values, shares = torch.arange(256, dtype=torch.float64) / 255, counts / counts.sum(1, keepdim=True)
    mean = shares @ values
    std = (shares * (values - mean[:, None]).square()).sum(1).sqrt()
    return tuple(mean.tolist()), tuple(torch.where(std > 0, std, torch.ones_like(std)).tolist())


def evenly_spaced(count: int, most: int) -> Tensor:
    """Up to so many indices, evenly spaced over all from 0 to below ``count``."""
    return torch.linspace(0, count - 1, min(count, most), dtype=torch.float64).round().long()


def calibration(split: Split, n: int, seed: int) -> Batch:
    """Draw up to ``n`` images of a split without repetition, as one batch, not augmented.

    Returns:
        Normalised images (n, C, H, W) and labels (n,).
    """
    chosen = torch.randperm(len(split), generator=generator(seed))[:n]
    return split.normalise(split.images[chosen]), split.labels[chosen]


def check_labels(data: ImageData, outputs: int) -> None:
    """Make sure that a model has an output for every label.

    Raises:
        DataError: a label lies outside of the model's outputs.
    """
    for name, split in (("training", data.train), ("validation", data.validation)):
        highest = int(split.labels.max())
        if highest >= outputs:
            row = int(split.labels.argmax())
            raise DataError(
                f"Image {row} of the {name} split has label {highest}, but the model has {outputs} outputs "
                f"(labels 0 to {outputs - 1}).",
                hint="Is this the data that the model was trained for?",
            )
