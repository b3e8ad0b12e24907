"""``fupruner export``: write an optimised network in a target's format."""

# ruff: noqa: PLC0415 - what a command needs is imported when it runs, so that --help and bad input answer at once

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import fupruner
from fupruner.bars import RichProgress
from fupruner.cli.flags import default, option, parse
from fupruner.cli.inputs import (
    InputShape,
    Json,
    Weights,
    load_network,
    new_folder,
    require_calibration,
)
from fupruner.cli.pictures import MeanStd, labelled_images
from fupruner.cli.shell import messages, output, print_json, results_only


def export(
    *,
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Run folder, or a network named as for 'fupruner optimize'.")
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder to write to; new or empty.")],
    target: Annotated[str, option("target")] = default("target"),
    ship: Annotated[str, option("ship")] = default("ship"),
    weights: Weights = None,
    data: Annotated[
        str | None, typer.Option("--data", help="Images to calibrate int8 on, named as for 'optimize'.")
    ] = None,
    input_shape: InputShape = None,
    mean_std: MeanStd = None,
    json: Json = False,
) -> None:
    """Write a network in a target's format, and check the file in the target's runtime."""
    from fupruner.targets.registry import get_target

    parse(target=target, ship=ship)
    new_folder(out)
    device = get_target(target, ship)
    require_calibration(device, data)
    name = "model" + device.suffix
    with results_only(json), RichProgress(messages()):
        network = load_network(model, weights, input_shape)
        images = None if data is None else labelled_images(network, data, mean_std)
        out.mkdir(parents=True, exist_ok=True)
        result = fupruner.export(network.module, network.inputs, out / name, target=target, data=images, ship=ship)
    if json:
        print_json({"files": [str(file) for file in result.files], "max_error": result.max_error})
        return
    for file in result.files:
        output().print(f"Written: {file}", markup=False, soft_wrap=True)
    output().print(f"Largest error in the target's runtime: {result.max_error:.1e}.")
