"""``fupruner sweep``: many runs with different options, and the networks that no other one beats."""

# ruff: noqa: PLC0415 - what a command needs is imported when it runs, so that --help and bad input answer at once

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import fupruner
from fupruner.bars import RichProgress
from fupruner.cli.inputs import Json, example_inputs, outputs_of
from fupruner.cli.pictures import read_images
from fupruner.cli.shell import REQUIREMENT_NOT_MET, messages, output, print_json, results_only
from fupruner.cli.tables import table
from fupruner.options import Options
from fupruner.sweeping.file import SweepFile, read_sweep_file


def sweep(
    *,
    file: Annotated[Path, typer.Argument(metavar="OPTIONS.toml", help="What stays, what varies; form above.")],
    out: Annotated[Path, typer.Option("--out", help="Folder: new, empty, or that of the same sweep.")],
    ray: Annotated[
        str | None,
        typer.Option("--ray", metavar="ADDRESS", help="Run trials on a Ray cluster: host:port, auto, local."),
    ] = None,
    json: Json = False,
) -> int:
    """Run 'optimize' with many options; exit code 1 if no trial met its requirement.

    Run the same command again to go on with an interrupted sweep. OPTIONS.toml, for example:

    \b
      model = "fupruner:resnet20"        # also: weights, input_shape, mean_std, train_split, validation_split
      data = "path/to/images"
      method = "grid"                    # or "search", with trials = 20 and seed = 0
      \\[options]                           # the same for all trials
      epochs = 2
      \\[space]                             # what varies
      fusion = ["none", "basic", "auto"]
      speedup = [1.5, 2.0, 3.0]          # search also takes { low = 1.2, high = 3.0 }
    """  # noqa: D301 - \b keeps the lines of the example apart
    given = read_sweep_file(file)
    with results_only(json):
        result = _run(given, out, ray)
    if json:
        from fupruner.sweeping.records import read_sweep

        print_json({**read_sweep(out).model_dump(mode="json"), "out": str(out)})
    else:
        _show(out)
    return 0 if any(trial.satisfied for trial in result.trials) else REQUIREMENT_NOT_MET


def _run(given: SweepFile, out: Path, ray: str | None) -> fupruner.SweepResult:
    from fupruner.models.resolve import load_model
    from fupruner.targets.registry import get_target
    from fupruner.training.data import check_labels
    from fupruner.training.task import labelled_images

    options = Options(**given.options)
    get_target(options.target, options.ship, options.device)
    loaded = load_model(given.model, given.weights)
    images = read_images(loaded, given.data, given.splits, given.input_shape, given.mean_std)
    inputs = example_inputs(images.train.image_shape)
    check_labels(images, outputs_of(loaded.module, inputs))
    with RichProgress(messages()) as progress:
        for note in images.notes:
            progress.note(note)
        return fupruner.sweep(
            loaded.module, inputs, lambda options: labelled_images(images, options), given.space, out=out, options=given.options,
            method=given.method, trials=given.trials, seed=given.seed, ray=ray, progress=progress,
        )  # fmt: skip


def _show(out: Path) -> None:
    from fupruner.report.sweep_page import headline, story, trial_table
    from fupruner.sweeping.records import read_sweep

    found = read_sweep(out)
    trials = trial_table(found)
    console = output()
    shown = len(trials.columns) - 2  # sizes are in the report; a terminal is narrow
    rows = [row[:shown] for row in trials.rows]
    console.print(table(headline(found), trials.columns[:shown], rows, text_columns=trials.text_columns))
    for line in story(found):
        console.print(line, markup=False, soft_wrap=True)
    console.print(f"Report: {out / 'report.html'}", markup=False, soft_wrap=True)
