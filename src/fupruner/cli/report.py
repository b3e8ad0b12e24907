"""``fupruner report``: write the page of finished runs again."""

# ruff: noqa: PLC0415 - what a command needs is imported when it runs, so that --help and bad input answer at once

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fupruner.cli.inputs import Json
from fupruner.cli.shell import output, print_json
from fupruner.errors import InputError
from fupruner.sweeping.records import FILE as SWEEP


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of finished runs and sweeps.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Page that compares several runs. (default comparison.html beside the first)"),
    ] = None,
    json: Json = False,
) -> None:
    """Write report.html of each run or sweep folder from its records; several runs are also compared on one page."""
    from fupruner.report.compare_page import write_comparison
    from fupruner.report.html import write_report
    from fupruner.report.sweep_page import write_sweep_report

    pages = [write_sweep_report(run) if (run / SWEEP).is_file() else write_report(run) for run in runs]
    finished = [run for run in runs if not (run / SWEEP).is_file()]
    comparison = None
    if len(finished) > 1:
        page = out or finished[0].resolve().parent / "comparison.html"
        if not page.parent.is_dir():
            raise InputError(f"--out {page}: there is no folder {page.parent}.", hint=f"mkdir -p {page.parent}")
        comparison = write_comparison(finished, page)
    if json:
        print_json({"reports": [str(page) for page in pages], "comparison": comparison})
        return
    for page in pages:
        output().print(f"Report: {page}", markup=False, soft_wrap=True)
    if comparison is not None:
        output().print(f"Comparison: {comparison}", markup=False, soft_wrap=True)
