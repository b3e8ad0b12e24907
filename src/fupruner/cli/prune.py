"""``fupruner prune``: remove filters once, without training; better with images, possible without."""

# ruff: noqa: PLC0415 - what a command needs is imported when it runs, so that --help and bad input answer at once

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import fupruner
from fupruner.bars import RichProgress
from fupruner.cli.flags import default, option, parse
from fupruner.cli.inputs import (
    InputShape,
    Json,
    Network,
    Weights,
    load_network,
    new_file,
    not_the_input,
    require_calibration,
)
from fupruner.cli.pictures import MeanStd, labelled_images
from fupruner.cli.shell import messages, output, print_json, results_only
from fupruner.cli.tables import width_table
from fupruner.errors import InputError
from fupruner.options import ONE_SHOT_PLANS
from fupruner.report import words

if TYPE_CHECKING:
    from fupruner.results import PruneResult


def prune(
    *,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Network, named as for 'fupruner optimize'.")],
    out: Annotated[Path, typer.Option("--out", help="File to write: .onnx or .pt2.")],
    ratio: Annotated[float | None, typer.Option("--ratio", help="Part of the filters to remove, 0 to 1.")] = None,
    speedup: Annotated[
        float | None, typer.Option("--speedup", help="Speed-up wanted on the target, more than 1.")
    ] = None,
    fit_on_chip: Annotated[bool, option("fit_on_chip")] = default("fit_on_chip"),
    target: Annotated[str, option("target")] = default("target"),
    ship: Annotated[str, option("ship")] = default("ship"),
    device: Annotated[str | None, option("device")] = default("device"),
    weights: Weights = None,
    data: Annotated[
        str | None, typer.Option("--data", help="Images to score filters on, named as for 'optimize'.")
    ] = None,
    plans: Annotated[
        int,
        typer.Option(
            "--plans", help=f"With --data: plans judged as a whole. (default {ONE_SHOT_PLANS})", show_default=False
        ),
    ] = ONE_SHOT_PLANS,
    input_shape: InputShape = None,
    mean_std: MeanStd = None,
    json: Json = False,
) -> None:
    """Prune MODEL in one shot; nothing is trained and accuracy is not looked at (see 'optimize').

    Without images filters are chosen by their norms. With --data they are chosen by their effect on the loss, and what is
    left takes over what was removed.
    """
    from fupruner.targets.registry import get_target

    if [ratio is not None, speedup is not None, fit_on_chip].count(True) != 1:
        raise InputError("Give exactly one of --ratio, --speedup and --fit-on-chip.", hint="For example: --speedup 2")
    if ratio is not None and not 0 < ratio < 1:
        raise InputError(f"--ratio {ratio}: must be more than 0 and less than 1.")
    parse(target=target, speedup=speedup, ship=ship, plans=plans)
    chosen = get_target(target, ship, device)
    require_calibration(chosen, data)
    new_file(out, (chosen.suffix, ".pt2"))
    not_the_input(out, model)
    amount = {name: value for name, value in (("ratio", ratio), ("speedup", speedup)) if value is not None}
    with results_only(json), RichProgress(messages()):
        network = load_network(model, weights, input_shape)
        images = None if data is None else labelled_images(network, data, mean_std)
        asked = {**amount, "device": device, "fit_on_chip": fit_on_chip, "plans": plans}
        result = _run(network, asked, {"target": target, "ship": ship, "data": images}, out)
    if json:
        reached = {"speedup": result.speedup, "speedup_grade": result.grade}
        print_json({**result.plan.model_dump(mode="json"), **reached, "out": out})
    else:
        _show(result, out)


def _run(network: Network, amount: dict[str, Any], how: dict[str, Any], out: Path) -> PruneResult:
    result = fupruner.prune(network.module, network.inputs, **amount, **how)
    fupruner.export(result.module, network.inputs, out, **how)
    return result


def _show(result: PruneResult, out: Path) -> None:
    console, plan = output(), result.plan
    console.print(width_table(plan))
    before, after = words.milliseconds(plan.baseline_ms), words.milliseconds(plan.predicted_ms)
    console.print(f"Predicted time on {plan.target} ({plan.grade}): {before} -> {after}.", markup=False)
    console.print(f"Speed-up over the original ({result.grade}): {result.speedup:.2f}x.", markup=False)
    console.print(f"Written: {out}", markup=False, soft_wrap=True)
