"""Progress and results in a real notebook kernel."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat", reason="needs pip install nbclient ipykernel")
nbclient = pytest.importorskip("nbclient", reason="needs pip install nbclient ipykernel")
pytest.importorskip("ipykernel", reason="needs pip install ipykernel")

pytestmark = [pytest.mark.timeout(180), pytest.mark.filterwarnings("ignore::DeprecationWarning")]

BARS = """
import time
import fupruner
from fupruner.progress import part
with fupruner.show_progress() as progress:
    progress.stage("train <b>", 4)
    progress.advance(3, loss=0.5)
    progress.note("epoch 1 of 2: 90.00 %")
    with part("calibrate, images", 40) as advance:
        advance(30)
        progress._draw(at_once=True)
        time.sleep(0.5)
        advance(10)
"""
RESULT = """
import torch
model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)).eval()
fupruner.fuse(model, torch.zeros(1, 3, 8, 8))
"""


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """A notebook that was run; every update of the first cell's bars is kept."""
    folder = tmp_path_factory.mktemp("notebook")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in (BARS, RESULT)])
    updates: list[str] = []

    class Client(nbclient.NotebookClient):  # type: ignore[misc, name-defined]
        def process_message(self, message: Any, cell: Any, index: int) -> Any:
            if message["msg_type"] == "update_display_data":
                updates.append(message["content"]["data"].get("text/html", ""))
            return super().process_message(message, cell, index)

    source = str(Path(__file__).parents[2] / "src")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([source, os.environ.get("PYTHONPATH", "")])}
    Client(notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(folder)}}).execute(
        env=environment
    )
    return [updates, *notebook.cells]


def text_of(cell: Any) -> str:
    return "\n".join(str(output.get("text", "") or output["data"]) for output in cell.outputs)


def test_bars_are_drawn_anew_in_place(cells: list[Any]) -> None:
    shown = "\n".join(cells[0])
    assert "train &lt;b&gt;" in shown
    assert "calibrate, images" in shown
    assert "30/40" in shown
    assert "3/4" in shown
    assert "install" not in text_of(cells[1])  # no library is missing


def test_lines_worth_keeping_stay_and_bars_go(cells: list[Any]) -> None:
    left = text_of(cells[1])
    assert "epoch 1 of 2: 90.00 %" in left
    assert "train <b>: done in" in left or "train &lt;b&gt;: done in" in left
    assert "30/40" not in left


def test_results_are_tables(cells: list[Any]) -> None:
    (output,) = [each for each in cells[2].outputs if each["output_type"] == "execute_result"]
    assert "<table>" in output["data"]["text/html"]
    assert "BatchNorm2d" in output["data"]["text/html"]
    assert output["data"]["text/plain"].startswith("Fused (aggressive): 1 rewrite fired")
