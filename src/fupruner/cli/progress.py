"""Progress on the screen: bars with rate and time left on a terminal, plain lines everywhere else."""

from __future__ import annotations

import time
from types import TracebackType
from typing import final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn
from rich.progress import TimeRemainingColumn as TimeLeftColumn
from rich.text import Text

from fupruner.report.words import duration

LINE_EVERY = 30.0
"""Seconds between two lines about a stage where there is no terminal to draw a bar on."""


class RateColumn(ProgressColumn):
    """Steps per second."""

    def render(self, task: Task) -> Text:
        """Show the rate once there is one."""
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.1f}/s" if speed else "", style="cyan")


class InfoColumn(ProgressColumn):
    """The latest figures that the stage reported."""

    def render(self, task: Task) -> Text:
        """Show the figures as name and value."""
        return Text(str(task.fields.get("info", "")), style="dim")


@final
class RichProgress:
    """Shows what the pipeline reports; a context manager, so that bars are closed whatever happens.

    Args:
        console: where to draw; standard error, so that results can be piped.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            RateColumn(),
            TimeLeftColumn(),
            InfoColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task: Task | None = None
        self._stage_began = self._line_printed = 0.0

    def __enter__(self) -> RichProgress:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._finish()
        self._bars.stop()

    def stage(self, name: str, total: int | None) -> None:
        """Close the bar of the stage before and open one for this stage."""
        self._finish()
        key = self._bars.add_task(name, total=total, info="")
        self._task = next(task for task in self._bars.tasks if task.id == key)
        self._stage_began = self._line_printed = time.monotonic()
        self._plain(f"{name} ...")

    def advance(self, n: int = 1, **info: float) -> None:
        """Move the bar on and show the stage's latest figures."""
        if self._task is None:
            return
        figures = "  ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in info.items())
        shown = figures or self._task.fields["info"]
        self._bars.update(self._task.id, advance=n, info=shown)
        if time.monotonic() - self._line_printed >= LINE_EVERY:
            self._line_printed = time.monotonic()
            self._plain(f"{self._task.description}: {_state(self._task)}  {shown}".rstrip())

    def note(self, line: str) -> None:
        """Keep a line above the bars."""
        self._console.print(Text(line), soft_wrap=True)

    def _finish(self) -> None:
        """End the current stage: its bar becomes a line, so that the screen never fills with bars."""
        if self._task is None:
            return
        took = duration(time.monotonic() - self._stage_began)
        self._bars.remove_task(self._task.id)
        self._console.print(Text(f"{self._task.description}: done in {took}", style="dim"), soft_wrap=True)
        self._task = None

    def _plain(self, line: str) -> None:
        if not self._console.is_terminal:
            self._console.print(Text(line), soft_wrap=True)


def _state(task: Task) -> str:
    """Say how far a stage is, and how long it will still take."""
    done = f"{task.completed:.0f}" if task.total is None else f"{task.completed:.0f}/{task.total:.0f}"
    left = task.time_remaining
    return f"{done}, {duration(left)} left" if left else done
