"""What charts are made of: curves, bars, axes. Colours are names of CSS variables, so that the page's theme decides."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Trace = dict[str, Any]
SERIES = ("var(--series-1)", "var(--series-2)", "var(--series-3)", "var(--series-4)", "var(--series-5)")
SYMBOLS = ("circle", "square", "triangle-up", "cross", "star")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
LONGEST_LABEL = 22


@dataclass(frozen=True)
class Chart:
    """One figure.

    Attributes:
        name: id of the element that holds it.
        title: heading above the chart.
        alternative: what the chart shows, for those who cannot see it.
        height: in pixels.
    """

    name: str
    title: str
    alternative: str
    data: tuple[Trace, ...]
    layout: dict[str, Any]
    height: int = 380

    def figure(self) -> dict[str, Any]:
        """Write the chart the way Plotly takes it."""
        return {"name": self.name, "data": self.data, "layout": {**self.layout, "height": self.height}}


@dataclass(frozen=True)
class Point:
    """One network in the plane of latency and accuracy."""

    name: str
    latency_ms: float
    accuracy: float


def shorten(name: str, longest: int = LONGEST_LABEL) -> str:
    """Cut the middle out of a long name: both ends of a layer's name carry its meaning."""
    if len(name) <= longest:
        return name
    tail = longest * 2 // 3
    return f"{name[: longest - tail - 1]}…{name[-tail:]}"


def line(name: str, x: Sequence[float], y: Sequence[float], colour: str, dash: str) -> Trace:
    """A line through points."""
    line = {"color": colour, "dash": dash, "width": 1.5}
    return {"type": "scatter", "mode": "lines", "name": name, "x": x, "y": y, "line": line, "hoverinfo": "skip"}


def curve(name: str, points: Sequence[tuple[float, float]], hover: Sequence[str], place: int) -> Trace:
    """A line with a marker at each point, told apart by colour, dash and symbol."""
    colour = SERIES[place % len(SERIES)]
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": name,
        "x": [x for x, _ in points],
        "y": [y for _, y in points],
        "hovertext": list(hover),
        "hovertemplate": "%{hovertext}: %{y}<extra></extra>",
        "line": {"color": colour, "dash": DASHES[place % len(DASHES)], "width": 2},
        "marker": {"color": colour, "symbol": SYMBOLS[place % len(SYMBOLS)], "size": 8},
    }


def bar(
    name: str, lengths: Sequence[float], rows: Sequence[int], names: Sequence[str], colour: str, **place: float
) -> Trace:
    """Horizontal bars, one per row."""
    return {
        "type": "bar",
        "orientation": "h",
        "name": name,
        "x": list(lengths),
        "y": list(rows),
        "hovertext": [html.escape(each) for each in names],
        "hovertemplate": "%{hovertext}<br>" + name + " %{x:.4g}<extra></extra>",
        "marker": {"color": colour},
        **place,
    }


def row_places(names: Sequence[str]) -> list[int]:
    """Bars sit at numbers, not at names: two long names may look the same once they are shortened."""
    return list(range(len(names)))


def names_axis(names: Sequence[str]) -> dict[str, Any]:
    """One row per name, from top to bottom."""
    ticks = {
        "tickmode": "array",
        "tickvals": row_places(names),
        "ticktext": [html.escape(shorten(name)) for name in names],
    }
    return {
        **axis(""),
        **ticks,
        "range": [len(names) - 0.5, -0.5],
        "automargin": True,
        "showgrid": False,
        "zeroline": False,
    }


def bars_height(rows: int, row: int) -> int:
    """Pixels for so many rows; very many stand closer."""
    return 120 + rows * (row if rows <= 100 else row * 3 // 4)


def tick(length: float) -> int:
    """Distance of the ticks of an axis that counts epochs: whole numbers, at most about twelve of them."""
    return max(1, round(length / 12))


def axis(title: str, **more: object) -> dict[str, Any]:
    """An axis with a title; readers cannot move it by accident."""
    lines = {"gridcolor": "var(--rule)", "linecolor": "var(--rule)", "zerolinecolor": "var(--rule)"}
    return {"title": {"text": title, "standoff": 12}, "automargin": True, "fixedrange": True, **lines, **more}


def bars_layout(title: str, names: Sequence[str]) -> dict[str, Any]:
    """Lay out one row per name; the scale is on top, where it is seen first."""
    margin = {"l": 20, "r": 20, "t": 92, "b": 12}
    return laid_out(xaxis=axis(title, side="top"), yaxis=names_axis(names), barmode="overlay", margin=margin)


def laid_out(**more: object) -> dict[str, Any]:
    """What all charts have in common."""
    return {
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "inherit", "size": 12, "color": "var(--ink)"},
        "hoverlabel": {"bgcolor": "var(--paper)", "bordercolor": "var(--rule)", "font": {"color": "var(--ink)"}},
        "margin": {"l": 56, "r": 20, "t": 64, "b": 48},
        "legend": {"orientation": "h", "x": 0, "xanchor": "left", "y": 1, "yanchor": "top", "yref": "container"},
        "dragmode": False,
        **more,
    }


def cloud(name: str, points: Sequence[Point], colour: str, symbol: str) -> Trace:
    """Markers of one kind, one per network."""
    size = {"diamond-open": 20, "star": 13}.get(symbol, 10)
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [point.latency_ms for point in points],
        "y": [point.accuracy for point in points],
        "hovertext": [html.escape(point.name) for point in points],
        "hovertemplate": "%{hovertext}<br>%{x:.3g} ms, %{y:.4g}<extra></extra>",
        "marker": {"color": colour, "symbol": symbol, "size": size, "line": {"width": 2, "color": colour}},
    }
