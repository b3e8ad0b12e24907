"""One page for several runs: what each came to, in one chart and one table, and the options in which they differ."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path

from fupruner import __version__
from fupruner.report import words
from fupruner.report.charts import front
from fupruner.report.data import RunReport, read_run
from fupruner.report.parts import Table
from fupruner.report.plotting import SERIES, SYMBOLS, Chart, Point, axis, cloud, laid_out, line
from fupruner.report.template import filled
from fupruner.runs.run_folder import write_atomically


def write_comparison(folders: Sequence[Path], page: Path) -> Path:
    """Write the page that compares finished runs.

    Raises:
        InputError: a run has not finished, or one of its files cannot be read.
    """
    write_atomically(page, render([read_run(folder) for folder in folders]))
    return page


def render(runs: Sequence[RunReport]) -> str:
    """Build the page."""
    chart = trade_off(runs)
    return filled(
        "compare.html.jinja",
        [chart],
        headline=f"{len(runs)} runs compared",
        notes=notes(runs),
        chart=chart,
        tables=[run_table(runs), option_table(runs)],
        version=__version__,
    )


def names(runs: Sequence[RunReport]) -> list[str]:
    """Name the runs by their folders; where two are called alike, by their place as well."""
    folders = [run.folder for run in runs]
    return [f"{name} ({i})" if folders.count(name) > 1 else name for i, name in enumerate(folders, 1)]


def notes(runs: Sequence[RunReport]) -> list[str]:
    """Say what has to be kept in mind when these runs are compared."""
    lines = ["Each speed-up was measured in turns with the run's own original; latencies of different runs were not."]
    for what, values in (
        ("targets", {run.summary.target for run in runs}),
        ("machines", {run.summary.hardware for run in runs}),
        ("metrics", {run.metric.name for run in runs}),
    ):
        if len(values) > 1:
            lines.append(f"The runs have different {what}: {'; '.join(sorted(values))}.")
    return lines


def trade_off(runs: Sequence[RunReport]) -> Chart:
    """Metric against latency: original, attempts and kept network of each run, and the front of what was kept."""
    clouds, kept = [], []
    for place, (run, name) in enumerate(zip(runs, names(runs), strict=True)):
        old, new = run.summary.baseline, run.summary.final
        points = [Point(f"{name}: attempt {a.attempt}", run.drawn_at(a.speedup), a.accuracy) for a in run.attempts]
        points.append(Point(f"{name}: original", old.latency_ms, old.accuracy))
        kept.append(Point(f"{name}: kept", run.drawn_at(run.summary.speedup), new.accuracy))
        colour, symbol = SERIES[place % len(SERIES)], SYMBOLS[place % len(SYMBOLS)]
        clouds.append(cloud(html.escape(name), points, colour, symbol))
    best = front(kept)
    joined = line(
        "Pareto front of the kept", [p.latency_ms for p in best], [p.accuracy for p in best], "var(--muted)", "dot"
    )
    clouds.append(cloud("kept", kept, "var(--ink)", "diamond-open"))
    reach = [0.0, 1.08 * max(x for cloud in clouds for x in cloud["x"])]
    metric = runs[0].metric
    axes = {"xaxis": axis("latency at batch 1, ms", range=reach), "yaxis": axis(html.escape(metric.axis))}
    alternative = f"Scatter plot of {metric.name} against latency of {len(runs)} runs; the table below has the figures."
    return Chart(
        "chart-runs", f"{metric.title} against latency", alternative, (joined, *clouds), laid_out(**axes), height=460
    )


def run_table(runs: Sequence[RunReport]) -> Table:
    """Figures of each run."""
    columns = (
        "Run", "Model", "Target", "Requirement", "Metric before", "Metric after", "Latency before", "Latency after", "Speed-up",
        "Multiply-adds", "Parameters", "Took",
    )  # fmt: skip
    rows = [
        (
            name,
            run.model,
            run.summary.target,
            "met" if run.summary.requirement.satisfied else "not met",
            run.metric.text(run.summary.baseline.accuracy),
            run.metric.text(run.summary.final.accuracy),
            words.latency(run.summary.baseline),
            words.latency(run.summary.final),
            words.speedup(run.summary),
            words.count(run.summary.final.macs),
            words.count(run.summary.final.params),
            words.duration(run.summary.seconds),
        )
        for run, name in zip(runs, names(runs), strict=True)
    ]
    return Table("Runs", columns, rows, text_columns=4)


def option_table(runs: Sequence[RunReport]) -> Table:
    """Options that are not the same in all runs."""
    options = dict.fromkeys(name for run in runs for name in run.options)
    values = {option: [str(run.options.get(option, "")) for run in runs] for option in options}
    rows = [(option, *found) for option, found in values.items() if len(set(found)) > 1]
    return Table("Options that differ", ("Option", *names(runs)), rows, text_columns=len(runs) + 1)
