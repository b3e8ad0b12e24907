"""Coral Edge TPU: int8 TFLite, checked in LiteRT, compiled by Google's compiler where that is installed."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from fupruner.errors import InputError
from fupruner.records import Comparison, Fact, Grade, LayerTime
from fupruner.targets.base import ExportResult, Images, Target, Tool
from fupruner.targets.check import INT8_ERROR, calibration_of, in_chunks, worst_error
from fupruner.targets.cost_model import CostModel
from fupruner.targets.device.networks import EdgeTpuTool
from fupruner.targets.edge_tpu import compiler, old_runtimes
from fupruner.targets.edge_tpu.convert import EXTRA, open_interpreter, quantise, run_interpreter, to_float_tflite
from fupruner.targets.edge_tpu.cost import MIB, ON_CHIP, SOURCE, EdgeTpuModel, Pace, network_ms
from fupruner.targets.edge_tpu.flatbuffer import (
    OPERATORS,
    for_old_runtimes,
    input_bytes,
    operators_of,
    require_runnable,
    sampled,
    zero_pads,
)
from fupruner.targets.onnx_device import estimated_comparison
from fupruner.targets.onnx_file import float_inputs
from fupruner.training.outputs import Outputs

_RECIPE = """\
edgetpu_compiler -s model.tflite      # version 16 or newer, on any x86-64 Debian; writes model_edgetpu.tflite

# on the machine with the Edge TPU (pycoral)
from pycoral.utils.edgetpu import make_interpreter

