"""A run's records, as one page that needs neither a network nor a server."""

from __future__ import annotations

from pathlib import Path

from fupruner.report.data import RunReport, read_run
from fupruner.report.drawings import SIZE, kinds
from fupruner.report.sections import headline, sections, story, summary_table
from fupruner.report.template import filled
from fupruner.report.words import verdict
from fupruner.runs.run_folder import write_atomically

PAGE = "report.html"


def write_report(folder: Path) -> Path:
    """Write the report of a finished run into its folder, all or nothing.

    Raises:
        InputError: the run has not finished, or one of its files cannot be read.
    """
    write_atomically(folder / PAGE, render(read_run(folder)))
    return folder / PAGE


def render(run: RunReport) -> str:
    """Build the page."""
    parts = sections(run)
    return filled(
        "page.html.jinja",
        [chart for section in parts for chart in section.charts],
        run=run,
        headline=headline(run),
        verdict=verdict(run.summary, run.metric),
        story=story(run),
        summary=summary_table(run),
        sections=parts,
        kinds=kinds(),
        box=SIZE,
    )
