"""``fupruner bench``: time exported networks side by side."""

# ruff: noqa: PLC0415 - what a command needs is imported when it runs, so that --help and bad input answer at once

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fupruner.bars import RichProgress
from fupruner.cli.flags import default, option, parse
from fupruner.cli.inputs import Json, example_inputs, shipped_file, shipped_input_shape
from fupruner.cli.shell import messages, output, print_json, results_only
from fupruner.cli.tables import latency_table
from fupruner.errors import InputError


def bench(
    *,
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE...", help="Exported networks or run folders; the first is the reference."),
    ],
    target: Annotated[str, option("target")] = default("target"),
    device: Annotated[str | None, option("device")] = default("device"),
    threads: Annotated[int, option("threads")] = default("threads"),
    json: Json = False,
) -> None:
    """Time networks in turn at batch 1, so that drifts of the machine hit all of them alike."""
    from fupruner.targets.registry import get_target

    parse(target=target, threads=threads)
    chosen = get_target(target, device=device)
    paths = [shipped_file(path, chosen.suffix) for path in files]
    shapes = {path: shipped_input_shape(path) for path in paths}
    if len(set(shapes.values())) > 1:
        raise InputError(
            "The networks take different inputs: " + ", ".join(f"{p} {s}" for p, s in shapes.items()) + "."
        )
    with results_only(json), RichProgress(messages()):
        comparison = chosen.compare(paths, example_inputs(shapes[paths[0]]), threads=threads)
    if json:
        print_json({"files": [str(path) for path in paths], **comparison.model_dump(mode="json")})
    else:
        output().print(latency_table(paths, comparison))
