"""Tables of the command line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from fupruner.records import Comparison, FusionLog, Plan, Summary
from fupruner.report import words


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], *, text_columns: int = 1) -> Table:
    """Build a table of plain strings; names of models are never read as markup."""
    grid = Table(title=Text(title), title_justify="left", title_style="bold")
    for position, column in enumerate(columns):
        grid.add_column(column, justify="left" if position < text_columns else "right", overflow="fold")
    for row in rows:
        grid.add_row(*(Text(cell) for cell in row))
    return grid


def summary_table(summary: Summary) -> Table:
    """Show what a run achieved."""
    title = f"Target {summary.target}, {words.plural(summary.epochs, 'epoch')}, {words.duration(summary.seconds)}"
    return table(title, ("", "before", "after", "change"), words.before_after(summary))


def operator_table(log: FusionLog) -> Table:
    """Show operators before and after fusion."""
    return table(f"Fusion level {log.level}", ("operator", "before", "after", "change"), words.operators(log))


def fired_table(log: FusionLog) -> Table:
    """Show how often each rule fired."""
    counts = Counter(fired.rule for fired in log.fired)
    return table("Rules that fired", ("rule", "times"), ((rule, str(n)) for rule, n in counts.most_common()))


def refused_table(log: FusionLog) -> Table:
    """Show where rules were refused, and why."""
    rows = ((refusal.rule, refusal.node, refusal.reason) for refusal in log.refused)
    return table("Refused", ("rule", "layer", "reason"), rows, text_columns=3)


def width_table(plan: Plan) -> Table:
    """Show the widths of the layers that a plan changes."""
    changed = [(name, old, plan.widths_after.get(name, 0)) for name, old in plan.widths_before.items()]
    rows = ((name, str(old), str(new) if new else "removed") for name, old, new in changed if old != new)
    return table("Widths that change", ("layer", "before", "after"), rows)


def move_table(plan: Plan) -> Table:
    """Sum up the moves of a plan by kind."""
    kinds = sorted({move.kind for move in plan.moves})
    chosen = {kind: [move for move in plan.moves if move.kind == kind] for kind in kinds}
    rows = (
        (
            kind,
            str(len(moves)),
            str(sum(len(move.closed) for move in moves)),
            words.milliseconds(sum(move.saved_ms for move in moves)),
            f"{sum(move.loss for move in moves):.3g}",
        )
        for kind, moves in chosen.items()
    )
    return table("Moves of the plan", ("kind", "moves", "gates closed", "time saved", "predicted loss"), rows)


def carried_table(plan: Plan) -> Table:
    """Show how many of the channels that shortcuts carry are left, where a plan could close them."""
    rows = (
        (name, str(before), str(plan.carried_after.get(name, 0)), str(before - plan.carried_after.get(name, 0)))
        for name, before in plan.carried_before.items()
    )
    return table("Identity filters reserved for shortcuts", ("block", "before", "kept", "closed"), rows)


def latency_table(paths: Sequence[Path], comparison: Comparison) -> Table:
    """Show latencies of several files, with spread, and ratios to the first."""
    rows = [
        (
            str(path),
            f"{words.milliseconds(measurement.latency_ms)} ({measurement.grade})",
            words.milliseconds(measurement.spread),
            f"{speedup:.3f}x",
            f"{spread:.3f}",
        )
        for path, measurement, speedup, spread in zip(
            paths, comparison.measurements, comparison.speedups, comparison.spreads, strict=True
        )
    ]
    first = comparison.measurements[0]
    threads = words.plural(first.threads, "thread")
    how = f"{first.runs} runs each, interleaved" if first.grade == "measured" else "nothing was measured"
    title = f"Target {first.target}, {threads}, {first.source}, {how}"
    return table(title, ("file", "latency", "spread", "speed-up", "spread"), rows)
