"""OpenVINO's IR for this machine's processor, in float32 or int8."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from fupruner.errors import InputError
from fupruner.records import Comparison, Fact, Grade, LayerTime
from fupruner.targets.base import ExportResult, Images, Target, Tool
from fupruner.targets.check import INT8_ERROR, arrays, batch_of, calibration_of, in_chunks, random_like, worst_error
from fupruner.targets.cost_model import CostModel
from fupruner.targets.device.profiled import SheetTool
from fupruner.targets.device.tool import PythonTool
from fupruner.targets.latency_table import Engine, LatencyTable
from fupruner.targets.local import compared
from fupruner.targets.onnx_file import float_inputs, write_onnx
from fupruner.targets.onnx_int8 import quantise
from fupruner.targets.openvino_cpu.runtime import (
    EXTRA,
    node_times,
    open_request,
    run_request,
    runtime_name,
    write_ir,
)
from fupruner.targets.runtime import Array, channel_block
from fupruner.training.outputs import Outputs

MAX_ERROR = 1e-3
OPSET = 17
CHECKED = 8
"""Images on which a file is compared with its module."""

_RECIPE = """\
import numpy as np
import openvino

network = openvino.Core().compile_model("model.xml", "CPU")  # reads model.bin beside it
images = np.zeros(network.input(0).shape, dtype=np.float32)  # one image, prepared exactly as for the original network
print(network([images])[network.output(0)].argmax(axis=1))
"""


class OpenVinoTarget(Target):
    """IR files for one image, run by OpenVINO on this machine: float32, or int8 beside the original in float32.

    Args:
        int8: whether networks ship in int8.
        images: what activations are calibrated on; the example inputs of an export where None.
    """

    name = "openvino-cpu"
    ships = "OpenVINO IR"
    suffix = ".xml"
    operators = None
    grade: Grade = "measured"
    recipe = _RECIPE
    judged_in = "OpenVINO"

    def __init__(self, *, int8: bool = False, images: Images | None = None) -> None:
        self.alignment = channel_block()
        self._int8, self._images = int8, images
        self.precision = "int8" if int8 else "float32"
        self.reference = OpenVinoTarget() if int8 else None
        self.remote = SheetTool(PythonTool("openvino_worker", "openvino", ".bin"), self.suffix, by_name=True, int8=int8)
        self.formats = MappingProxyType({} if int8 else {"int8": openvino_int8})

    def adapted(self, module: nn.Module, images: Images | None) -> Target:
        """Calibrated on these images; in float32, itself."""
        return OpenVinoTarget(int8=True, images=images) if self._int8 else self

    def export(self, module: nn.Module, example_inputs: tuple[Tensor, ...], path: Path) -> ExportResult:
        """Write IR for one image and check it in OpenVINO.

        Args:
            module: the network; it is left as it is.
            example_inputs: tensors (N, ...), batch first; int8 is calibrated on them where the target was not given images.
            path: the file to write; the weights lie beside it, ending in ``.bin``.

        Raises:
            TargetError: OpenVINO cannot express the module, or outputs differ by more than the number format explains.
        """
        path, images = Path(path), calibration_of(self._images if self._int8 else None, example_inputs)
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="fupruner-") as folder:
            file = Path(folder) / "model.onnx"
            write_onnx(module, batch_of(images, 1), file, opset=OPSET, dynamic_batch=False)
            if self._int8:
                model = onnx.load(str(file))
                names = [entry.name for entry in model.graph.input]
                singles = zip(*(x.split(1) for x in images), strict=True)
                onnx.save(quantise(model, [dict(zip(names, arrays(x), strict=True)) for x in singles]), str(file))
            write_ir(file, path)
        return ExportResult((path, path.with_suffix(".bin")), self.verify(module, batch_of(images, CHECKED), path))

    def verify(self, module: nn.Module, example_inputs: tuple[Tensor, ...], path: Path) -> float:
        """Largest difference between module and file on the example inputs (and on noise, in float32), relative to the largest output.

        Raises:
            TargetError: it is more than the number format explains.
        """
        request = open_request(Path(path))
        batches = list(_singly(example_inputs)) + ([] if self._int8 else [batch_of(random_like(example_inputs, 1), 1)])
        return worst_error(
            module, lambda a: run_request(request, a), batches, Path(path), allowed=INT8_ERROR if self._int8 else MAX_ERROR,
            hint="Calibrate on images like those that the network will see." if self._int8 else "",
        )  # fmt: skip

    def predict(self, path: Path, inputs: Tensor) -> Outputs:
        """Run a file on inputs (N, ...) image by image, with all threads that PyTorch may use; its output, or all of them."""
        request = open_request(Path(path), torch.get_num_threads())
        return in_chunks(lambda image: run_request(request, [image]), inputs, 1, fixed=True)

    def compare(self, paths: Sequence[Path], example_inputs: tuple[Tensor, ...], *, threads: int = 1) -> Comparison:
        """Time files in interleaved rounds at batch 1, on one fixed random input of the example's shape.

        Raises:
            InputError: no file was given, or one is missing.
            TargetError: OpenVINO refuses a file or the inputs.
        """
        if not paths:
            raise InputError("There is no file to time.", hint="Give at least one IR file.")
        single = arrays(batch_of(random_like(example_inputs, seed=0), 1))
        requests = [open_request(Path(path), threads) for path in paths]
        return compared(self.name, runtime_name(), [_runner(request, single) for request in requests], threads)

    def layer_times(self, path: Path, example_inputs: tuple[Tensor, ...], *, threads: int = 1) -> list[LayerTime]:
        """Time of each node at batch 1, from the runtime's own counters; merged nodes show as one."""
        single = arrays(batch_of(random_like(example_inputs, seed=0), 1))
        return [LayerTime(name=n.name, kind=n.kind, ms=n.ms) for n in node_times(Path(path), single, threads=threads)]

    def cost_model(self) -> CostModel:
        """Times of single layers in OpenVINO, measured on this machine when first asked for and kept on disk."""
        return LatencyTable(engine=Engine(runtime_name(), node_times, by_name=True, int8=self._int8))

    def inspect(self, path: Path) -> list[Fact]:
        """Nothing: the runtime is the tool, and it has timed the file."""
        return []

    def tools(self) -> list[Tool]:
        """OpenVINO, an extra."""
        found = "installed" if importlib.util.find_spec("openvino") else ""
        return [Tool("OpenVINO", "writes, checks and times files here", found, EXTRA, needed=True)]

    def install(self) -> list[str]:
        """Nothing: OpenVINO is an extra of this package."""
        return []


def openvino_int8() -> OpenVinoTarget:
    """This machine's processor through OpenVINO, networks in int8."""
    return OpenVinoTarget(int8=True)


def _singly(example_inputs: tuple[Tensor, ...]) -> list[tuple[Tensor, ...]]:
    """The first samples one by one."""
    return list(zip(*(x.split(1)[:CHECKED] for x in float_inputs(example_inputs)), strict=True))


def _runner(request: Any, values: list[Array]) -> Any:
    run_request(request, values)  # errors are worded here, once; timed runs go straight to the runtime
    return request.infer  # with the inputs of the last call
