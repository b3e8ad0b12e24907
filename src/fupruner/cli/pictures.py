"""How a network takes its images, where nobody but the user knows: their size, and the mean and deviation taken out of them."""

# ruff: noqa: PLC0415 - what a command needs is imported when it runs, so that --help and bad input answer at once

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from fupruner.cli.inputs import Network, outputs_of, shape_of_inputs
from fupruner.errors import InputError

if TYPE_CHECKING:
    from fupruner.models.resolve import LoadedModel
    from fupruner.training.data import ImageData
    from fupruner.training.task import Task

Statistics = tuple[tuple[float, ...], tuple[float, ...]]
MeanStd = Annotated[
    str | None, typer.Option("--mean-std", help="Of pixels: imagenet, or like 0.5,0.5,0.5:0.2,0.2,0.2.")
]


def statistics(text: str) -> Statistics:
    """Mean and deviation per channel, of pixels in 0..1, from ``imagenet`` or ``means:deviations``.

    Raises:
        InputError: the text is neither.
    """
    from fupruner.models.resolve import IMAGENET_MEAN, IMAGENET_STD

    if text == "imagenet":
        return IMAGENET_MEAN, IMAGENET_STD
    try:
        means, deviations = (tuple(map(float, part.split(","))) for part in text.split(":"))
    except ValueError:
        means, deviations = (), ()
    usable = all(map(math.isfinite, (*means, *deviations))) and all(value > 0 for value in deviations)
    if not means or len(means) != len(deviations) or not usable:
        raise InputError(
            f"--mean-std {text}: must be imagenet, or as many means as deviations above 0, of pixels in 0..1.",
            hint="For example: 0.485,0.456,0.406:0.229,0.224,0.225",
        )
    return means, deviations


def read_images(
    loaded: LoadedModel, data: str, splits: Mapping[str, str], shape: str | None = None, mean_std: str | None = None
) -> ImageData:
    """Read images as a network takes them; where that had to be guessed, a note says how.

    Args:
        loaded: the network, with what is known about it.
        data: where images are, as named on the command line.
        splits: names of splits.
        shape: text of ``--input-shape``; what is known about the network, or the size of the first image, if None.
        mean_std: text of ``--mean-std``; what is known, or the images' own, if None.

    Raises:
        InputError: images cannot be read, or a text is unusable.
    """
    from fupruner.training.data import load_data

    known = loaded.input_shape if shape is None else shape_of_inputs(None, shape, loaded.name)
    mean, std = statistics(mean_std) if mean_std is not None else (loaded.mean, loaded.std)
    images = load_data(data, image_shape=known, mean=mean, std=std, **splits)
    size = "x".join(map(str, images.train.image_shape))
    guesses = []
    if known is None:
        guesses.append(f"Images are taken at {size}, like the first one; --input-shape says what the network takes.")
    if mean is None:
        shown = ":".join(",".join(f"{value:.3f}" for value in values) for values in (images.mean, images.std))
        guesses.append(
            f"Their own mean and deviation are taken out, {shown}; --mean-std says what the network was trained with."
        )
    return dataclasses.replace(images, notes=(*images.notes, *guesses))


def labelled_images(network: Network, data: str, mean_std: str | None = None) -> Task:
    """Images with labels for a network, named as for ``optimize``.

    Raises:
        InputError: the images cannot be read or do not fit the network.
    """
    from fupruner.training.data import check_labels, load_data
    from fupruner.training.task import Classification

    mean, std = statistics(mean_std) if mean_std is not None else (network.mean, network.std)
    images = load_data(data, image_shape=tuple(network.inputs[0].shape[1:]), mean=mean, std=std)
    check_labels(images, outputs_of(network.module, network.inputs))
    return Classification(images)
