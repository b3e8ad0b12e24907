"""Fills the templates of pages that need neither a network nor a server: styles, scripts and the chart library are inside."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from fupruner.report.plotting import Chart

_HERE = Path(__file__).parent


def filled(template: str, charts: Iterable[Chart], **values: Any) -> str:
    """A page. Values are escaped unless they are ``Markup``.

    Args:
        template: name of a file of this package.
        charts: to be drawn, in the order in which the template places them.
        values: what the template names.
    """
    from plotly.offline import get_plotlyjs  # noqa: PLC0415 - slow to import, and needed only here

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    return environment.get_template(template).render(
        figures=[chart.figure() for chart in charts],
        style=_ours("page.css"),
        script=_ours("page.js"),
        plotly=Markup(get_plotlyjs()),  # noqa: S704 - a library's file, no user's text
        **values,
    )


def _ours(name: str) -> Markup:
    """A file of this package; never text that came from a run."""
    return Markup((_HERE / name).read_text(encoding="utf-8"))  # noqa: S704
