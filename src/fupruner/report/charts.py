"""Charts of the report as plain Plotly figures; colours are names of CSS variables, so that the page's theme decides.

Every text that comes from a model is escaped, because Plotly reads texts as a small subset of HTML.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from fupruner.records import LayerTime
from fupruner.report.data import Attempt, RunReport

Trace = dict[str, Any]
SERIES = ("var(--series-1)", "var(--series-2)", "var(--series-3)", "var(--series-4)", "var(--series-5)")
SYMBOLS = ("circle", "square", "triangle-up", "cross", "star")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
LONGEST_LABEL = 22
MOST_OPERATORS = 60


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


def charts(run: RunReport) -> dict[str, Chart]:
    """Draw everything that the run has figures for."""
    drawn = {"trade-off": trade_off(run)}
    if run.plan and run.plan.widths_before:
        drawn["widths"] = widths(run.plan.widths_before, run.plan.widths_after)
    if run.layer_times.before or run.layer_times.after:
        drawn["times"] = times(run.layer_times.before, run.layer_times.after)
    if any(history.epochs for history in run.history):
        drawn["accuracy"] = accuracy_per_epoch(run)
        drawn["gates"] = gates_per_epoch(run)
    return drawn


def shorten(name: str, longest: int = LONGEST_LABEL) -> str:
    """Cut the middle out of a long name: both ends of a layer's name carry its meaning."""
    if len(name) <= longest:
        return name
    tail = longest * 2 // 3
    return f"{name[: longest - tail - 1]}…{name[-tail:]}"


def front(points: Sequence[Point]) -> list[Point]:
    """Keep the points that no other point beats in both latency and accuracy, fastest first."""
    ordered = sorted(points, key=lambda point: (point.latency_ms, -point.accuracy))
    best = accumulate((point.accuracy for point in ordered), max, initial=float("-inf"))
    return [point for point, reached in zip(ordered, best, strict=False) if point.accuracy > reached]


def trade_off(run: RunReport) -> Chart:
    """Accuracy against latency: baseline, every attempt, the network that was kept, and the Pareto front."""
    (old, new), metric = run.looked_at, run.metric
    baseline = Point("baseline", old.latency_ms, old.accuracy)
    kept = Point("kept", new.latency_ms, new.accuracy)
    met = [_point(attempt) for attempt in run.attempts if attempt.satisfied]
    missed = [_point(attempt) for attempt in run.attempts if not attempt.satisfied]
    best = front([baseline, kept, *met, *missed])
    floor = old.accuracy - run.summary.requirement.max_drop
    reach = [0.0, 1.08 * max(point.latency_ms for point in (baseline, kept, *met, *missed))]
    lines = (
        _line("Pareto front", [p.latency_ms for p in best], [p.accuracy for p in best], "var(--muted)", "dot"),
        _line(f"{html.escape(metric.name)} required", reach, [floor, floor], "var(--series-4)", "dash"),
    )
    clouds = (
        _cloud("attempt, requirement met", met, "var(--series-1)", "circle"),
        _cloud("attempt, requirement not met", missed, "var(--series-2)", "x"),
        _cloud("baseline", [baseline], "var(--ink)", "star"),
        _cloud("kept", [kept], "var(--series-3)", "diamond-open"),
    )
    axes = {"xaxis": _axis("latency at batch 1, ms", range=reach), "yaxis": _axis(html.escape(metric.axis))}
    alternative = (
        f"Scatter plot of {metric.name} against latency with {len(met) + len(missed)} attempts: baseline "
        f"{metric.text(old.accuracy)} at {old.latency_ms:.3g} ms, kept {metric.text(new.accuracy)} at {new.latency_ms:.3g} ms."
    )
    data = tuple(trace for trace in (*lines, *clouds) if trace["x"])
    return Chart("chart-trade-off", f"{metric.title} against latency", alternative, data, _layout(**axes), height=420)


def widths(before: dict[str, int], after: dict[str, int]) -> Chart:
    """Output channels per layer before, and within that what is left."""
    names = list(before)
    left = [after.get(name, 0) for name in names]
    rows = _rows(names)
    data = (
        _bar("before", list(before.values()), rows, names, "var(--before)", width=0.82),
        {
            **_bar("after", left, rows, names, "var(--series-1)", width=0.46),
            "text": ["removed" if not channels else "" for channels in left],
            "textposition": "outside",
            "textfont": {"size": 11},
            "constraintext": "none",
            "cliponaxis": False,
        },
    )
    layout = _bars_layout("output channels", names)
    alternative = (
        f"Bar chart of output channels of {len(names)} layers: {sum(before.values())} before, {sum(left)} after."
    )
    return Chart("chart-widths", "Widths per layer", alternative, data, layout, height=_height(len(names), 17))


def times(before: Sequence[LayerTime], after: Sequence[LayerTime]) -> Chart:
    """Time per operator before and after; where there are very many, the slowest."""
    old, new = {layer.name: layer.ms for layer in before}, {layer.name: layer.ms for layer in after}
    names = list(dict.fromkeys([*old, *new]))
    if len(names) > MOST_OPERATORS:
        kept = set(sorted(names, key=lambda name: -max(old.get(name, 0), new.get(name, 0)))[:MOST_OPERATORS])
        names = [name for name in names if name in kept]
    rows = _rows(names)
    data = (
        _bar("before", [old.get(name, 0) for name in names], rows, names, "var(--before)", width=0.4, offset=-0.42),
        _bar("after", [new.get(name, 0) for name in names], rows, names, "var(--series-1)", width=0.4, offset=0.02),
    )
    layout = _bars_layout("time at batch 1, ms", names)
    totals = sum(layer.ms for layer in before), sum(layer.ms for layer in after)
    alternative = (
        f"Bar chart of the time of {len(names)} operators: {totals[0]:.3g} ms before, {totals[1]:.3g} ms after in all."
    )
    return Chart("chart-times", "Time per layer", alternative, data, layout, height=_height(len(names), 22))


