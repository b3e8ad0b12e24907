"""What the page says about training: epochs and decisions."""

from __future__ import annotations

from fupruner.report import words
from fupruner.report.data import RunReport
from fupruner.report.parts import Section, Table, present
from fupruner.report.plotting import Chart


def training(run: RunReport, drawn: dict[str, Chart]) -> Section:
    """Charts of accuracy and gates, and the same as tables."""
    rows = [
        (
            f"{history.attempt}.{epoch.epoch}",
            epoch.stage,
            f"{epoch.loss:.4f}",
            run.metric.text(epoch.accuracy),
            f"{epoch.predicted_speedup:.2f}x",
            f"{epoch.measured_speedup:.2f}x" if epoch.measured_speedup else "",
            str(epoch.closed),
            str(epoch.reopened),
            f"{epoch.learning_rate:.2g}",
            words.duration(epoch.seconds),
            f"{epoch.images_per_second:.0f}",
        )
        for history in run.history
        for epoch in history.epochs
    ]
    columns = (
        "Attempt.epoch",
        "Stage",
        "Loss",
        run.metric.title,
        "Predicted",
        "Measured",
        "Closed",
        "Reopened",
        "Rate",
        "Time",
        "Images/s",
    )
    table = Table("Epochs as a table", columns, rows, text_columns=2, folded=True)
    line = "Gates close while training goes on, and may come back; what stays closed is removed for good."
    decisions = _decisions(run)
    tables = (table, decisions) if decisions.rows else (table,)
    lines = (line, *words.which_data(elsewhere=run.is_judged_elsewhere, of_the_search=True))
    return Section("training", "Training", lines, present(drawn, "accuracy", "gates"), tables)


def _decisions(run: RunReport) -> Table:
    by_attempt = {str(history.attempt): history.decisions for history in run.history if history.decisions}
    rows = [
        (
            f"{attempt}, step {d.step}",
            f"{d.asked_speedup:.2f}x",
            f"{d.predicted_speedup:.2f}x",
            str(d.closed),
            str(d.reopened),
        )
        for attempt, decisions in (by_attempt or {"kept": run.decisions}).items()
        for d in decisions
    ]
    columns = ("Attempt", "Asked", "Predicted", "Closed", "Reopened")
    return Table("Decisions as a table", columns, rows, folded=True)
