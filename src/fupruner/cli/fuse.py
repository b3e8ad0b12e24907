"""``fupruner fuse``: rewrite a network into an equivalent one with fewer operators."""

# ruff: noqa: PLC0415 - what a command needs is imported when it runs, so that --help and bad input answer at once

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fupruner.cli.flags import allowed
from fupruner.cli.inputs import example_inputs, new_file
from fupruner.cli.shell import output, print_json, results_only
from fupruner.cli.tables import fired_table, operator_table, refused_table
from fupruner.records import FusionLog


def fuse(
    *,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Network, named as for 'fupruner optimize'.")],
    level: Annotated[str, typer.Option("--level", help=f"Allowed: {allowed('fusion')}.")] = "aggressive",
    weights: Annotated[Path | None, typer.Option("--weights", help="Trained weights: .safetensors or .pt.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="File to write: .onnx or .pt2.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Rewrite MODEL into an equivalent network; nothing is trained and nothing is pruned."""
    if out is not None:
        new_file(out, (".onnx", ".pt2"))
    with results_only(json):
        log = _run(model, weights, level, out)
    if json:
        print_json({**log.model_dump(mode="json"), "out": out})
    else:
        _show(log, out)


def _run(model: str, weights: Path | None, level: str, out: Path | None) -> FusionLog:
    import fupruner
    from fupruner.models.resolve import load_model

    loaded = load_model(model, weights)
    inputs = example_inputs(loaded.input_shape)
    result = fupruner.fuse(loaded.module, inputs, level=level)
    if out is not None:
        fupruner.export(result.module, inputs, out)
    return result.log


def _show(log: FusionLog, out: Path | None) -> None:
    console = output()
    console.print(operator_table(log))
    console.print(fired_table(log) if log.fired else "No rule fired.")
    if log.refused:
        console.print(refused_table(log))
    tried = f" on inputs {', '.join(log.checked_inputs)}" if log.checked_inputs else ""
    console.print(f"Largest error: {log.max_error:.1e} in float64, {log.max_error_float32:.1e} in float32{tried}.")
    if out is not None:
        console.print(f"Written: {out}", markup=False, soft_wrap=True)
