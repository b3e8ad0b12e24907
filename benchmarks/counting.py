"""A target on which multiply-adds are all that counts, for comparisons at equal multiply-adds; one 'millisecond' is a million of them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor, nn

from fupruner.graph.layer_shape import LayerShape
from fupruner.records import Comparison, Fact, LayerTime
from fupruner.targets.base import ExportResult, Images, Target, Tool
from fupruner.targets.cost_model import CostModel
from fupruner.targets.cpu import CpuTarget
from fupruner.targets.onnx_device import compare_files, file_layer_times
from fupruner.training.outputs import Outputs


class Counted(CostModel):
    """Multiply-adds in millions."""

    grade = "estimated"
    source = "counted multiply-adds"

    def price(self, layers: Sequence[LayerShape]) -> list[float]:
        """Millions of multiply-adds of each layer."""
        return [layer.macs / 1e6 for layer in layers]


class Counting(Target):
    """ONNX files, run on the CPU and priced by their multiply-adds."""

    name = "macs"
    ships = "ONNX"
    suffix = ".onnx"
    precision = "float32"
    alignment = 8
    operators = None
    grade = "estimated"
    recipe = ""

    def __init__(self) -> None:
        self._host = CpuTarget()
        self.judged_in = self._host.judged_in

    def adapted(self, module: nn.Module, images: Images | None) -> Target:
        """Itself."""
        return self

    def export(self, module: nn.Module, example_inputs: tuple[Tensor, ...], path: Path) -> ExportResult:
        """Write an ONNX file and check it."""
        return self._host.export(module, example_inputs, path)

    def verify(self, module: nn.Module, example_inputs: tuple[Tensor, ...], path: Path) -> float:
        """Largest relative difference between module and file."""
        return self._host.verify(module, example_inputs, path)

    def predict(self, path: Path, inputs: Tensor) -> Outputs:
        """Run a file here."""
        return self._host.predict(path, inputs)

    def compare(self, paths: Sequence[Path], example_inputs: tuple[Tensor, ...], *, threads: int = 1) -> Comparison:
        """Multiply-adds of files."""
        return compare_files(self.name, Counted(), paths)

    def layer_times(self, path: Path, example_inputs: tuple[Tensor, ...], *, threads: int = 1) -> list[LayerTime]:
        """Multiply-adds of each layer."""
        return file_layer_times(Counted(), path)

    def cost_model(self) -> CostModel:
        """What plans are made by."""
        return Counted()

    def inspect(self, path: Path) -> list[Fact]:
        """Nothing more to say."""
        return []

    def tools(self) -> list[Tool]:
        """None needed."""
        return []

    def install(self) -> list[str]:
        """Nothing to bring."""
        return []


def announce(folder: Path) -> None:
    """Let ``fupruner`` find the target by its name, as that of an installed package: its description is written to a folder."""
    described = folder / "fupruner_counting-0.dist-info"
    described.mkdir()
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: fupruner-counting\nVersion: 0\n")
    (described / "entry_points.txt").write_text("[fupruner.targets]\nmacs = counting:Counting\n")
    sys.path.append(str(folder))
