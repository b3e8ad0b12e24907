"""``fupruner resume``: go on with a run that was interrupted."""

# ruff: noqa: PLC0415 - what a command needs is imported when it runs, so that --help and bad input answer at once

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fupruner.bars import RichProgress
from fupruner.cli.inputs import Json
from fupruner.cli.optimize import report_result
from fupruner.cli.processes import is_main
from fupruner.cli.shell import messages, results_only


def resume(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run that was interrupted.")],
    json: Json = False,
) -> int:
    """Go on with an interrupted run, to the network that it would have come to; a finished one is left as it is."""
    from fupruner.runs.resuming import is_finished
    from fupruner.runs.resuming import resume as go_on

    finished = is_main() and is_finished(run)
    if finished:
        messages().print(f"The run in {run} is finished.", markup=False, soft_wrap=True)
    with results_only(json), RichProgress(messages()) as progress:
        go_on(run, progress=progress)
    code = report_result(run, json)
    return 0 if finished else code