def accuracy_per_epoch(run: RunReport) -> Chart:
    """The training curve of each attempt, between the baseline and what is required."""
    baseline = run.looked_at[0].accuracy
    last = max(epoch.epoch for history in run.history for epoch in history.epochs)
    first = min(epoch.epoch for history in run.history for epoch in history.epochs)
    floor = baseline - run.summary.requirement.max_drop
    data = [
        _line("baseline", [first, last], [baseline, baseline], "var(--ink)", "dot"),
        _line(f"{html.escape(run.metric.name)} required", [first, last], [floor, floor], "var(--series-4)", "dash"),
    ]
    for place, history in enumerate(run.history):
        stages = [f"epoch {epoch.epoch}, {epoch.stage}" for epoch in history.epochs]
        label = f"attempt {history.attempt} ({history.asked_speedup:.2f}x)"
        data.append(_curve(label, [(e.epoch, e.accuracy) for e in history.epochs], stages, place))
    layout = _layout(xaxis=_axis("epoch", dtick=_tick(last - first)), yaxis=_axis(html.escape(run.metric.axis)))
    alternative = f"Line chart of {run.metric.name} per epoch of {len(run.history)} attempts; the baseline has {run.metric.text(baseline)}."
    return Chart("chart-accuracy", f"{run.metric.title} per epoch", alternative, tuple(data), layout)


def gates_per_epoch(run: RunReport) -> Chart:
    """How many gates are closed after each epoch, and how many came back during it."""
    data: list[Trace] = []
    for place, history in enumerate(run.history):
        hover = [f"epoch {epoch.epoch}, {epoch.stage}" for epoch in history.epochs]
        closed = [(epoch.epoch, epoch.closed) for epoch in history.epochs]
        data.append(_curve(f"attempt {history.attempt}, closed", closed, hover, place))
        bars = {"x": [e.epoch for e in history.epochs], "y": [e.reopened for e in history.epochs]}
        colour = {"color": SERIES[place % len(SERIES)], "opacity": 0.45}
        data.append({"type": "bar", "name": f"attempt {history.attempt}, reopened", "marker": colour, **bars})
    longest = max(len(history.epochs) for history in run.history)
    layout = _layout(
        xaxis=_axis("epoch", dtick=_tick(longest)), yaxis=_axis("gates", rangemode="tozero"), barmode="group"
    )
    alternative = f"Chart of closed and reopened gates per epoch of {len(run.history)} attempts."
    return Chart("chart-gates", "Gates closed and reopened", alternative, tuple(data), layout)


def _point(attempt: Attempt) -> Point:
    return Point(f"attempt {attempt.attempt}", attempt.latency_ms, attempt.accuracy)


def _line(name: str, x: Sequence[float], y: Sequence[float], colour: str, dash: str) -> Trace:
    line = {"color": colour, "dash": dash, "width": 1.5}
    return {"type": "scatter", "mode": "lines", "name": name, "x": x, "y": y, "line": line, "hoverinfo": "skip"}


def _cloud(name: str, points: Sequence[Point], colour: str, symbol: str) -> Trace:
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


def _curve(name: str, points: Sequence[tuple[float, float]], hover: Sequence[str], place: int) -> Trace:
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


def _bar(
    name: str, lengths: Sequence[float], rows: Sequence[int], names: Sequence[str], colour: str, **place: float
) -> Trace:
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


def _rows(names: Sequence[str]) -> list[int]:
    """Bars sit at numbers, not at names: two long names may look the same once they are shortened."""
    return list(range(len(names)))


def _names_axis(names: Sequence[str]) -> dict[str, Any]:
    ticks = {"tickmode": "array", "tickvals": _rows(names), "ticktext": [html.escape(shorten(name)) for name in names]}
    return {
        **_axis(""),
        **ticks,
        "range": [len(names) - 0.5, -0.5],
        "automargin": True,
        "showgrid": False,
        "zeroline": False,
    }


def _height(rows: int, row: int) -> int:
    return 120 + rows * (row if rows <= 100 else row * 3 // 4)


def _tick(length: float) -> int:
    """Distance of the ticks of an axis that counts epochs: whole numbers, at most about twelve of them."""
    return max(1, round(length / 12))


def _axis(title: str, **more: object) -> dict[str, Any]:
    lines = {"gridcolor": "var(--rule)", "linecolor": "var(--rule)", "zerolinecolor": "var(--rule)"}
    return {"title": {"text": title, "standoff": 12}, "automargin": True, "fixedrange": True, **lines, **more}


def _bars_layout(title: str, names: Sequence[str]) -> dict[str, Any]:
    """Lay out one row per name; the scale is on top, where it is seen first."""
    margin = {"l": 20, "r": 20, "t": 92, "b": 12}
    return _layout(xaxis=_axis(title, side="top"), yaxis=_names_axis(names), barmode="overlay", margin=margin)


def _layout(**more: object) -> dict[str, Any]:
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
