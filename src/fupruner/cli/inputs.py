"""What the command line makes of names of models, files and folders, before anything long begins."""

# ruff: noqa: PLC0415 - what a command needs is imported when it runs, so that --help and bad input answer at once

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fupruner.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from fupruner.targets.base import Target

InputShape = Annotated[
    str | None, typer.Option("--input-shape", help="One input without the batch, like 3x32x32, if not known.")
]
Weights = Annotated[
    Path | None, typer.Option("--weights", help="Trained weights: .safetensors, or .pt with a state_dict.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]


def example_inputs(shape: tuple[int, ...]) -> tuple[Tensor, ...]:
    """One input of the given shape (without the batch), the same every time."""
    import torch

    return (torch.randn(1, *shape, generator=torch.Generator().manual_seed(0)),)


def outputs_of(module: nn.Module, inputs: tuple[Tensor, ...]) -> int:
    """How many classes a network tells apart: the last axis of its output.

    Raises:
        InputError: the network does not run on such inputs, or its output is not one row per image.
    """
    import torch

    try:
        with torch.no_grad():
            outputs = copy.deepcopy(module).eval()(*inputs)
    except (RuntimeError, ValueError, TypeError) as error:
        shape = "x".join(map(str, inputs[0].shape[1:]))
        raise InputError(f"The network does not run on images of {shape}: {str(error).splitlines()[0]}") from None
    if not isinstance(outputs, torch.Tensor) or outputs.dim() != 2:
        raise InputError(
            "The network's output is not one row of class scores per image.",
            hint="Use fupruner.optimize() with a task of your own.",
        )
    return int(outputs.shape[1])


@dataclass(frozen=True)
class Network:
    """A module with an input that it can be run on."""

    module: nn.Module
    inputs: tuple[Tensor, ...]
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


def load_network(model: str, weights: Path | None, shape: str | None) -> Network:
    """Find a model by name, file or run folder, and make an input for it.

    Raises:
        InputError: there is no such model, the weights do not fit, or the shape of its inputs is not known.
    """
    from fupruner.models.resolve import load_model

    name = str(Path(model) / "model.pt2") if Path(model).is_dir() else model
    loaded = load_model(name, weights)
    inputs = example_inputs(shape_of_inputs(loaded.input_shape, shape, model))
    return Network(loaded.module, inputs, loaded.mean, loaded.std)


def shape_of_inputs(known: tuple[int, ...] | None, given: str | None, model: str) -> tuple[int, ...]:
    """Shape of one input without the batch: what the user gave, else what is known about the model.

    Args:
        known: of the model, or None.
        given: text of ``--input-shape``, for example ``3x32x32``, or None.
        model: what the user calls the model.

    Raises:
        InputError: the text is no shape, or the shape is neither given nor known.
    """
    if given is not None:
        sizes = given.lower().split("x")
        if not all(size.isdecimal() and int(size) > 0 for size in sizes):
            raise InputError(f"--input-shape {given}: must be sizes joined by x.", hint="For example: 3x32x32")
        return tuple(map(int, sizes))
    if known is None:
        raise InputError(
            f"The shape of the inputs of {model} is not known.", hint="Give it, like --input-shape 3x32x32"
        )
    return known


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


def require_calibration(target: Target, data: str | None) -> None:
    """Make sure that there are images where int8 ships: its scales are taken from them.

    Raises:
        InputError: there are none.
    """
    if target.precision == "int8" and data is None:
        raise InputError(
            f"Target {target.name} ships int8, which is calibrated on images; none were given.",
            hint="Give some with --data, named as for 'fupruner optimize'.",
        )


def shipped_input_shape(path: Path) -> tuple[int, ...]:
    """Shape of the first input of a shipped file without the batch, channels first.

    Raises:
        InputError: the file cannot be read, or its input has an open size other than the batch.
    """
    if path.suffix == ".tflite":
        from fupruner.targets.edge_tpu.convert import input_shape

        return input_shape(path.read_bytes())
    if path.suffix == ".xml":
        from fupruner.targets.openvino_cpu import runtime

        return runtime.input_shape(path)
    return onnx_input_shape(path)


def not_the_input(out: Path | None, model: str) -> None:
    """Make sure that a result does not replace the network it is made from.

    Raises:
        InputError: both are the same file.
    """
    if out is not None and Path(model).exists() and out.exists() and out.samefile(model):
        raise InputError(f"--out {out} is the network that was given.", hint="Name another file.")


def shipped_file(path: Path, suffix: str = ".onnx") -> Path:
    """The file to time: itself, or the exported network of a run folder.

    Raises:
        InputError: there is no such file.
    """
    file = path / f"model{suffix}" if path.is_dir() else path
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
