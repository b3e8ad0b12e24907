"""Tools for runtimes that tell times of nodes of any ONNX model: a device's table is measured like the one of this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from fupruner.records import LayerTime
from fupruner.targets.cost_model import CostModel
from fupruner.targets.device.tool import PythonTool, RemoteTool, Timed, read_layers
from fupruner.targets.latency_table import Engine, LatencyTable
from fupruner.targets.litert_cpu.table import LiteRtTable
from fupruner.targets.node_names import file_names
from fupruner.targets.profiler import NodeTime
from fupruner.targets.runtime import Array
from fupruner.targets.ssh import Shell

LITERT = PythonTool("litert_worker", "ai-edge-litert numpy")


@dataclass(frozen=True)
class SheetTool(RemoteTool):
    """ONNX Runtime or OpenVINO on a device.

    Attributes:
        python: the runtime.
        suffix: of shipped files.
        by_name: see ``latency_table.Engine``.
        int8: whether networks ship in int8.
    """

    python: PythonTool
    suffix: str
    by_name: bool = False
    int8: bool = False

    def compare(self, shell: Shell, paths: Sequence[Path], threads: int) -> Timed:
        """Time files in turn there."""
        return self.python.compare(shell, paths, self.suffix, threads)

    def layer_times(self, shell: Shell, path: Path, threads: int) -> list[LayerTime]:
        """Times of a file's nodes there, under the names that they have in the file."""
        times = read_layers(self.python.ask(shell, "layers", [path], self.suffix, threads).get("layers"), shell)
        if self.suffix != ".onnx":
            return times
        names = file_names(onnx.load(str(path)).graph, [(time.name, time.kind) for time in times])
        return [time.model_copy(update={"name": name}) for name, time in zip(names, times, strict=True)]

    def cost_model(self, shell: Shell, own: CostModel) -> CostModel:
        """A table of single layers measured there."""

        def profile(model: bytes, inputs: list[Array], *, threads: int = 1, seconds: float = 1.0) -> list[NodeTime]:
            bare = PythonTool(self.python.worker, self.python.package)
            found = read_layers(bare.ask(shell, "layers", [model], ".onnx", threads).get("layers"), shell)
            return [NodeTime(time.name, time.kind, time.ms) for time in found]

        source = f"{self.python.ask(shell, 'about', [], self.suffix)['source']} ({shell.address})"
        return LatencyTable(engine=Engine(source, profile, self.by_name, self.int8))


@dataclass(frozen=True)
class LiteRtTool(RemoteTool):
    """LiteRT on a device.

    Attributes:
        int8: whether networks ship in int8.
    """

    int8: bool = False
    python: PythonTool = LITERT

    def compare(self, shell: Shell, paths: Sequence[Path], threads: int) -> Timed:
        """Time files in turn there."""
        return self.python.compare(shell, paths, ".tflite", threads)

    def layer_times(self, shell: Shell, path: Path, threads: int) -> list[LayerTime]:
        """Time of each operator there, alone in a model of its own."""
        from fupruner.targets.edge_tpu.flatbuffer import operators_of  # noqa: PLC0415 - an extra
        from fupruner.targets.litert_cpu.small_models import cut_out  # noqa: PLC0415 - the same

        content = path.read_bytes()
        times = self._times(shell, cut_out(content), threads)
        found = [(op.name, op.kind, ms) for op, ms in zip(operators_of(content), times, strict=True)]
        return read_layers(found, shell)

    def _times(self, shell: Shell, models: Sequence[bytes], threads: int) -> list[float]:
        said = self.python.ask(shell, "each", models, ".tflite", threads)
        return [time.ms for time in read_layers([("", "", ms) for ms in said.get("times", [])], shell)]

    def cost_model(self, shell: Shell, own: CostModel) -> CostModel:
        """A table of single layers measured there."""
        source = f"{self.python.ask(shell, 'about', [], '.tflite')['source']} ({shell.address})"
        return LiteRtTable(source, lambda models, threads: self._times(shell, models, threads), int8=self.int8)
