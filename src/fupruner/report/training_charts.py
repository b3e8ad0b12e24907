"""How training went: accuracy by epoch, gates by decision."""

from __future__ import annotations

import html

from fupruner.records import History
from fupruner.report.data import RunReport
from fupruner.report.plotting import SERIES, Chart, Trace, axis, curve, laid_out, line, tick


def accuracy_per_epoch(run: RunReport) -> Chart:
    """The training curve of each attempt, between the baseline and what is required."""
    baseline = run.looked_at[0].accuracy
    last = max(epoch.epoch for history in run.history for epoch in history.epochs)
    first = min(epoch.epoch for history in run.history for epoch in history.epochs)
    floor = baseline - run.summary.requirement.max_drop
    data = [
        line("baseline", [first, last], [baseline, baseline], "var(--ink)", "dot"),
        line(f"{html.escape(run.metric.name)} required", [first, last], [floor, floor], "var(--series-4)", "dash"),
    ]
    for place, history in enumerate(run.history):
        stages = [f"epoch {epoch.epoch}, {epoch.stage}" for epoch in history.epochs]
        label = f"attempt {history.attempt} ({history.asked_speedup:.2f}x)"
        data.append(curve(label, [(e.epoch, e.accuracy) for e in history.epochs], stages, place))
    layout = laid_out(xaxis=axis("epoch", dtick=tick(last - first)), yaxis=axis(html.escape(run.metric.axis)))
    alternative = f"Line chart of {run.metric.name} per epoch of {len(run.history)} attempts; the baseline has {run.metric.text(baseline)}."
    return Chart("chart-accuracy", f"{run.metric.title} per epoch", alternative, tuple(data), layout)


def gates(run: RunReport) -> Chart:
    """How many gates are closed after each decision, and how many came back at it; by epoch where decisions are not recorded."""
    decided = any(history.decisions for history in run.history)
    data: list[Trace] = []
    for place, history in enumerate(run.history):
        data += _by_decision(history, place) if decided else _by_epoch(history, place)
    every = 1 if decided else tick(max(len(history.epochs) for history in run.history))
    across = axis("training step", rangemode="nonnegative") if decided else axis("epoch", dtick=every)
    layout = laid_out(xaxis=across, yaxis=axis("gates", rangemode="tozero"), barmode="group")
    when = "decision" if decided else "epoch"
    alternative = f"Chart of closed and reopened gates at each {when} of {len(run.history)} attempts."
    return Chart("chart-gates", f"Gates closed and reopened, by {when}", alternative, tuple(data), layout)


def _by_decision(history: History, place: int) -> list[Trace]:
    """Between two decisions gates stay as they are; at a step that is decided twice, they change twice."""
    steps = [decision.step for decision in history.decisions]
    hover = [
        f"step {d.step}, asked for {d.asked_speedup:.2f}x, {d.predicted_speedup:.2f}x predicted"
        for d in history.decisions
    ]
    closed = _curve(history, "closed", steps, [d.closed for d in history.decisions], hover, place)
    closed["line"] = {**closed["line"], "shape": "hv"}
    width = max(1.0, (max(steps, default=0) - min(steps, default=0)) / 40)
    reopened = [decision.reopened for decision in history.decisions]
    return [closed, {**_bars(history, steps, reopened, place), "width": width, "hovertext": hover}]


def _by_epoch(history: History, place: int) -> list[Trace]:
    epochs = [epoch.epoch for epoch in history.epochs]
    hover = [f"epoch {epoch.epoch}, {epoch.stage}" for epoch in history.epochs]
    closed = _curve(history, "closed", epochs, [epoch.closed for epoch in history.epochs], hover, place)
    return [closed, _bars(history, epochs, [epoch.reopened for epoch in history.epochs], place)]


def _curve(history: History, what: str, x: list[int], y: list[int], hover: list[str], place: int) -> Trace:
    return curve(f"attempt {history.attempt}, {what}", list(zip(x, y, strict=True)), hover, place)


def _bars(history: History, x: list[int], y: list[int], place: int) -> Trace:
    colour = {"color": SERIES[place % len(SERIES)], "opacity": 0.45}
    return {"type": "bar", "name": f"attempt {history.attempt}, reopened", "marker": colour, "x": x, "y": y}
