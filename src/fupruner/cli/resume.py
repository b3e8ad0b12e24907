"""``fupruner resume``: go on with a run that was interrupted."""

# ruff: noqa: PLC0415 - what a command needs is imported when it runs, so that --help and bad input answer at once

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fupruner.cli.inputs import Json
from fupruner.cli.optimize import report_result
from fupruner.cli.progress import RichProgress
from fupruner.cli.shell import messages, results_only


def resume(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run that was interrupted.")],
    json: Json = False,
) -> int:
    """Go on with an interrupted run, to the network that it would have come to; a finished one is left as it is."""
    from fupruner.origin import read_origin
    from fupruner.resuming import is_finished
    from fupruner.resuming import resume as go_on

    read_origin(run)
    if is_finished(run):
        messages().print(f"The run in {run} is finished.", markup=False, soft_wrap=True)
        report_result(run, json)
        return 0
    with results_only(json), RichProgress(messages()) as progress:
        go_on(run, progress=progress)
    return report_result(run, json)
