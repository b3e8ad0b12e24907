"""Charts of the report as plain Plotly figures; colours are names of CSS variables, so that the page's theme decides.

Every text that comes from a model is escaped, because Plotly reads texts as a small subset of HTML.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from itertools import accumulate

from fupruner.records import LayerTime
from fupruner.report.data import Attempt, RunReport
from fupruner.report.plotting import (
    Chart,
    Point,
    axis,
    bar,
    bars_height,
    bars_layout,
    cloud,
    laid_out,
    line,
    row_places,
)
from fupruner.report.training_charts import accuracy_per_epoch, gates
from fupruner.report.words import layer_name

MOST_OPERATORS = 60
LAYOUT = "changes of memory layout"


def charts(run: RunReport) -> dict[str, Chart]:
    """Draw everything that the run has figures for."""
    drawn = {"trade-off": trade_off(run)}
    if run.plan and run.plan.widths_before:
        drawn["widths"] = widths(run.plan.widths_before, run.plan.widths_after)
    if run.layer_times.before or run.layer_times.after:
        drawn["times"] = times(run.layer_times.before, run.layer_times.after)
    if any(history.epochs for history in run.history):
        drawn["accuracy"] = accuracy_per_epoch(run)
        drawn["gates"] = gates(run)
    return drawn


def front(points: Sequence[Point]) -> list[Point]:
    """Keep the points that no other point beats in both latency and accuracy, fastest first."""
    ordered = sorted(points, key=lambda point: (point.latency_ms, -point.accuracy))
    best = accumulate((point.accuracy for point in ordered), max, initial=float("-inf"))
    return [point for point, reached in zip(ordered, best, strict=False) if point.accuracy > reached]


def trade_off(run: RunReport) -> Chart:
    """Accuracy against latency: baseline, every attempt, the network that was kept, and the Pareto front."""
    (old, new), metric = run.looked_at, run.metric
    baseline = Point("baseline", old.latency_ms, old.accuracy)
    kept = Point("kept", run.drawn_at(run.summary.speedup), new.accuracy)
    met = [_point(run, attempt) for attempt in run.attempts if attempt.satisfied]
    missed = [_point(run, attempt) for attempt in run.attempts if not attempt.satisfied]
    best = front([baseline, kept, *met, *missed])
    floor = old.accuracy - run.summary.requirement.max_drop
    reach = [0.0, 1.08 * max(point.latency_ms for point in (baseline, kept, *met, *missed))]
    lines = (
        line("Pareto front", [p.latency_ms for p in best], [p.accuracy for p in best], "var(--muted)", "dot"),
        line(f"{html.escape(metric.name)} required", reach, [floor, floor], "var(--series-4)", "dash"),
    )
    clouds = (
        cloud("attempt, requirement met", met, "var(--series-1)", "circle"),
        cloud("attempt, requirement not met", missed, "var(--series-2)", "x"),
        cloud("baseline", [baseline], "var(--ink)", "star"),
        cloud("kept", [kept], "var(--series-3)", "diamond-open"),
    )
    axes = {"xaxis": axis("latency at batch 1, ms", range=reach), "yaxis": axis(html.escape(metric.axis))}
    alternative = (
        f"Scatter plot of {metric.name} against latency with {len(met) + len(missed)} attempts: baseline "
        f"{metric.text(old.accuracy)} at {old.latency_ms:.3g} ms, kept {metric.text(new.accuracy)} at {new.latency_ms:.3g} ms."
    )
    data = tuple(trace for trace in (*lines, *clouds) if trace["x"])
    return Chart("chart-trade-off", f"{metric.title} against latency", alternative, data, laid_out(**axes), height=420)


def widths(before: dict[str, int], after: dict[str, int]) -> Chart:
    """Output channels per layer before, and within that what is left."""
    names = list(before)
    left = [after.get(name, 0) for name in names]
    rows = row_places(names)
    data = (
        bar("before", list(before.values()), rows, names, "var(--before)", width=0.82),
        {
            **bar("after", left, rows, names, "var(--series-1)", width=0.46),
            "text": ["removed" if not channels else "" for channels in left],
            "textposition": "outside",
            "textfont": {"size": 11},
            "constraintext": "none",
            "cliponaxis": False,
        },
    )
    layout = bars_layout("output channels", names)
    alternative = (
        f"Bar chart of output channels of {len(names)} layers: {sum(before.values())} before, {sum(left)} after."
    )
    return Chart("chart-widths", "Widths per layer", alternative, data, layout, height=bars_height(len(names), 17))


def times(before: Sequence[LayerTime], after: Sequence[LayerTime]) -> Chart:
    """Time per operator before and after; where there are very many, the slowest."""
    old, new = _by_name(before), _by_name(after)
    names = list(dict.fromkeys([*old, *new]))
    if len(names) > MOST_OPERATORS:
        kept = set(sorted(names, key=lambda name: -max(old.get(name, 0), new.get(name, 0)))[:MOST_OPERATORS])
        names = [name for name in names if name in kept]
    rows = row_places(names)
    data = (
        bar("before", [old.get(name, 0) for name in names], rows, names, "var(--before)", width=0.4, offset=-0.42),
        bar("after", [new.get(name, 0) for name in names], rows, names, "var(--series-1)", width=0.4, offset=0.02),
    )
    layout = bars_layout("time at batch 1, ms", names)
    totals = sum(layer.ms for layer in before), sum(layer.ms for layer in after)
    alternative = (
        f"Bar chart of the time of {len(names)} operators: {totals[0]:.3g} ms before, {totals[1]:.3g} ms after in all."
    )
    return Chart("chart-times", "Time per layer", alternative, data, layout, height=bars_height(len(names), 22))


def _by_name(layers: Sequence[LayerTime]) -> dict[str, float]:
    """Milliseconds by layer; changes of the memory layout, which runtimes put in where they like, as one."""
    found: dict[str, float] = {}
    for layer in layers:
        name = LAYOUT if layer.kind.startswith("Reorder") else layer_name(layer)
        found[name] = found.get(name, 0.0) + layer.ms
    return found


def _point(run: RunReport, attempt: Attempt) -> Point:
    return Point(f"attempt {attempt.attempt}", run.drawn_at(attempt.speedup), attempt.accuracy)
