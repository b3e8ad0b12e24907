"""A device of somebody else: one file and one entry point in a package of its own, found without being installed by FuPruner."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import fupruner
from fupruner.targets.registry import get_target, target_names

BOARD = '''
"""A board that runs TorchScript, and whose latency is counted in multiply-adds."""
from pathlib import Path
import torch
from fupruner.records import Comparison, Fact, LayerTime, Measurement
from fupruner.targets.base import ExportResult, Target, Tool
from fupruner.targets.cost_model import CostModel

class MacModel(CostModel):
    grade = "estimated"
    source = "one multiply-add per nanosecond"
    overhead_ms = 0.01
    def price(self, layers):
        return [layer.macs / 1e6 + 1e-4 for layer in layers]

class TinyBoard(Target):
    name, ships, suffix, precision, alignment = "tiny-board", "TorchScript", ".ts", "float32", 4
    operators, grade, judged_in, recipe = None, "estimated", "PyTorch", "tiny-run model.ts"
    def adapted(self, module, images):
        return self
    def export(self, module, example_inputs, path):
        path = Path(path)
        torch.save(module, path)
        path.with_suffix(".txt").write_text("beside it")
        return ExportResult((path, path.with_suffix(".txt")), self.verify(module, example_inputs, path))
    def verify(self, module, example_inputs, path):
        with torch.no_grad():
            found = self.predict(path, example_inputs[0])
            return float((found - module.eval()(*example_inputs)).abs().max())
    def predict(self, path, inputs):
        with torch.no_grad():
            return torch.load(path, weights_only=False)(inputs)
    def compare(self, paths, example_inputs, *, threads=1):
        networks = [torch.load(p, weights_only=False) for p in paths]
        ms = [0.5 + sum(x.numel() for x in network.parameters()) / 1e3 for network in networks]
        return Comparison(
            measurements=tuple(Measurement(latency_ms=x, spread=0.0, grade="estimated", source="size", target=self.name) for x in ms),
            speedups=tuple(ms[0] / x for x in ms), spreads=(0.0,) * len(ms))
    def layer_times(self, path, example_inputs, *, threads=1):
        return [LayerTime(name="all", kind="all", ms=1.0, grade="estimated")]
    def cost_model(self):
        return MacModel()
    def inspect(self, path):
        return [Fact(name="size", value=f"{Path(path).stat().st_size} bytes", source="tiny-run")]
    def tools(self):
        return [Tool("tiny-run", "runs it", "", "pip install tiny-run")]
    def install(self):
        return []
'''


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder like site-packages with the package and its metadata."""
    (tmp_path / "tiny_board.py").write_text(BOARD)
    info = tmp_path / "tiny_board-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-board\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[fupruner.targets]\ntiny-board = tiny_board:TinyBoard\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    yield tmp_path
    sys.modules.pop("tiny_board", None)


@pytest.mark.usefixtures("package")
def test_device_of_another_package_does_the_job(tmp_path: Path) -> None:
    assert "tiny-board" in target_names()
    model, images = nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 8, 3)).eval(), torch.randn(1, 3, 16, 16)
    result = fupruner.export(model, images, tmp_path / "network.ts", target="tiny-board")
    assert [file.suffix for file in result.files] == [".ts", ".txt"]
    measured = fupruner.measure(tmp_path / "network.ts", images, target="tiny-board")
    assert measured.grade == "estimated"
    pruned = fupruner.prune(model, images, speedup=1.2, target="tiny-board")
    assert pruned.plan.grade == "estimated"
    layers = (14 * 14 * 27 * 32 + 12 * 12 * 288 * 8) / 1e6
    assert pruned.plan.baseline_ms == pytest.approx(0.01 + layers, rel=0.01), (
        "what a run costs beside its layers is part of it"
    )
    assert get_target("tiny-board").tools()[0].get == "pip install tiny-run"


def test_command_line_lists_it(package: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(package), os.environ.get("PYTHONPATH", "")])}
    listed = subprocess.run(
        [sys.executable, "-m", "fupruner", "targets", "--json"],
        capture_output=True,
        text=True,
        env=environment,
        check=True,
    )
    assert '"tiny-board"' in listed.stdout
