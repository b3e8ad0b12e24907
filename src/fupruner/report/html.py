"""A run's records, as one page that needs neither a network nor a server."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import jinja2
from markupsafe import Markup

from fupruner.report.data import RunReport, read_run
from fupruner.report.drawings import SIZE, kinds
from fupruner.report.sections import headline, sections, story, summary_table
from fupruner.report.words import verdict

HERE = Path(__file__).parent
PAGE = "report.html"


def write_report(folder: Path) -> Path:
    """Write the report of a finished run into its folder, all or nothing.

    Raises:
        InputError: the run has not finished, or one of its files cannot be read.
    """
    page = render(read_run(folder))
    with tempfile.NamedTemporaryFile("w", dir=folder, prefix=f".{PAGE}-", encoding="utf-8", delete=False) as file:
        try:
            file.write(page)
            file.flush()
            os.fsync(file.fileno())
            os.chmod(file.name, 0o644)
            os.replace(file.name, folder / PAGE)
        except BaseException:
            os.unlink(file.name)
            raise
    return folder / PAGE


def render(run: RunReport) -> str:
    """Build the page."""
    from plotly.offline import get_plotlyjs  # noqa: PLC0415 - slow to import, and needed only here

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    parts = sections(run)
    return environment.get_template("page.html.jinja").render(
        run=run,
        headline=headline(run),
        verdict=verdict(run.summary, run.metric),
        story=story(run),
        summary=summary_table(run),
        sections=parts,
        kinds=kinds(),
        box=SIZE,
        figures=[chart.figure() for section in parts for chart in section.charts],
        style=_ours("page.css"),
        script=_ours("page.js"),
        plotly=Markup(get_plotlyjs()),  # noqa: S704 - a library's file, no user's text
    )


def _ours(name: str) -> Markup:
    """A file of this package; never text that came from a run."""
    return Markup((HERE / name).read_text(encoding="utf-8"))  # noqa: S704
