"""``fupruner targets``: the devices that networks can be made for."""

# ruff: noqa: PLC0415 - what a command needs is imported when it runs, so that --help and bad input answer at once

from __future__ import annotations

from fupruner.cli.inputs import Json
from fupruner.cli.shell import output, print_json
from fupruner.cli.tables import table


def targets(
    json: Json = False,
) -> None:
    """List the targets with their file format, precision and channel alignment."""
    from fupruner.targets.registry import get_target, target_names

    known = [get_target(name) for name in target_names()]
    if json:
        facts = [{"name": t.name, "ships": t.ships, "precision": t.precision, "alignment": t.alignment} for t in known]
        print_json({"targets": facts})
        return
    rows = ((t.name, t.ships, t.precision, str(t.alignment)) for t in known)
    output().print(table("Targets", ("name", "ships as", "precision", "channel alignment"), rows, text_columns=3))
