"""TFLite for this machine's processor, in float32 or int8."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor, nn

from fupruner.errors import InputError
from fupruner.records import Comparison, Fact, Grade, LayerTime
from fupruner.targets.base import ExportResult, Images, Target, Tool
from fupruner.targets.check import INT8_ERROR, arrays, batch_of, calibration_of, in_chunks, random_like, worst_error
from fupruner.targets.cost_model import CostModel
from fupruner.targets.device.profiled import LiteRtTool
from fupruner.targets.edge_tpu.convert import (
    EXTRA,
    open_interpreter,
    quantise,
    run_interpreter,
    to_float_tflite,
)
from fupruner.targets.edge_tpu.flatbuffer import operators_of
from fupruner.targets.litert_cpu.small_models import cut_out
from fupruner.targets.litert_cpu.table import LiteRtTable, model_times
from fupruner.targets.local import compared
from fupruner.targets.onnx_file import float_inputs
from fupruner.targets.runtime import Array, channel_block, cpu_name
from fupruner.training.outputs import Outputs

MAX_ERROR = 1e-3
CHECKED = 8
"""Images on which a file is compared with its module."""

_RECIPE = """\
import numpy as np
from ai_edge_litert.interpreter import Interpreter

interpreter = Interpreter("model.tflite")
interpreter.allocate_tensors()
entry, result = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
image = np.zeros(entry["shape"], dtype=entry["dtype"])  # channels last; int8: image / scale + zero point, prepared as for the original
interpreter.set_tensor(entry["index"], image)
interpreter.invoke()
print(interpreter.get_tensor(result["index"]).argmax(axis=1))
"""


class LiteRtTarget(Target):
    """TFLite files for one image, run by LiteRT on this machine: float32, or int8 beside the original in float32.

    Args:
        int8: whether networks ship in int8.
        images: what activations are calibrated on; the example inputs of an export where None.
    """

    name = "litert-cpu"
    ships = "TFLite"
    suffix = ".tflite"
    operators = None
    grade: Grade = "measured"
    recipe = _RECIPE
    judged_in = "LiteRT"

    def __init__(self, *, int8: bool = False, images: Images | None = None) -> None:
        self.alignment = channel_block()
        self._int8, self._images = int8, images
        self.precision = "int8" if int8 else "float32"
        self.reference = LiteRtTarget() if int8 else None
        self.remote = LiteRtTool(int8)
        self.formats = MappingProxyType({} if int8 else {"int8": litert_int8})

    def adapted(self, module: nn.Module, images: Images | None) -> Target:
        """Calibrated on these images; in float32, itself."""
        return LiteRtTarget(int8=True, images=images) if self._int8 else self

    def export(self, module: nn.Module, example_inputs: tuple[Tensor, ...], path: Path) -> ExportResult:
        """Write a TFLite file for one image and check it in LiteRT.

        Args:
            module: the network; it is left as it is.
            example_inputs: one tensor (N, C, H, W); int8 is calibrated on it where the target was not given images.
            path: the file to write.

        Raises:
            TargetError: TFLite cannot express the module, or outputs differ by more than the number format explains.
        """
        path, images = Path(path), calibration_of(self._images if self._int8 else None, example_inputs)
        content = to_float_tflite(module, images)
        if self._int8:
            content = quantise(content, [x.permute(0, 2, 3, 1).contiguous().numpy() for x in images[0].split(1)])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return ExportResult((path,), self.verify(module, batch_of(images, min(CHECKED, len(images[0]))), path))

    def verify(self, module: nn.Module, example_inputs: tuple[Tensor, ...], path: Path) -> float:
        """Largest difference between module and file on the example inputs (and on noise, in float32), relative to the largest output.

        Raises:
            TargetError: it is more than the number format explains.
        """
        interpreter = open_interpreter(_read(path))
        batches: list[tuple[Tensor, ...]] = [(image,) for image in float_inputs(example_inputs)[0].split(1)[:CHECKED]]
        batches += [] if self._int8 else [batch_of(random_like(example_inputs, 1), 1)]
        return worst_error(
            module, lambda a: run_interpreter(interpreter, a[0]), batches, Path(path),
            allowed=INT8_ERROR if self._int8 else MAX_ERROR,
            hint="Calibrate on images like those that the network will see." if self._int8 else "",
        )  # fmt: skip

    def predict(self, path: Path, inputs: Tensor) -> Outputs:
        """Run a file on inputs (N, C, H, W) image by image, with all threads that PyTorch may use; its output, or all of them."""
        interpreter = open_interpreter(_read(path), torch.get_num_threads())
        return in_chunks(lambda image: run_interpreter(interpreter, image), inputs, 1, fixed=True)

    def compare(self, paths: Sequence[Path], example_inputs: tuple[Tensor, ...], *, threads: int = 1) -> Comparison:
        """Time files in interleaved rounds at batch 1, on one fixed random input of the example's shape.

        Raises:
            InputError: no file was given, or one is missing.
            TargetError: LiteRT refuses a file or the inputs.
        """
        if not paths:
            raise InputError("There is no file to time.", hint="Give at least one TFLite file.")
        (image, *_) = arrays(batch_of(random_like(example_inputs, seed=0), 1))
        runs = [_runner(_read(path), threads, image) for path in paths]
        return compared(self.name, runtime_name(), runs, threads)

    def layer_times(self, path: Path, example_inputs: tuple[Tensor, ...], *, threads: int = 1) -> list[LayerTime]:
        """Time of each operator at batch 1, each run alone in a model of its own; so their sum is more than a run takes."""
        content = _read(path)
        times = model_times(cut_out(content), threads)
        return [
            LayerTime(name=op.name, kind=op.kind, ms=ms) for op, ms in zip(operators_of(content), times, strict=True)
        ]

    def cost_model(self) -> CostModel:
        """Times of single layers in LiteRT, measured on this machine when first asked for and kept on disk."""
        return LiteRtTable(runtime_name(), model_times, int8=self._int8)

    def inspect(self, path: Path) -> list[Fact]:
        """Nothing: the runtime is the tool, and it has timed the file."""
        return []

    def tools(self) -> list[Tool]:
        """The converter and the runtime, an extra."""
        libraries = [("litert-torch", "litert_torch", "writes TFLite files"), ("LiteRT", "ai_edge_litert", "runs them")]
        libraries += [("ai-edge-quantizer", "ai_edge_quantizer", "quantises them")]
        return [
            Tool(name, purpose, "installed" if importlib.util.find_spec(module) else "", EXTRA, needed=True)
            for name, module, purpose in libraries
        ]

    def install(self) -> list[str]:
        """Nothing: the libraries are an extra of this package."""
        return []


def litert_int8() -> LiteRtTarget:
    """This machine's processor through LiteRT, networks in int8."""
    return LiteRtTarget(int8=True)


def runtime_name() -> str:
    """Runtime, version and processor, as written beside every figure."""
    try:
        version = importlib.metadata.version("ai-edge-litert")
    except importlib.metadata.PackageNotFoundError:
        version = ""
    return f"{f'LiteRT {version}'.strip()} on {cpu_name()}"


def _runner(content: bytes, threads: int, image: Array) -> Callable[[], object]:
    interpreter = open_interpreter(content, threads)
    run_interpreter(interpreter, image)  # leaves the image in place
    invoke: Callable[[], object] = interpreter.invoke
    return invoke


def _read(path: Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"Cannot read {path}: {error}.") from None
