"""What every source of labelled images is brought to, before anything is decoded: encoded images and class indices."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from fupruner.errors import DataError
from fupruner.training.augment import AugmentName
from fupruner.training.seeds import generator

Encoded = bytes | str | npt.NDArray[np.uint8]
"""Content of a file, its path, or pixels (H, W)."""

_DEFAULT_TRAIN, _DEFAULT_VALIDATION = "train", "validation"
_VALIDATION_NAMES = ("validation", "val", "valid", "test")
_DIVIDING_SEED = 0


@dataclass(frozen=True)
class RawSplit:
    """A part of a data set with its images still encoded.

    Attributes:
        images: see :data:`Encoded`.
        labels: class indices, one per image.
        rows: number of each image in its source, for messages.
        where: the file or folder all of it comes from.
    """

    images: Sequence[Encoded]
    labels: Sequence[int]
    rows: Sequence[int]
    where: str

    def __len__(self) -> int:
        return len(self.images)

    def name_of(self, index: int) -> str:
        """What a message calls an image: its file, or its row."""
        image = self.images[index]
        return f"Image {image}" if isinstance(image, str) else f"The image in row {self.rows[index]} of {self.where}"

    def take(self, indices: Sequence[int]) -> RawSplit:
        """The images at these positions."""
        return replace(
            self,
            images=[self.images[i] for i in indices],
            labels=[self.labels[i] for i in indices],
            rows=[self.rows[i] for i in indices],
        )


@dataclass(frozen=True)
class RawData:
    """A data set with its images still encoded.

    Attributes:
        classes: names, by class index.
        augment: the augmentation that suits the images.
        notes: decisions that were taken for the user, worth telling.
    """

    train: RawSplit
    validation: RawSplit
    classes: tuple[str, ...]
    augment: AugmentName = "standard"
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class SplitNames:
    """Which splits the user asks for."""

    train: str = _DEFAULT_TRAIN
    validation: str = _DEFAULT_VALIDATION

    def choose(self, there: Collection[str], where: str) -> tuple[str, str | None]:
        """Find the asked splits among those that are there; common names are tried for the default ones.

        Returns:
            The names; None for validation data that has to be divided off, because there is one split only.

        Raises:
            DataError: a split that was asked for is not there.
        """
        single = len(there) == 1
        train = next(iter(there)) if single and self.train == _DEFAULT_TRAIN else self.train
        names = _VALIDATION_NAMES if self.validation == _DEFAULT_VALIDATION else (self.validation,)
        validation = next((name for name in names if name in there and name != train), None)
        if train not in there:
            raise _no_split(self.train, there, where)
        if validation is None and not (single and self.validation == _DEFAULT_VALIDATION):
            raise _no_split(self.validation, there, where)
        return train, validation


def _no_split(name: str, there: Collection[str], where: str) -> DataError:
    return DataError(
        f"There is no split {name!r} in {where}.",
        hint=f"Splits there: {', '.join(sorted(there))}. Choose with --train-split and --validation-split.",
    )


def assemble(
    names: tuple[str, str | None], read: Callable[[str], RawSplit], classes: Callable[[], tuple[str, ...]]
) -> RawData:
    """Read the chosen splits, dividing one fifth off for validation where there is none, and check their labels.

    Raises:
        DataError: a split is empty, has labels that are no class, or there is only one class.
    """
    train_name, validation_name = names
    train = read(train_name)
    check_split(train)
    if len(set(train.labels)) < 2:
        raise DataError(
            f"All {len(train)} images in {train.where} belong to one class.", hint="Two classes or more are needed."
        )
    if validation_name is None:
        train, validation = divide(train)
        note = (
            f"{train.where} has no validation split: {len(validation)} of its {len(validation) + len(train)} images, "
            f"drawn with seed {_DIVIDING_SEED}, are kept for validation."
        )
        return RawData(train, validation, classes(), notes=(note,))
    validation = read(validation_name)
    check_split(validation)
    unseen = sorted(set(validation.labels) - set(train.labels))
    if unseen:
        known = classes()
        shown = ", ".join(known[label] if label < len(known) else str(label) for label in unseen[:5])
        raise DataError(
            f"Classes in {validation.where} that {train.where} has no image of: {shown}.",
            hint="Both splits must be labelled in the same way.",
        )
    return RawData(train, validation, classes())


def check_split(split: RawSplit) -> None:
    """Refuse a split without images or with labels below 0.

    Raises:
        DataError: it is so.
    """
    if len(split) == 0:
        raise DataError(f"There are no images in {split.where}.")
    if len(split) != len(split.labels):
        raise DataError(f"{split.where} has {len(split)} images but {len(split.labels)} labels.")
    bad = next((index for index, label in enumerate(split.labels) if label < 0), None)
    if bad is not None:
        raise DataError(
            f"{split.name_of(bad)} has label {split.labels[bad]}, which is no class.",
            hint="Some public test sets come without labels; choose another split.",
        )


def divide(split: RawSplit) -> tuple[RawSplit, RawSplit]:
    """Divide a split into four fifths and one fifth, always in the same way."""
    order = torch.randperm(len(split), generator=generator(_DIVIDING_SEED, len(split))).tolist()
    cut = max(1, len(split) // 5)
    return split.take(sorted(order[cut:])), split.take(sorted(order[:cut]))
