from __future__ import annotations

from pathlib import Path

import pytest
from torch import nn

from fupruner.records import Preview
from fupruner.results import FuseResult, PruneResult, RunResult
from fupruner.sweeping.records import Trial
from fupruner.sweeping.sweep import SweepResult
from fupruner.tabular import MOST_ROWS, ShownAsTable, Tabular
from fupruner.targets.base import ExportResult
from unit.report.builder import NASTY, fusion, plan, summary

FIGURES = summary()
FAILED = Trial(number=1, folder="trial-1", values={"fusion": "auto"}, reason="out of reach")
RESULTS = {
    "fuse": FuseResult(nn.Identity(), fusion([NASTY, "a"]), 1.2e-15),
    "prune": PruneResult(nn.Identity(), plan([NASTY, "a", "b"]), (), 1.9, "measured"),
    "run": RunResult(nn.Identity(), None, FIGURES.baseline, FIGURES.final, 2.0, True, Path("runs/x")),
    "preview": Preview(
        target="cpu", asked_speedup=1.5, attempts=3, epochs=2, steps=8, fusion=fusion([NASTY]), plan=plan([NASTY, "a"])
    ),
    "export": ExportResult((Path("nowhere/model.onnx"),), 1e-7),
    "sweep": SweepResult(
        (Trial(number=0, folder="trial-0", values={"fusion": NASTY}, accuracy=90.0, speedup=1.5), FAILED),
        (),
        None,
        Path("s"),
    ),
}
LINES = {
    "fuse": "operator       before   after  change",
    "prune": "Pruned, 1.90x as fast (measured) for cpu: 1.00 ms -> 0.500 ms predicted (table)",
    "preview": "time predicted        1 -> 0.5 ms (table)",
    "export": "nowhere/model.onnx  not there",
    "sweep": "2 trials, 0 on the front; sweep folder s",
    "run": "2.00x, requirement met; run folder runs/x",
}


@pytest.mark.parametrize("name", list(RESULTS))
def test_repr_is_a_table(name: str) -> None:
    lines = repr(RESULTS[name]).splitlines()
    assert LINES[name].split() in [line.split() for line in lines]
    assert max(map(len, lines)) <= 120


@pytest.mark.parametrize("name", list(RESULTS))
def test_notebooks_show_the_same_cells(name: str) -> None:
    result: ShownAsTable = RESULTS[name]
    page = result._repr_html_()
    assert page.count("<tr>") == 1 + len(result.table().rows)
    assert "<script>" not in page


def test_very_many_rows_are_cut() -> None:
    lines = Tabular("t", ("a", "b"), [(str(i), "1") for i in range(MOST_ROWS + 3)]).text().splitlines()
    assert lines[-1] == "... and 3 more rows"
    assert len(lines) == 2 + MOST_ROWS + 1
