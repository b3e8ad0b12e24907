"""This machine's processor, through ONNX Runtime."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import onnx
import onnxruntime
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
from fupruner.targets.node_names import file_names
from fupruner.targets.onnx_file import float_inputs, write_onnx
from fupruner.targets.onnx_int8 import quantise
from fupruner.targets.profiler import node_times
from fupruner.targets.runtime import Array, channel_block, name_feeds, open_session, run_session, runtime_name
from fupruner.training.outputs import Outputs

MAX_ERROR = 1e-3
_CHUNK = 64
_HINT = "If only some batch sizes fail, a reshape fixes the batch size; use x.shape[0] or -1."
_HINT_INT8 = "Calibrate on images like those that the network will see."


_CALIBRATION_CHUNK = 32
_CHECKED = 8
"""Images on which an int8 file is compared with its module."""
NO_FLOAT16 = "ONNX Runtime computes half precision in float32 here, which is slower."

_RECIPE = """\
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("model.onnx")
entry = session.get_inputs()[0]
shape = [size if isinstance(size, int) else 1 for size in entry.shape]
images = np.zeros(shape, dtype=np.float32)  # prepare real images exactly as the original network got them
scores = session.run(None, {entry.name: images})[0]
print(scores.argmax(axis=1))
"""


class CpuTarget(Target):
    """ONNX files, run by ONNX Runtime on this machine: float32, or int8 beside the original in float32.

    Args:
        int8: whether networks ship in int8.
        images: what activations are calibrated on; the example inputs of an export where None.
    """

    name = "cpu"
    ships = "ONNX"
    suffix = ".onnx"
    operators = None
    grade: Grade = "measured"
    recipe = _RECIPE

    def __init__(self, *, int8: bool = False, images: Images | None = None) -> None:
        self.alignment = channel_block()
        self.judged_in = f"ONNX Runtime {onnxruntime.__version__}"
        self._int8, self._images = int8, images
        self.precision = "int8" if int8 else "float32"
        self.reference = CpuTarget() if int8 else None
        self.remote = SheetTool(PythonTool("onnxruntime_worker", "onnxruntime numpy"), self.suffix, int8, int8)
        self.formats = MappingProxyType({"float16": NO_FLOAT16} if int8 else {"int8": cpu_int8, "float16": NO_FLOAT16})

    def adapted(self, module: nn.Module, images: Images | None) -> Target:
        """Calibrated on these images; in float32, itself."""
        return CpuTarget(int8=True, images=images) if self._int8 else self

    def export(self, module: nn.Module, example_inputs: tuple[Tensor, ...], path: Path) -> ExportResult:
        """Write an ONNX file and check it in the runtime; in float32 at the example's batch size and at another one.

        Args:
            module: the network; it is left as it is.
            example_inputs: tensors (N, ...), batch first; int8 is calibrated on them where the target was not given images.
            path: the file to write.

        Raises:
            TargetError: the format cannot express the module, or outputs differ by more than the number format explains.
        """
        path = Path(path)
        if not self._int8:
            write_onnx(module, example_inputs, path)
            return ExportResult((path,), self.verify(module, example_inputs, path))
        images = calibration_of(self._images, example_inputs)
        draft = path.with_name(f".{path.name}.{os.getpid()}.float")
        try:
            write_onnx(module, example_inputs, draft)
            model = onnx.load(str(draft))
        finally:
            draft.unlink(missing_ok=True)
        names = [entry.name for entry in model.graph.input]
        chunks = zip(*(tensor.split(_CALIBRATION_CHUNK) for tensor in images), strict=True)
        onnx.save(quantise(model, [dict(zip(names, arrays(chunk), strict=True)) for chunk in chunks]), str(path))
        return ExportResult((path,), self.verify(module, batch_of(images, _CHECKED), path))

    def verify(self, module: nn.Module, example_inputs: tuple[Tensor, ...], path: Path) -> float:
        """Largest difference between module and file, relative to the largest output: of float32 also on noise of another batch size.

        Raises:
            TargetError: it is more than the number format explains.
        """
        session = open_session(Path(path))
        examples = float_inputs(example_inputs)
        noise = random_like(batch_of(examples, 2 if len(examples[0]) != 2 else 3), seed=1)
        batches = (examples,) if self._int8 else (examples, noise)
        return worst_error(
            module, lambda a: run_session(session, name_feeds(session, a)), batches, path,
            allowed=INT8_ERROR if self._int8 else MAX_ERROR, hint=_HINT_INT8 if self._int8 else _HINT,
        )  # fmt: skip

    def predict(self, path: Path, inputs: Tensor) -> Outputs:
        """Run a file on inputs (N, ...) with all threads that PyTorch may use; its output (N, ...), or all of them.

        Raises:
            TargetError: the file cannot be loaded, or does not take such inputs.
        """
        session = open_session(Path(path), torch.get_num_threads())
        fixed = _fixed_batch(session)
        return in_chunks(
            lambda chunk: run_session(session, name_feeds(session, [chunk])),
            inputs,
            fixed or _CHUNK,
            fixed=fixed is not None,
        )

    def compare(self, paths: Sequence[Path], example_inputs: tuple[Tensor, ...], *, threads: int = 1) -> Comparison:
        """Time files in interleaved rounds at batch 1, on one fixed random input of the example's shape.

        Args:
            paths: ONNX files with the same inputs; speed-ups are relative to the first.
            example_inputs: tensors (N, ...); only shapes and dtypes matter.
            threads: threads inside an operator.

        Raises:
            InputError: no file was given.
            TargetError: a file cannot be loaded, or does not take such inputs.
        """
        if not paths:
            raise InputError("There is no file to time.", hint="Give at least one ONNX file.")
        single = arrays(batch_of(random_like(example_inputs, seed=0), 1))
        sessions = [open_session(Path(path), threads) for path in paths]
        return compared(self.name, runtime_name(), [_runner(session, single) for session in sessions], threads)

    def layer_times(self, path: Path, example_inputs: tuple[Tensor, ...], *, threads: int = 1) -> list[LayerTime]:
        """Time of each operator at batch 1 in the order of execution, from the runtime's profiler.

        Operators that the runtime merges show as one, under the name of the node in the file that they grew from.
        The profiler's own time, which is the same for every operator, is taken off.

        Raises:
            TargetError: the file cannot be loaded, or does not take such inputs.
        """
        single = arrays(batch_of(random_like(example_inputs, seed=0), 1))
        nodes = node_times(Path(path), single, threads=threads)
        graph = onnx.load(str(path), load_external_data=False).graph
        names = file_names(graph, [(node.name, node.kind) for node in nodes])
        return [LayerTime(name=name, kind=node.kind, ms=node.ms) for name, node in zip(names, nodes, strict=True)]

    def cost_model(self) -> CostModel:
        """Times of single layers, measured on this machine when first asked for and kept on disk."""
        return LatencyTable(engine=Engine(runtime_name(), node_times, by_name=self._int8, int8=self._int8))

    def inspect(self, path: Path) -> list[Fact]:
        """Nothing: the runtime is the tool, and it has timed the file."""
        return []

    def tools(self) -> list[Tool]:
        """ONNX Runtime, which is always installed."""
        return [
            Tool(
                "ONNX Runtime",
                "checks and times files here",
                onnxruntime.__version__,
                "pip install onnxruntime",
                needed=True,
            )
        ]

    def install(self) -> list[str]:
        """Nothing: ONNX Runtime comes with FuPruner."""
        return []


def cpu_int8() -> CpuTarget:
    """This machine's processor, networks in int8."""
    return CpuTarget(int8=True)


def _fixed_batch(session: onnxruntime.InferenceSession) -> int | None:
    """The batch size that a file was written for, or None where it takes any."""
    size = session.get_inputs()[0].shape[0]
    return size if isinstance(size, int) else None


def _runner(session: onnxruntime.InferenceSession, arrays: list[Array]) -> Any:
    feeds = name_feeds(session, arrays)
    run_session(session, feeds)  # errors are worded here, once; timed runs go straight to the runtime
    return lambda: session.run(None, feeds)
