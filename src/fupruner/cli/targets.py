"""``fupruner targets``: the devices that networks can be made for, and the software behind them."""

# ruff: noqa: PLC0415 - what a command needs is imported when it runs, so that --help and bad input answer at once

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from fupruner.cli.inputs import Json
from fupruner.cli.shell import messages, output, print_json
from fupruner.cli.tables import table
from fupruner.errors import TargetError

if TYPE_CHECKING:
    from fupruner.targets.base import Target


def targets(
    *,
    install: Annotated[
        str | None, typer.Option("--install", metavar="TARGET", help="Bring the tools of a target first.")
    ] = None,
    json: Json = False,
) -> None:
    """List the targets: what they ship, how latency is obtained, which tools are here, and how to get those that are not."""
    from fupruner.targets.registry import get_target, target_names

    brought: list[str] = []
    if install is not None:
        device = get_target(install)
        messages().print(f"Installing the tools of {device.name} ...", markup=False)
        brought = device.install()
    known: list[Target] = []
    broken: list[str] = []
    for name in target_names():
        try:
            known.append(get_target(name))
        except TargetError as error:  # a package of somebody else; the others are fine
            broken.append(str(error))
    if json:
        facts = [_facts(t) for t in known]
        print_json({"targets": facts, "broken": broken, "installed": brought})
        return
    console = output()
    if install is not None:
        said = f"Installed: {', '.join(brought)}" if brought else f"There is nothing to install for {install}."
        console.print(said, markup=False, soft_wrap=True)
    columns = ("name", "ships as", "precision", "channel alignment", "latency is", "accuracy is judged in")
    rows = ((t.name, t.ships, " or ".join(_formats(t)), str(t.alignment), t.grade, t.judged_in) for t in known)
    console.print(table("Targets", columns, rows, text_columns=6))
    tools = (
        (t.name, tool.name, tool.purpose, tool.found or "missing", "" if tool.found else tool.get)
        for t in known
        for tool in t.tools()
    )
    console.print(table("Tools", ("target", "tool", "purpose", "here", "get it with"), tools, text_columns=5))
    for line in broken:
        console.print(line, markup=False, soft_wrap=True)


def _formats(target: Target) -> list[str]:
    """Number formats in which networks can ship, the target's own first."""
    return [target.precision, *(name for name, value in target.formats.items() if not isinstance(value, str))]


def _facts(target: Target) -> dict[str, object]:
    return {
        "name": target.name,
        "ships": target.ships,
        "precision": target.precision,
        "formats": _formats(target),
        "alignment": target.alignment,
        "latency": target.grade,
        "judged_in": target.judged_in,
        "tools": [asdict(tool) for tool in target.tools()],
    }
