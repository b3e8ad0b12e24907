"""``fupruner export``: write an optimised network in a target's format."""

# ruff: noqa: PLC0415 - what a command needs is imported when it runs, so that --help and bad input answer at once

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fupruner.cli.flags import default, option, parse
from fupruner.cli.inputs import example_inputs, new_folder
from fupruner.cli.shell import output, print_json, results_only


def export(
    *,
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Run folder, or a network named as for 'fupruner optimize'.")
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder to write to; new or empty.")],
    target: Annotated[str, option("target")] = default("target"),
    weights: Annotated[Path | None, typer.Option("--weights", help="Trained weights: .safetensors or .pt.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Write a network in a target's format, and check the file in the target's runtime."""
    import fupruner
    from fupruner.models.resolve import load_model
    from fupruner.targets.registry import get_target

    parse(target=target)
    new_folder(out)
    get_target(target)
    with results_only(json):
        name = str(Path(model) / "model.pt2") if Path(model).is_dir() else model
        loaded = load_model(name, weights)
        out.mkdir(parents=True, exist_ok=True)
        result = fupruner.export(loaded.module, example_inputs(loaded.input_shape), out / "model.onnx", target=target)
    if json:
        print_json({"files": [str(file) for file in result.files], "max_error": result.max_error})
        return
    for file in result.files:
        output().print(f"Written: {file}", markup=False, soft_wrap=True)
    output().print(f"Largest error in the target's runtime: {result.max_error:.1e}.")
