from __future__ import annotations

import io
import re
import time

import pytest
from rich.console import Console

from fupruner import bars as module
from fupruner.bars import RichProgress
from fupruner.progress import Progress, Silent, part


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
    assert "train: 3/10" in console.file.getvalue()  # type: ignore[attr-defined]


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


def test_parts_are_shown_below_their_stage_and_go_when_they_are_over() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    with RichProgress(console) as report:
        report.stage("score", None)
        with part("calibrate, images", 40) as advance:
            advance(30)
            shown = [(bar.description, bar.completed, bar.total) for bar in report._bars.tasks]
        assert shown == [("score", 0, None), ("  calibrate, images", 30, 40)]
        assert [bar.description for bar in report._bars.tasks] == ["score"]
    assert report._bars.tasks == []


def test_long_parts_leave_a_line_in_a_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WORTH_A_LINE", 0.0)
    console = Console(file=io.StringIO(), force_terminal=False)
    with RichProgress(console), part("measure, rounds", 9) as advance:
        advance(9)
    (line,) = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert re.fullmatch(r"measure, rounds: 9 [\d.]+/s, 0 s", line)


def test_short_parts_leave_no_line_in_a_log() -> None:
    console = Console(file=io.StringIO(), force_terminal=False)
    with RichProgress(console), part("measure, rounds", 9) as advance:
        advance(9)
    assert console.file.getvalue() == ""  # type: ignore[attr-defined]


def test_an_interrupted_part_goes_too() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    with RichProgress(console) as report, pytest.raises(ValueError, match="stop"), part("measure", 9):
        raise ValueError("stop")
    assert report._bars.tasks == []