interpreter = make_interpreter("model_edgetpu.tflite")
interpreter.allocate_tensors()
entry = interpreter.get_input_details()[0]  # int8, channels last: image / scale + zero point, prepared as for the original
"""


class EdgeTpuTarget(Target):
    """An Edge TPU, without it: files are judged in int8 by LiteRT here, and estimated.

    Args:
        images: what activations are calibrated on; the example inputs of an export where None.
        streams: whether the network that is worked on is larger than the chip.
    """

    name = "edge-tpu"
    ships = "TFLite"
    suffix = ".tflite"
    precision = "int8"
    alignment = 4
    operators = OPERATORS
    grade: Grade = "estimated"
    judged_in = "LiteRT, in int8"
    recipe = _RECIPE
    remote = EdgeTpuTool()
    on_chip_bytes = int(ON_CHIP * MIB)

    def __init__(self, images: Images | None = None, *, streams: bool = False) -> None:
        self._images, self._streams = images, streams

    def adapted(self, module: nn.Module, images: Images | None) -> Target:
        """Calibrated on these images; parameters are dear where the network is larger than the chip."""
        size = sum(parameter.numel() for parameter in module.parameters())
        return EdgeTpuTarget(images, streams=size > ON_CHIP * MIB)

    def export(self, module: nn.Module, example_inputs: tuple[Tensor, ...], path: Path) -> ExportResult:
        """Write an int8 file for one image and check it in LiteRT.

        Args:
            module: the network; it is left as it is.
            example_inputs: one tensor (N, C, H, W); calibrated on where the target was not given images.
            path: the file to write.

        Raises:
            TargetError: an operator cannot be quantised or run, or int8 is not enough.
        """
        path = Path(path)
        images = calibration_of(self._images, example_inputs)[0]
        floating = sampled(zero_pads(to_float_tflite(module, example_inputs)))
        content = for_old_runtimes(quantise(floating, [x.permute(0, 2, 3, 1).numpy() for x in images.split(1)]))
        require_runnable(content)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return ExportResult((path,), self.verify(module, (images[:8],), path))

    def verify(self, module: nn.Module, example_inputs: tuple[Tensor, ...], path: Path) -> float:
        """Largest difference between module and file on the example inputs, relative to the largest output."""
        interpreter = open_interpreter(_read(path))
        batches = [(image,) for image in float_inputs(example_inputs)[0].split(1)[:8]]
        hint = "Calibrate on images like those that the network will see."
        return worst_error(
            module, lambda a: run_interpreter(interpreter, a[0]), batches, Path(path), allowed=INT8_ERROR, hint=hint
        )

    def predict(self, path: Path, inputs: Tensor) -> Outputs:
        """Run a file on inputs (N, C, H, W) in LiteRT, image by image, with all threads that PyTorch may use."""
        interpreter = open_interpreter(_read(path), torch.get_num_threads())
        return in_chunks(lambda image: run_interpreter(interpreter, image), inputs, 1, fixed=True)

    def compare(self, paths: Sequence[Path], example_inputs: tuple[Tensor, ...], *, threads: int = 1) -> Comparison:
        """Estimated latencies."""
        totals = []
        for path in paths:
            content = _read(path)
            operators = operators_of(content)
            totals.append(
                network_ms(
                    input_bytes(content),
                    sum(op.macs for op in operators),
                    sum(op.elements for op in operators),
                    sum(op.weight_bytes for op in operators),
                )
            )
        return estimated_comparison(self.name, totals, SOURCE)

    def layer_times(self, path: Path, example_inputs: tuple[Tensor, ...], *, threads: int = 1) -> list[LayerTime]:
        """Estimated time of each operator; parameters count as kept on the chip in order until it is full."""
        pace, kept, times = Pace(), 0.0, []
        for op in operators_of(_read(path)):
            size = op.weight_bytes / MIB
            fits = min(size, max(0.0, ON_CHIP - kept))
            kept += fits
            ms = pace.gmac * op.macs / 1e9 + pace.moved * op.elements / 1e6 + pace.streamed * (size - fits)
            times.append(LayerTime(name=op.name, kind=op.kind, ms=ms, grade="estimated"))
        return times

    def cost_model(self) -> CostModel:
        """Prices that add up to the estimate that ``compare`` gives."""
        return EdgeTpuModel(streams=self._streams)

    def inspect(self, path: Path) -> list[Fact]:
        """Whether the parameters fit on the chip; what the compiler says where it is installed.

        Raises:
            TargetError: the compiler fails or leaves operators to the host, or an old runtime gives something else.
        """
        size = sum(op.weight_bytes for op in operators_of(_read(path))) / MIB
        fits = "fit on the chip" if size <= ON_CHIP else f"{size - ON_CHIP:.2f} MiB more than fit on the chip"
        said = [
            Fact(name="parameters", value=f"{size:.2f} MiB, {fits}", source="FuPruner"),
            *old_runtimes.check(Path(path)),
        ]
        if not compiler.installed():
            return said
        with tempfile.TemporaryDirectory(prefix="fupruner-") as folder:
            return [*said, *compiler.facts(compiler.compile_file(Path(path), Path(folder)))]

    def tools(self) -> list[Tool]:
        """The converter, without which nothing is made, and the device's compiler."""
        libraries = [
            Tool(name, purpose, "installed" if importlib.util.find_spec(module) else "", EXTRA, needed=True)
            for name, module, purpose in (
                ("litert-torch", "litert_torch", "writes TFLite files"),
                ("ai-edge-quantizer", "ai_edge_quantizer", "quantises them"),
                ("LiteRT", "ai_edge_litert", "runs them here"),
            )
        ]
        get = f"fupruner targets --install {self.name}"
        runtimes = [
            Tool(each.name, "runs them as the compiler's years did", "installed" if each.interpreter else "", get)
            for each in old_runtimes.ENVIRONMENTS
        ]
        return [
            *libraries,
            *runtimes,
            Tool("edgetpu_compiler", "compiles them for the device", compiler.installed(), compiler.GET),
        ]

    def install(self) -> list[str]:
        """Build the side environments of the old runtimes; the libraries are an extra, the compiler is Google's package.

        Raises:
            TargetError: Python 3.9 is missing, or a package cannot be installed.
        """
        return [str(environment.install()) for environment in old_runtimes.ENVIRONMENTS]


def _read(path: Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"Cannot read {path}: {error}.") from None
