"""What a run was begun with, written down so that a resume finds it again: model, inputs, data."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from pydantic import ValidationError
from torch import Tensor, fx, nn

from fupruner import __version__
from fupruner.errors import InputError
from fupruner.graph.save import save_pt2
from fupruner.graph.text import kind_of
from fupruner.models.resolve import load_model
from fupruner.options import Options
from fupruner.records import Record
from fupruner.runs.run_folder import RunFolder
from fupruner.training.augment import AugmentName
from fupruner.training.data import ImageData, load_data
from fupruner.training.task import Classification, Task

FILE, INPUTS, MODEL = "run.json", "inputs.pt", "original.pt2"
FORMAT = 1


class Source(Record):
    """Model and labelled images by name, as the command line takes them.

    Attributes:
        model: see :func:`fupruner.models.resolve.load_model`.
        weights: file of its weights, or None.
        data: see :func:`fupruner.training.data.load_data`; likewise the splits.
        image_shape: channels, height, width.
        mean, std: per channel, of pixels in 0..1.
        augment: name of the augmentation.
    """

    model: str
    weights: str | None
    data: str
    train_split: str = "train"
    validation_split: str = "validation"
    image_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augment: AugmentName


def named_source(
    model: str, weights: Path | None, data: str, images: ImageData, augment: AugmentName, splits: dict[str, str]
) -> Source:
    """How the command line named model and images; files get their full names."""
    channels, height, width = images.train.image_shape
    return Source(
        model=_full_name(model), weights=None if weights is None else str(weights.resolve()),
        data=",".join(_full_name(part) for part in data.split(",")), image_shape=(channels, height, width),
        mean=images.mean, std=images.std, augment=augment, **splits,
    )  # fmt: skip


def _full_name(name: str) -> str:
    """Of a file or folder; other names stay as they are."""
    return str(Path(name).resolve()) if Path(name).exists() else name


class Origin(Record):
    """The content of ``run.json``.

    Attributes:
        model: what the model is called.
        digest: of its layers and weights.
        steps_per_epoch: of the task.
        source: how model and data were named, or None where they were handed over as objects.
        folder: the working directory, which relative names start from.
        torch, threads, processes: what the last bits of a result depend on, besides the machine.
    """

    format: int
    version: str
    model: str
    digest: str
    steps_per_epoch: int
    source: Source | None
    folder: str
    torch: str
    threads: int
    processes: int


def write_origin(
    run: RunFolder, model: str, graph: fx.GraphModule, inputs: tuple[Tensor, ...], task: Task, source: Source | None
) -> None:
    """Write ``run.json`` and the example inputs; where the model has no name, the model as well."""
    if not run.writes:
        return
    torch.save(inputs, run.file(INPUTS))
    if source is None:
        save_pt2(graph, inputs, run.file(MODEL))
    run.write(
        FILE,
        Origin(
            format=FORMAT, version=__version__, model=model, digest=digest(graph), steps_per_epoch=task.steps_per_epoch,
            source=source, folder=str(Path.cwd()), torch=torch.__version__, threads=torch.get_num_threads(),
            processes=run.world.size,
        ),
    )  # fmt: skip


def read_origin(folder: Path) -> Origin:
    """What a run was begun with.

    Raises:
        InputError: the folder is no run, its file is damaged, or another version wrote it in another form.
    """
    path = folder / FILE
    if not folder.is_dir():
        raise InputError(f"There is no run folder {folder}.")
    if not path.is_file():
        raise InputError(
            f"{folder} is no run that can go on: it has no {FILE}.",
            hint="Start it with 'fupruner optimize' and a new --out.",
        )
    try:
        origin = Origin.model_validate_json(path.read_text(encoding="utf-8"))
    except ValidationError as error:
        problem = error.errors()[0]
        raise InputError(f"{path} is damaged: {'.'.join(map(str, problem['loc']))}: {problem['msg']}.") from None
    if origin.format != FORMAT:
        raise InputError(f"{path} was written by version {origin.version}, in another form.")
    return origin


def find_model(origin: Origin, folder: Path) -> nn.Module:
    """The model that a run was begun with, by its name or from the run folder.

    Raises:
        InputError: it is not there any more.
    """
    if origin.source is None:
        return load_model(str(folder / MODEL)).module
    weights = origin.source.weights
    return load_model(origin.source.model, None if weights is None else Path(weights)).module


def find_task(origin: Origin, options: Options, folder: Path) -> Task:
    """The images that a run was begun with.

    Raises:
        InputError: they were handed over as an object, or are not there any more.
    """
    source = origin.source
    if source is None:
        raise InputError(
            f"The run in {folder} was begun with a task of its own, which cannot be found again.",
            hint=f"Use fupruner.resume({str(folder)!r}, task=...) with the same task.",
        )
    images = load_data(
        source.data, image_shape=source.image_shape, mean=source.mean, std=source.std, train_split=source.train_split,
        validation_split=source.validation_split,
    )  # fmt: skip
    return Classification(
        images, batch_size=options.batch_size, augment=source.augment, seed=options.seed,
        label_smoothing=options.label_smoothing,
    )  # fmt: skip


def require_same(origin: Origin, graph: fx.GraphModule, task: Task) -> None:
    """Make sure that model and data are those that the run was begun with.

    Raises:
        InputError: they are not.
    """
    if digest(graph) != origin.digest:
        raise InputError(
            f"The model {origin.model} is not the one that the run was begun with: its layers or weights differ.",
            hint="Put the weights back, or start a new run.",
        )
    if task.steps_per_epoch != origin.steps_per_epoch:
        raise InputError(
            f"The data is not what the run was begun with: {task.steps_per_epoch} steps an epoch instead of "
            f"{origin.steps_per_epoch}."
        )


def read_inputs(folder: Path) -> tuple[Tensor, ...]:
    """The example inputs of a run."""
    try:
        return tuple(torch.load(folder / INPUTS, weights_only=True))
    except (OSError, RuntimeError, ValueError, TypeError) as error:
        raise InputError(f"{folder / INPUTS} cannot be read: {error}") from None


def digest(graph: fx.GraphModule) -> str:
    """Of the kinds of layers in order, and of all weights with their names."""
    found = hashlib.sha256(" ".join(kind_of(graph, node) for node in graph.graph.nodes if "call" in node.op).encode())
    for name, value in graph.state_dict().items():
        found.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        found.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
