"""Every example runs, on less data and for fewer epochs than it does by itself."""

from __future__ import annotations

import importlib
import json
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

EXAMPLES = Path(__file__).parents[2] / "examples"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch):
    """Imports an example by name; examples may import each other, as scripts in one folder do."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(EXAMPLES)):
            del sys.modules[name]


def test_segmentation_is_brought_as_a_task(example, tmp_path: Path) -> None:
    segmentation: ModuleType = example("segmentation")
    result = segmentation.main(tmp_path / "run", images=320, epochs=2)
    assert result.speedup > 1.2
    assert result.baseline.accuracy > 45  # a network that sees only ground scores about 27
    validation = segmentation.shapes(256, seed=1)
    assert segmentation.mean_iou(result.module.eval(), validation) == pytest.approx(result.final.accuracy, abs=0.1)
    page = (tmp_path / "run" / "report.html").read_text().partition("</style>")[2].partition("<script")[0]
    page = re.sub("<[^>]*>", " ", page)
    assert "Mean IoU against latency" in page
    assert "of mean IoU may be lost" in page
    assert (
        "accuracy" not in page.rpartition("Options and conditions")[0].lower()
    )  # events keep the names of their fields
    assert json.loads((tmp_path / "run" / "metric.json").read_text()) == {"name": "mean IoU", "unit": "%"}


def check_loop(outcome: tuple[float, float, object], epochs: int) -> None:
    before, after, result = outcome
    assert before > 85
    assert after > before - 10
    assert result.speedup > 1.2  # type: ignore[attr-defined]
    assert [epoch.epoch for epoch in result.epochs] == list(range(1, epochs + 1))  # type: ignore[attr-defined]
    assert result.epochs[-1].metric == pytest.approx(after, abs=1)  # type: ignore[attr-defined]
    assert result.module(torch.zeros(3, 1, 8, 8)).shape == (3, 10)  # type: ignore[attr-defined]


def test_plain_loop(example) -> None:
    check_loop(example("plain_loop").main(epochs=2), epochs=2)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
def test_lightning_loop(
    example, zoo: ModuleType
) -> None:  # zoo: metrics of Lightning import torchvision where it is installed
    pytest.importorskip("pytorch_lightning", reason="needs pip install pytorch-lightning")
    check_loop(example("lightning_loop").main(epochs=2), epochs=2)
