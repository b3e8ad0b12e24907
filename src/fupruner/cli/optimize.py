"""``fupruner optimize``: the fastest network on a target that still meets an accuracy requirement."""

# ruff: noqa: PLC0415 - what a command needs is imported when it runs, so that --help and bad input answer at once

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import fupruner
from fupruner.bars import RichProgress
from fupruner.cli.flags import combined, default, option
from fupruner.cli.inputs import InputShape, Json, Weights, example_inputs, new_folder, outputs_of
from fupruner.cli.pictures import MeanStd, read_images
from fupruner.cli.processes import is_main
from fupruner.cli.shell import REQUIREMENT_NOT_MET, messages, output, print_json, results_only
from fupruner.cli.tables import carried_table, fired_table, move_table, operator_table, summary_table, width_table
from fupruner.options import Options
from fupruner.records import Preview, Summary
from fupruner.report import words
from fupruner.report.data import read_run
from fupruner.report.words import verdict

if TYPE_CHECKING:
    from torch import Tensor, nn

    from fupruner.runs.origin import Source
    from fupruner.training.task import Task

MODEL_HELP = "module:callable, .onnx, .pt2, torchvision:, timm:, fupruner:"
DATA_HELP = "Class folders, parquet, hf:NAME or digits."


def optimize(
    context: typer.Context,
    *,
    model: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP)],
    data: Annotated[str, typer.Option("--data", help=DATA_HELP)],
    out: Annotated[Path, typer.Option("--out", help="Folder of the run; new or empty.")],
    weights: Weights = None,
    input_shape: InputShape = None,
    mean_std: MeanStd = None,
    options_file: Annotated[
        Path | None, typer.Option("--options", help="Options file, see 'fupruner init'; flags override it.")
    ] = None,
    target: Annotated[str, option("target")] = default("target"),
    fit_on_chip: Annotated[bool, option("fit_on_chip")] = default("fit_on_chip"),
    ship: Annotated[str, option("ship")] = default("ship"),
    device: Annotated[str | None, option("device")] = default("device"),
    max_drop: Annotated[float, option("max_drop")] = default("max_drop"),
    speedup: Annotated[float | None, option("speedup")] = default("speedup"),
    epochs: Annotated[int, option("epochs")] = default("epochs"),
    fusion: Annotated[str, option("fusion")] = default("fusion"),
    importance: Annotated[str, option("importance")] = default("importance"),
    batch_size: Annotated[int, option("batch_size")] = default("batch_size"),
    learning_rate: Annotated[float, option("learning_rate")] = default("learning_rate"),
    seed: Annotated[int, option("seed")] = default("seed"),
    threads: Annotated[int, option("threads")] = default("threads"),
    checkpoint_every: Annotated[float, option("checkpoint_every")] = default("checkpoint_every"),
    tensorboard: Annotated[bool, option("tensorboard")] = default("tensorboard"),
    more: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="<k=v>", help="Any option of that file, like ema=0.99; repeatable."),
    ] = None,
    train_split: Annotated[str | None, typer.Option("--train-split", help="Split to train on.")] = None,
    validation_split: Annotated[str | None, typer.Option("--validation-split", help="Split to judge by.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Tell what would be done; train and write nothing.")
    ] = False,
    json: Json = False,
) -> int:
    """Make MODEL fast on a target within an accuracy requirement; exit code 1 if that was not possible."""
    options = combined(context, options_file, more or ())
    if is_main():
        new_folder(out)
    with results_only(json), RichProgress(messages()) as progress:
        look = {"shape": input_shape, "mean_std": mean_std, "splits": _splits(train_split, validation_split)}
        job = _load(options, model, weights, data, look=look, progress=progress)
        if dry_run:
            foreseen = fupruner.preview(job.module, job.inputs, job.task, progress=progress, **job.options)
        else:
            fupruner.optimize(
                job.module, job.inputs, job.task, out=out, progress=progress, source=job.source, **job.options
            )
    if dry_run:
        if is_main():
            _show_preview(foreseen, json)
        return 0
    return report_result(out, json)


def report_result(out: Path, json: bool) -> int:
    """Print what a finished run achieved; returns the exit code, which is for the main process to give."""
    if not is_main():
        return 0
    summary = read_run(out).summary
    if json:
        print_json({**summary.model_dump(mode="json"), "out": str(out)})
    else:
        _show(summary, out)
    return 0 if summary.requirement.satisfied else REQUIREMENT_NOT_MET


@dataclass(frozen=True)
class _Job:
    """What the names on the command line stand for."""

    module: nn.Module
    inputs: tuple[Tensor, ...]
    task: Task
    source: Source
    options: dict[str, Any]


def _splits(train: str | None, validation: str | None) -> dict[str, str]:
    given = {"train_split": train, "validation_split": validation}
    return {name: value for name, value in given.items() if value is not None}


def _load(
    options: Options, model: str, weights: Path | None, data: str, *, look: dict[str, Any], progress: RichProgress
) -> _Job:
    """Load what the names stand for, cheapest first."""
    from fupruner.models.resolve import load_model
    from fupruner.runs.origin import named_source
    from fupruner.targets.registry import get_target
    from fupruner.training.data import check_labels
    from fupruner.training.task import labelled_images

    get_target(options.target, options.ship, options.device)
    loaded = load_model(model, weights)
    images = read_images(loaded, data, **look)
    inputs = example_inputs(images.train.image_shape)
    check_labels(images, outputs_of(loaded.module, inputs))
    task = labelled_images(images, options)
    for note in images.notes:
        progress.note(note)
    source = named_source(model, weights, data, images, task.augment, look["splits"])
    return _Job(loaded.module, inputs, task, source, options.model_dump())


def _show_preview(foreseen: Preview, json: bool) -> None:
    if json:
        print_json({"dry_run": True, **foreseen.model_dump(mode="json")})
        return
    console, plan = output(), foreseen.plan
    parts = (
        operator_table(foreseen.fusion),
        fired_table(foreseen.fusion),
        width_table(plan),
        carried_table(plan),
        move_table(plan),
    )
    for part in parts:
        console.print(part)
    before, after = words.milliseconds(plan.baseline_ms), words.milliseconds(plan.predicted_ms)
    for line in (
        f"Predicted time on {foreseen.target} ({plan.grade}), asked for {foreseen.asked_speedup:.2f}x: {before} -> {after}.",
        f"Would train up to {words.plural(foreseen.attempts, 'attempt')} of {words.plural(foreseen.epochs, 'epoch')} "
        f"({foreseen.steps} steps) each, and decide anew while training.",
        "Dry run: nothing was trained, nothing was written.",
    ):
        console.print(line, markup=False, soft_wrap=True)


def _show(summary: Summary, out: Path) -> None:
    console = output()
    console.print(summary_table(summary))
    console.print(verdict(summary), style="green" if summary.requirement.satisfied else "yellow", markup=False)
    found = read_run(out)
    judged = words.which_data(elsewhere=found.is_judged_elsewhere, of_the_search=False)
    for line in (*judged, *words.certainty(summary)):
        console.print(line, markup=False, soft_wrap=True)
    if found.shipped is not None:
        shipped = f"Ships as {found.shipped.ships}, {found.shipped.precision}, judged in {found.shipped.judged_in}."
        console.print(shipped, markup=False, soft_wrap=True)
    console.print(f"Report: {out / 'report.html'}", markup=False, soft_wrap=True)
    main = found.shipped.files[0] if found.shipped else "model.onnx"
    console.print(f"Model:  {out / main}  (and {out / 'model.pt2'} for PyTorch)", markup=False, soft_wrap=True)
