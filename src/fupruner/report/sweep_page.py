"""The page of a sweep: all trials, and the networks that no other one beats."""

from __future__ import annotations

import html
from pathlib import Path

from fupruner.report import words
from fupruner.report.html import PAGE
from fupruner.report.parts import Table
from fupruner.report.plotting import Chart, Point, axis, cloud, laid_out, line
from fupruner.report.template import filled
from fupruner.runs.run_folder import write_atomically
from fupruner.sweeping.records import Sweep, Trial, read_sweep, shown


def write_sweep_report(folder: Path) -> Path:
    """Write the page of a sweep into its folder.

    Raises:
        InputError: the record of the sweep is missing or damaged.
    """
    write_atomically(folder / PAGE, render(read_sweep(folder), folder.resolve().name))
    return folder / PAGE


def render(sweep: Sweep, folder: str) -> str:
    """Build the page."""
    chart = front_chart(sweep) if sweep.done else None
    return filled(
        "sweep.html.jinja",
        [chart] if chart else [],
        sweep=sweep,
        folder=folder,
        headline=headline(sweep),
        story=story(sweep),
        chart=chart,
        table=trial_table(sweep),
        links=[f"{trial.folder}/{PAGE}" if not trial.reason else "" for trial in sweep.trials],
    )


def headline(sweep: Sweep) -> str:
    """Say the result in a dozen words."""
    if not sweep.front:
        return f"{words.plural(len(sweep.trials), 'trial')}, and no network"
    return f"{words.plural(len(sweep.front), 'network')} of {len(sweep.trials)} that no other one beats"


def story(sweep: Sweep) -> list[str]:
    """Say what was varied, how, and how latencies were taken."""
    failed = len(sweep.trials) - len(sweep.done)
    kind = "every combination" if sweep.method == "grid" else "a search"
    lines = [
        f"Varied: {', '.join(sweep.varied)}; {kind}, {len(sweep.trials)} of {words.plural(sweep.planned, 'trial')} done"
        f"{f', {failed} failed' if failed else ''}. The runs took {words.duration(sweep.seconds)} together."
    ]
    if sweep.done:
        how = "in turn, at the end" if sweep.together else "each in its own run, so small differences may be noise"
        lines.append(f"The latencies of all networks were taken {how}.")
    if sweep.baseline:
        old = sweep.baseline
        lines.append(f"The original: {sweep.metric.text(old.accuracy)} {sweep.metric.name}, {words.latency(old)}.")
    return lines


def front_chart(sweep: Sweep) -> Chart:
    """Metric against latency: the original, every trial, and the Pareto front."""
    metric, front = sweep.metric, set(sweep.front)
    best = sorted((_point(trial) for trial in sweep.done if trial.number in front), key=lambda point: point.latency_ms)
    groups = (
        ("on the front", [_point(t) for t in sweep.done if t.number in front], "var(--series-3)", "diamond-open"),
        ("requirement met", [_point(t) for t in sweep.done if t.satisfied], "var(--series-1)", "circle"),
        ("requirement not met", [_point(t) for t in sweep.done if not t.satisfied], "var(--series-2)", "x"),
    )
    clouds = [cloud(name, points, colour, symbol) for name, points, colour, symbol in groups if points]
    if sweep.baseline:
        original = Point("original", sweep.baseline.latency_ms, sweep.baseline.accuracy)
        clouds.append(cloud("original", [original], "var(--ink)", "star"))
    joined = line("Pareto front", [p.latency_ms for p in best], [p.accuracy for p in best], "var(--muted)", "dot")
    reach = [0.0, 1.08 * max(x for cloud in clouds for x in cloud["x"])]
    axes = {"xaxis": axis("latency at batch 1, ms", range=reach), "yaxis": axis(html.escape(metric.axis))}
    alternative = (
        f"Scatter plot of {metric.name} against latency with {words.plural(len(sweep.done), 'trial')}, "
        f"{len(best)} of them on the Pareto front."
    )
    title = f"{metric.title} against latency"
    return Chart("chart-front", title, alternative, (joined, *clouds), laid_out(**axes), height=420)


def trial_table(sweep: Sweep) -> Table:
    """Every trial with its options and figures."""
    columns = (
        "Trial",
        *sweep.varied,
        "Requirement",
        "Front",
        sweep.metric.title,
        "Latency",
        "Speed-up",
        "Multiply-adds",
        "Parameters",
    )
    rows = [_row(trial, sweep) for trial in sweep.trials]
    return Table("All trials, as they began", columns, rows, text_columns=len(sweep.varied) + 3)


def _row(trial: Trial, sweep: Sweep) -> tuple[str, ...]:
    values = tuple(_text(trial.values.get(name, "")) for name in sweep.varied)
    if trial.reason or trial.accuracy is None or trial.latency_ms is None:
        return (str(trial.number), *values, f"failed: {trial.reason}", "", "", "", "", "", "")
    return (
        str(trial.number),
        *values,
        "met" if trial.satisfied else "not met",
        "yes" if trial.number in sweep.front else "",
        sweep.metric.text(trial.accuracy),
        f"{words.milliseconds(trial.latency_ms)} {trial.latency_grade}",
        f"{trial.speedup:.2f}x",
        words.count(trial.macs or 0),
        words.count(trial.params or 0),
    )


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _point(trial: Trial) -> Point:
    return Point(f"trial {trial.number}: {shown(trial.values)}", trial.latency_ms or 0.0, trial.accuracy or 0.0)
