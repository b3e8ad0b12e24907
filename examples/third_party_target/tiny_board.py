"""A target of one's own: a small board that runs ONNX files, and is not connected, so that its latencies are estimated.

A target of a real device would call its converter in ``export``, its runtime or simulator in ``predict``, and the device itself in
``compare``. This one writes what FuPruner writes for the CPU, and estimates: a layer takes as long as its arithmetic or its
memory traffic, whichever is longer. The constants are made up.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, prod
from pathlib import Path

from torch import Tensor, nn

from fupruner.graph.layer_shape import LayerShape
from fupruner.records import Comparison, Fact, LayerTime
from fupruner.targets.base import ExportResult, Images, Target, Tool
from fupruner.targets.cost_model import CostModel
from fupruner.targets.cpu import CpuTarget
from fupruner.targets.onnx_device import compare_files, file_layer_times
from fupruner.training.outputs import Outputs

LANES = 8
MACS_PER_MS = 2e6
BYTES_PER_MS = 1e6
LAUNCH_MS = 0.002


class TinyBoardCost(CostModel):
    """Channels are worked on in blocks of eight: nine cost as much as sixteen."""

    grade = "estimated"
    source = "made-up constants of a board that does not exist"

    def price(self, layers: Sequence[LayerShape]) -> list[float]:
        """Time of each layer in milliseconds at batch 1."""
        return [self._price(layer) for layer in layers]

    def _price(self, layer: LayerShape) -> float:
        channels = layer.out_shape[0]
        arithmetic = layer.macs * (LANES * ceil(channels / LANES) / channels) / MACS_PER_MS
        traffic = 4 * (layer.inputs * prod(layer.in_shape) + prod(layer.out_shape)) / BYTES_PER_MS
        return LAUNCH_MS + max(arithmetic, traffic)


class TinyBoard(Target):
    """The board. The entry point in ``pyproject.toml`` names this class; FuPruner calls it without arguments."""

    name = "tiny-board"
    ships = "ONNX"
    suffix = ".onnx"
    precision = "float32"
    alignment = LANES
    operators = None
    grade = "estimated"
    recipe = "Copy model.onnx to the board.\n"

    def __init__(self) -> None:
        self._host = CpuTarget()  # runs the board's files here
        self.judged_in = self._host.judged_in

    def adapted(self, module: nn.Module, images: Images | None) -> Target:
        """Itself: nothing is quantised, so nothing has to be calibrated."""
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
        """Estimated latencies."""
        return compare_files(self.name, self.cost_model(), paths)

    def layer_times(self, path: Path, example_inputs: tuple[Tensor, ...], *, threads: int = 1) -> list[LayerTime]:
        """Estimated time of each layer."""
        return file_layer_times(self.cost_model(), path)

    def cost_model(self) -> CostModel:
        """What plans are made by."""
        return TinyBoardCost()

    def inspect(self, path: Path) -> list[Fact]:
        """The board has no tool that would say more."""
        return []

    def tools(self) -> list[Tool]:
        """The board needs none."""
        return []

    def install(self) -> list[str]:
        """Nothing to bring."""
        return []
