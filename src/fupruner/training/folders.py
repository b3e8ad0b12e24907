"""Images in folders that are named after their classes."""

from __future__ import annotations

import os
from pathlib import Path

from PIL import Image

from fupruner.errors import DataError
from fupruner.training.sources import Encoded, RawData, RawSplit, SplitNames, assemble

_LAYOUT = "Expected are folders named after the classes, with images in them; or folders train and validation of such."


def read_class_folders(root: Path, names: SplitNames) -> RawData:
    """Read a folder of class folders, or one that has a folder of class folders per split.

    Class indices follow the sorted names of the training split's folders.

    Raises:
        DataError: the folder is laid out in another way, a split is not there, or validation has classes of its own.
    """
    there = {folder.name: folder for folder in _subfolders(root)}
    if not there:
        raise DataError(f"There are no folders of images in {root}.", hint=_LAYOUT)
    if any(_images(folder) for folder in there.values()):
        there = {"train": root}
    elif not any(_images(inner) for folder in there.values() for inner in _subfolders(folder)):
        raise DataError(f"There are no images in the folders of {root}.", hint=_LAYOUT)
    chosen = names.choose(there, str(root))
    classes = tuple(folder.name for folder in _subfolders(there[chosen[0]]))
    return assemble(chosen, lambda name: _read_split(there[name], classes), lambda: classes)


def _read_split(root: Path, classes: tuple[str, ...]) -> RawSplit:
    unknown = [folder.name for folder in _subfolders(root) if folder.name not in classes]
    if unknown:
        raise DataError(
            f"Classes in {root} that the training split does not have: {', '.join(unknown[:5])}.",
            hint=f"Classes of the training split: {', '.join(classes[:10])}{', ...' if len(classes) > 10 else ''}.",
        )
    images: list[Encoded] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        files = _images(root / name)
        images += files
        labels += [label] * len(files)
    return RawSplit(images, labels, range(len(images)), str(root))


def _subfolders(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def _images(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    known = Image.registered_extensions()
    with os.scandir(folder) as entries:  # of millions of files Path objects would take gigabytes
        names = [entry.name for entry in entries]
    return [
        os.path.join(folder, name)
        for name in sorted(names)
        if os.path.splitext(name)[1].lower() in known and not name.startswith(".")
    ]
