"""``fupruner fuse``: rewrite a network into an equivalent one with fewer operators."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, get_args

import typer

import fupruner
from fupruner.bars import RichProgress
from fupruner.cli.inputs import (
    InputShape,
    Json,
    Network,
    Weights,
    load_network,
    new_file,
    not_the_input,
)
from fupruner.cli.pictures import MeanStd, labelled_images
from fupruner.cli.shell import messages, output, print_json, results_only
from fupruner.cli.tables import fired_table, operator_table, refused_table
from fupruner.errors import unknown_name
from fupruner.options import FusionLevel
from fupruner.records import FusionLog

LEVELS: tuple[str, ...] = get_args(FusionLevel)


def fuse(
    *,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Network, named as for 'fupruner optimize'.")],
    level: Annotated[str, typer.Option("--level", help=f"Allowed: one of {', '.join(LEVELS)}.")] = "aggressive",
    target: Annotated[str, typer.Option("--target", help="Device whose cost model level auto asks.")] = "cpu",
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="RULE", help="Use this rule alone; repeatable.")
    ] = None,
    without: Annotated[
        list[str] | None, typer.Option("--without", metavar="RULE", help="Leave a rule out; repeatable.")
    ] = None,
    weights: Weights = None,
    data: Annotated[
        str | None,
        typer.Option("--data", help="Images on which the result is proved too, named as for 'optimize'."),
    ] = None,
    input_shape: InputShape = None,
    mean_std: MeanStd = None,
    out: Annotated[Path | None, typer.Option("--out", help="File to write: .onnx or .pt2.")] = None,
    json: Json = False,
) -> None:
    """Rewrite MODEL into an equivalent network; nothing is trained and nothing is pruned."""
    if level not in LEVELS:
        raise unknown_name("fusion level", level, LEVELS)
    if out is not None:
        new_file(out, (".onnx", ".pt2"))
        not_the_input(out, model)
    with results_only(json), RichProgress(messages()):
        network = load_network(model, weights, input_shape)
        chosen = {"level": level, "target": target, "only": tuple(only or ()), "without": tuple(without or ())}
        images = {} if data is None else {"data": labelled_images(network, data, mean_std)}
        log = _run(network, {**chosen, **images}, out)
    if json:
        print_json({**log.model_dump(mode="json"), "out": out})
    else:
        _show(log, out)


def _run(network: Network, chosen: dict[str, Any], out: Path | None) -> FusionLog:
    result = fupruner.fuse(network.module, network.inputs, **chosen)
    if out is not None:
        fupruner.export(result.module, network.inputs, out)
    return result.log


def _show(log: FusionLog, out: Path | None) -> None:
    console = output()
    console.print(operator_table(log))
    console.print(fired_table(log) if log.fired else "No rule fired.")
    if log.refused:
        console.print(refused_table(log))
    tried = f" on inputs {', '.join(log.checked_inputs)}" if log.checked_inputs else ""
    console.print(
        f"Largest error: {log.max_error:.1e} in float64, {log.max_error_float32:.1e} in float32{tried}.", soft_wrap=True
    )
    if out is not None:
        console.print(f"Written: {out}", markup=False, soft_wrap=True)
