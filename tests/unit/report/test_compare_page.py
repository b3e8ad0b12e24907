from __future__ import annotations

from pathlib import Path

import pytest

from fupruner.options import Options, write_options
from fupruner.report.compare_page import names, notes, option_table, render, run_table, trade_off
from fupruner.report.data import RunReport, read_run
from unit.report.builder import build_run


@pytest.fixture
def runs(tmp_path: Path) -> list[RunReport]:
    folders = [build_run(tmp_path / part / "run", layers=4) for part in ("a", "b")]
    folders.append(build_run(tmp_path / "third", layers=4, satisfied=False))
    write_options(Options(epochs=9), folders[1] / "options.toml")
    return [read_run(folder) for folder in folders]


def test_every_point_of_every_run_is_in_the_chart(runs: list[RunReport]) -> None:
    chart = trade_off(runs)
    sizes = {trace["name"]: len(trace["x"]) for trace in chart.data}
    assert sizes["run (1)"] == sizes["run (2)"] == 1 + len(runs[0].attempts)
    assert sizes["kept"] == 3


def test_runs_of_one_name_are_told_apart(runs: list[RunReport]) -> None:
    assert names(runs) == ["run (1)", "run (2)", "third"]
    assert [row[3] for row in run_table(runs).rows] == ["met", "met", "not met"]


def test_only_options_that_differ_are_listed(runs: list[RunReport]) -> None:
    rows = {row[0]: row[1:] for row in option_table(runs).rows}
    assert rows["epochs"] == ("5", "9", "5")
    assert "batch_size" not in rows


def test_different_targets_are_said(runs: list[RunReport]) -> None:
    other = runs[0].model_copy(update={"summary": runs[0].summary.model_copy(update={"target": "other-board"})})
    assert len(notes(runs)) == 1
    assert "The runs have different targets: cpu; other-board." in notes([*runs, other])


def test_names_are_escaped(runs: list[RunReport]) -> None:
    odd = runs[0].model_copy(update={"folder": "<script>alert(1)</script>"})
    assert "<script>alert(1)" not in render([odd, *runs])
