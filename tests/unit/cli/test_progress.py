from __future__ import annotations

import io
import time

import pytest
from rich.console import Console

from fupruner.cli import progress as module
from fupruner.cli.progress import RichProgress
from fupruner.progress import Progress, Silent


def run(report: Progress) -> None:
    report.stage("train", 4)
    for _ in range(4):
        report.advance(loss=0.5)
    report.note("epoch 1: 90.00 % [not markup]")
    report.stage("export", None)
    report.advance()


def test_lines_where_there_is_no_terminal() -> None:
    console = Console(file=io.StringIO(), force_terminal=False)
    with RichProgress(console) as report:
        run(report)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert lines == [
        "train ...",
        "epoch 1: 90.00 % [not markup]",
        "train: done in 0 s",
        "export ...",
        "export: done in 0 s",
    ]


def test_long_stages_report_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LINE_EVERY", 0.0)
    console = Console(file=io.StringIO(), force_terminal=False)
    with RichProgress(console) as report:
        report.stage("train", 10)
        report.advance(3, loss=0.25)
    assert "train: 3/10  loss 0.25" in console.file.getvalue()  # type: ignore[attr-defined]


def test_bars_on_a_terminal() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    with RichProgress(console) as report:
        report.stage("train", 4)
        report.advance(4, loss=0.5)
        time.sleep(0.3)  # the screen is drawn ten times a second
        report.stage("export", None)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "train: done in" in text
    assert "4/4" in text
    assert "loss 0.5" in text


def test_interrupted_stage_is_not_called_done() -> None:
    console = Console(file=io.StringIO(), force_terminal=False)

    def interrupted() -> None:
        with RichProgress(console) as report:
            report.stage("train", 4)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert "done" not in console.file.getvalue()  # type: ignore[attr-defined]


def test_advance_without_a_stage_is_harmless() -> None:
    with RichProgress(Console(file=io.StringIO())) as report:
        report.advance()


def test_silent_takes_the_same_calls(capsys: pytest.CaptureFixture[str]) -> None:
    run(Silent())
    assert capsys.readouterr() == ("", "")
