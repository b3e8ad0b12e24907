"""Progress on the screen: bars with rate and time left on a terminal and in a notebook, plain lines everywhere else."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn
from rich.progress import TimeRemainingColumn as TimeLeftColumn
from rich.text import Text

from fupruner.progress import Advance, watched_by
from fupruner.report.words import duration

LINE_EVERY = 30.0
"""Seconds between two lines about a stage or part where there is no bar to look at."""
WORTH_A_LINE = 5.0
"""A part that took so many seconds gets a line of its own there."""
REDRAW_EVERY = 0.3
"""Seconds between two drawings of the bars in a notebook."""


class RateColumn(ProgressColumn):
    """Steps per second."""

    def render(self, task: Task) -> Text:
        """Show the rate once there is one."""
        return Text(_rate(task), style="cyan")


class InfoColumn(ProgressColumn):
    """The latest figures that the stage reported."""

    def render(self, task: Task) -> Text:
        """Show the figures as name and value."""
        return Text(str(task.fields.get("info", "")), style="dim")


@final
class RichProgress:
    """Shows what is going on; a context manager, so that bars are closed whatever happens.

    Inside of it, parts of long work are shown as well: it watches its thread (``progress.watched_by``).

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
        self._sheet = _Sheet(self._bars) if console.is_jupyter else None
        self._watch = watched_by(self)
        self._task: Task | None = None
        self._lines: dict[int, float] = {}

    def __enter__(self) -> RichProgress:
        self._bars.start()
        self._watch.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._watch.__exit__(None, None, None)
        if error is None:
            self._finish()
        self._bars.stop()
        if self._sheet is not None:
            self._sheet.clear()

    def stage(self, name: str, total: int | None) -> None:
        """Close the bar of the stage before and open one for this stage."""
        self._finish()
        self._task = self._open(name, total)
        self._plain(f"{name} ...")

    def advance(self, n: int = 1, **info: float) -> None:
        """Move the bar on and show the stage's latest figures."""
        if self._task is not None:
            figures = "  ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in info.items())
            self._move(self._task, n, figures or str(self._task.fields["info"]))

    def note(self, line: str) -> None:
        """Keep a line above the bars."""
        self._console.print(Text(line), soft_wrap=True)

    @contextmanager
    def part(self, name: str, total: int | None) -> Iterator[Advance]:
        """Show a bar of its own below that of the stage, until the part is over."""
        task = self._open(f"  {name}" if self._task else name, total)
        try:
            yield lambda steps: self._move(task, steps, "")
        finally:
            self._close(task)
            if _seconds(task) >= WORTH_A_LINE:
                self._plain(f"{name}: {' '.join(filter(None, (f'{task.completed:.0f}', _rate(task))))}, {_took(task)}")

    def _open(self, name: str, total: int | None) -> Task:
        key = self._bars.add_task(name, total=total, info="")
        task = next(task for task in self._bars.tasks if task.id == key)
        self._lines[task.id] = time.monotonic()
        self._draw(at_once=True)
        return task

    def _move(self, task: Task, steps: int, info: str) -> None:
        self._bars.update(task.id, advance=steps, info=info)
        self._draw()
        if time.monotonic() - self._lines[task.id] >= LINE_EVERY:
            self._lines[task.id] = time.monotonic()
            self._plain(f"{task.description.strip()}: {_state(task)}  {info}".rstrip())

    def _close(self, task: Task) -> None:
        self._bars.stop_task(task.id)
        self._bars.remove_task(task.id)
        self._draw()

    def _finish(self) -> None:
        """End the current stage: its bar becomes a line, so that the screen never fills with bars."""
        if self._task is None:
            return
        self._close(self._task)
        self._console.print(Text(f"{self._task.description}: done in {_took(self._task)}", style="dim"), soft_wrap=True)
        self._task = None

    def _plain(self, line: str) -> None:
        if not self._console.is_terminal and self._sheet is None:
            self._console.print(Text(line), soft_wrap=True)

    def _draw(self, *, at_once: bool = False) -> None:
        if self._sheet is not None:
            self._sheet.draw(at_once=at_once)


@final
class _Sheet:
    """The bars as an output of a notebook's cell that is written anew; needs nothing that a kernel does not have."""

    def __init__(self, bars: Progress) -> None:
        from IPython.display import display  # noqa: PLC0415 # type: ignore[import-not-found, unused-ignore]

        self._bars, self._drawn = bars, 0.0
        self._handle: Any = display({"text/plain": ""}, raw=True, display_id=True)

    def draw(self, *, at_once: bool = False) -> None:
        if not at_once and time.monotonic() - self._drawn < REDRAW_EVERY:
            return
        self._drawn = time.monotonic()
        paper = Console(file=io.StringIO(), record=True, width=110, force_terminal=True, force_jupyter=False)
        paper.print(self._bars.get_renderable())
        code = '<pre style="line-height: normal">{code}</pre>'
        html = paper.export_html(inline_styles=True, code_format=code, clear=False)
        self._handle.update({"text/html": html, "text/plain": paper.export_text()}, raw=True)

    def clear(self) -> None:
        self._handle.update({"text/plain": ""}, raw=True)


def show_progress() -> RichProgress:
    """Show what happens inside: ``with fupruner.show_progress(): fupruner.optimize(...)``.

    Bars with rates and the time left on a terminal and in a notebook, plain lines in a log; on standard error.
    """
    return RichProgress(Console(stderr=True, highlight=False))


def _seconds(task: Task) -> float:
    return task.elapsed or 0.0


def _took(task: Task) -> str:
    return duration(_seconds(task))


def _rate(task: Task) -> str:
    speed = task.finished_speed or task.speed
    if task.stop_time is not None and task.elapsed:  # over: the mean of all of it
        speed = task.completed / task.elapsed
    return f"{speed:.1f}/s" if speed else ""


def _state(task: Task) -> str:
    """Say how far a stage is, how fast it goes, and how long it will still take."""
    done = f"{task.completed:.0f}" if task.total is None else f"{task.completed:.0f}/{task.total:.0f}"
    left = f"{duration(task.time_remaining)} left" if task.time_remaining else ""
    return ", ".join(filter(None, (done, _rate(task), left)))
