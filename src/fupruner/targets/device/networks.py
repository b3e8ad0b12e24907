"""Tools for devices that run whole networks only: what layers of networks took there corrects the estimates of all others."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fupruner.graph.layer_shape import LayerShape
from fupruner.records import Grade, LayerTime
from fupruner.targets.cost_model import CostModel
from fupruner.targets.device.tool import PythonTool, RemoteTool, Timed, read_layers
from fupruner.targets.onnx_layers import FileLayer, file_layers
from fupruner.targets.price_cache import PriceCache
from fupruner.targets.ssh import Shell

_PACE = LayerShape("pace", (1,), (1,))
"""Stands for how many times longer layers took than was estimated."""
MYRIAD = PythonTool("myriad_worker", "openvino==2021.4.2 numpy")
EDGE_TPU = PythonTool("edge_tpu_worker", "tflite-runtime numpy, and Debian's libedgetpu1-std")


class CorrectedModel(CostModel):
    """Estimates, except for layers that ran on the device; others are brought to its pace.

    Args:
        own: the estimates.
        where: the device and its tool; what times are kept under.
    """

    grade: Grade = "estimated"

    def __init__(self, own: CostModel, where: str) -> None:
        self.source = f"{own.source}, corrected by layers that ran on {where}"
        self._own, self._cache = own, PriceCache(where, 1)
        self.overhead_ms = own.overhead_ms * self._pace

    @property
    def _pace(self) -> float:
        return self._cache.get(_PACE) or 1.0

    def price(self, layers: Sequence[LayerShape]) -> list[float]:
        """Milliseconds of each layer, in the order given."""
        guesses = self._own.price(layers)
        known = [self._cache.get(layer) for layer in layers]
        return [guess * self._pace if ms is None else ms for guess, ms in zip(guesses, known, strict=True)]

    def learn(self, layers: Sequence[FileLayer], times: Sequence[LayerTime]) -> None:
        """Keep what layers of a network took; a name of the tool begins with that of the layer which the runtime grew it from."""
        found: dict[str, float] = {}
        for time in times:
            found.setdefault(_first(time.name), time.ms)
        took = {layer.shape: found[layer.name] for layer in layers if found.get(layer.name, 0.0) > 0}
        if took:
            guess = sum(self._own.price(list(took)))
            self._cache.add({**took, _PACE: sum(took.values()) / guess})


def _first(name: str) -> str:
    return name.partition(" + ")[0].partition("@")[0].strip()


@dataclass(frozen=True)
class MyriadTool(RemoteTool):
    """A machine with a Neural Compute Stick and the last OpenVINO for it."""

    python: PythonTool = MYRIAD

    def compare(self, shell: Shell, paths: Sequence[Path], threads: int) -> Timed:
        """Time files in turn there."""
        return self.python.compare(shell, paths, ".onnx", threads)

    def layer_times(self, shell: Shell, path: Path, threads: int) -> list[LayerTime]:
        """Times of the stages of the compiled network."""
        return read_layers(self.python.ask(shell, "layers", [path], ".onnx", threads).get("layers"), shell)

    def cost_model(self, shell: Shell, own: CostModel) -> CostModel:
        """Estimates, corrected by what ran there."""
        return CorrectedModel(own, f"a stick at {shell.address}")


@dataclass(frozen=True)
class EdgeTpuTool(RemoteTool):
    """A machine with an Edge TPU. Files are compiled here first: the compiler runs on x86-64 only."""

    python: PythonTool = EDGE_TPU

    def compare(self, shell: Shell, paths: Sequence[Path], threads: int) -> Timed:
        """Compile files here and time them in turn there.

        Raises:
            TargetError: the compiler is missing or refuses a file, or as for every tool.
        """
        from fupruner.targets.edge_tpu import compiler  # noqa: PLC0415 - of one device

        with tempfile.TemporaryDirectory(prefix="fupruner-") as name:
            compiled = []
            for i, path in enumerate(paths):
                folder = Path(name) / str(i)
                folder.mkdir()
                compiler.compile_file(path, folder)
                compiled.append(folder / f"{path.stem}_edgetpu.tflite")
            return self.python.compare(shell, compiled, ".tflite", threads)

    def layer_times(self, shell: Shell, path: Path, threads: int) -> list[LayerTime]:
        """None: a compiled network is one operator."""
        return []

    def cost_model(self, shell: Shell, own: CostModel) -> CostModel:
        """The estimates: the device tells no layers."""
        return own


def learnt(model: CostModel, path: Path, times: Sequence[LayerTime]) -> None:
    """Keep the layers of an ONNX file that ran on a device, where its prices are corrected by such."""
    if isinstance(model, CorrectedModel):
        model.learn(file_layers(path), times)
