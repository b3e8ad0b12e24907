"""The handwritten digits that come with scikit-learn: 1,797 grey images of 8x8, no download."""

from __future__ import annotations

import numpy as np

from fupruner.errors import DataError
from fupruner.training.sources import RawData, RawSplit, SplitNames, divide

_NAMES = ("train", "validation")


def read_digits(names: SplitNames) -> RawData:
    """Read the digits; four fifths are for training, always the same ones.

    Raises:
        DataError: scikit-learn is not installed, or another split than train and validation is asked for.
    """
    names.choose(_NAMES, "digits")
    try:
        from sklearn.datasets import load_digits  # noqa: PLC0415 - optional, and slow to import
    except ImportError as error:
        raise DataError(
            f"The digits come with scikit-learn, which cannot be imported: {error}",
            hint="Install it with: pip install 'fupruner[digits]'",
        ) from None
    found = load_digits()
    pixels = np.round(found.images * (255 / 16)).astype(np.uint8)
    whole = RawSplit(list(pixels), found.target.tolist(), range(len(pixels)), "digits")
    parts = dict(zip(_NAMES, divide(whole), strict=True))
    classes = tuple(map(str, found.target_names))
    return RawData(parts[names.train], parts[names.validation], classes, augment="shift")
