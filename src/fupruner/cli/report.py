"""``fupruner report``: write the page of finished runs again."""

# ruff: noqa: PLC0415 - what a command needs is imported when it runs, so that --help and bad input answer at once

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fupruner.cli.inputs import Json
from fupruner.cli.shell import output, print_json
from fupruner.sweeping.records import FILE as SWEEP


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of finished runs and sweeps.")],
    json: Json = False,
) -> None:
    """Write report.html of each run or sweep folder from its records."""
    from fupruner.report.html import write_report
    from fupruner.report.sweep_page import write_sweep_report

    pages = [write_sweep_report(run) if (run / SWEEP).is_file() else write_report(run) for run in runs]
    if json:
        print_json({"reports": [str(page) for page in pages]})
        return
    for page in pages:
        output().print(f"Report: {page}", markup=False, soft_wrap=True)
