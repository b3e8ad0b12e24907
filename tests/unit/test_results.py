from __future__ import annotations

from pathlib import Path

import pytest
from torch import nn

from fupruner.results import FuseResult, PruneResult, RunResult
from fupruner.tabular import MOST_ROWS, ShownAsTable, Tabular
from unit.report.builder import NASTY, fusion, plan, summary

FIGURES = summary()
RESULTS = {
    "fuse": FuseResult(nn.Identity(), fusion([NASTY, "a"]), 1.2e-15),
    "prune": PruneResult(nn.Identity(), plan([NASTY, "a", "b"]), ()),
    "run": RunResult(nn.Identity(), None, FIGURES.baseline, FIGURES.final, 2.0, True, Path("runs/x")),
}
LINES = {
    "fuse": "operator       before   after  change",
    "prune": "Pruned for cpu: 1.00 ms -> 0.500 ms predicted (table)",
    "run": "2.00x, requirement met; run folder runs/x",
}


@pytest.mark.parametrize("name", list(RESULTS))
def test_repr_is_a_table(name: str) -> None:
    lines = repr(RESULTS[name]).splitlines()
    assert LINES[name] in lines
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
