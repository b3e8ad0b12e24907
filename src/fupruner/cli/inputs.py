"""What the command line makes of names of models, files and folders, before anything long begins."""

# ruff: noqa: PLC0415 - what a command needs is imported when it runs, so that --help and bad input answer at once

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from fupruner.errors import InputError


def example_inputs(shape: tuple[int, ...]) -> tuple[Tensor, ...]:
    """One input of the given shape (without the batch), the same every time."""
    return (torch.randn(1, *shape, generator=torch.Generator().manual_seed(0)),)


def new_folder(path: Path) -> Path:
    """Make sure that a run can be written there without touching anybody's files.

    Raises:
        InputError: the path is a file, or a folder that is not empty.
    """
    if path.exists() and not path.is_dir():
        raise InputError(f"--out {path} is a file; a run needs a folder.")
    if path.is_dir() and any(path.iterdir()):
        raise InputError(f"--out {path} exists and is not empty.", hint="Name a new folder, or remove this one first.")
    return path


def new_file(path: Path, suffixes: tuple[str, ...]) -> Path:
    """Make sure that a network can be written to a file of one of the given kinds.

    Raises:
        InputError: the ending is unknown, the path is a folder, or its folder does not exist.
    """
    if path.suffix not in suffixes:
        raise InputError(f"--out {path} must end in {' or '.join(suffixes)}.")
    if path.is_dir():
        raise InputError(f"--out {path} is a folder; a file name is needed.")
    if not path.parent.is_dir():
        raise InputError(f"--out {path}: there is no folder {path.parent}.", hint=f"mkdir -p {path.parent}")
    return path


def shipped_file(path: Path) -> Path:
    """The file to time: itself, or the exported network of a run folder.

    Raises:
        InputError: there is no such file.
    """
    file = path / "model.onnx" if path.is_dir() else path
    if not file.is_file():
        raise InputError(f"There is no file {file}.")
    return file


def onnx_input_shape(path: Path) -> tuple[int, ...]:
    """Shape of the first input of an ONNX file without the batch.

    Raises:
        InputError: the file is not ONNX, or its input has an open size other than the batch.
    """
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        graph = onnx.load(str(path), load_external_data=False).graph
    except (OSError, DecodeError) as error:
        raise InputError(f"Cannot read {path} as ONNX: {error}.") from None
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    if not inputs:
        raise InputError(f"{path} has no input.")
    sizes = tuple(size.dim_value for size in inputs[0].type.tensor_type.shape.dim)[1:]
    if not sizes or not all(sizes):
        raise InputError(f"{path}: input {inputs[0].name!r} has an open size besides the batch: {sizes}.")
    return sizes
