"""Intel Neural Compute Stick 2 and its predecessor: ONNX files that the last OpenVINO for them reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from torch import Tensor, nn

from fupruner.errors import TargetError
from fupruner.records import Comparison, Fact, Grade, LayerTime
from fupruner.targets.base import ExportResult, Images, Target, Tool
from fupruner.targets.check import batch_of, worst_error
from fupruner.targets.cost_model import CostModel
from fupruner.targets.device.networks import MyriadTool
from fupruner.targets.myriad import compiler, optimizer
from fupruner.targets.myriad.cost import Myriad2, MyriadX
from fupruner.targets.myriad.stages import total_stages
from fupruner.targets.onnx_device import (
    HALF_ERROR,
    compare_files,
    file_layer_times,
    judged_in_half,
    predict_half,
    require_operators,
    require_room,
    verify_half,
    write_fixed,
)
from fupruner.targets.onnx_file import float_inputs
from fupruner.targets.onnx_layers import file_layers
from fupruner.training.outputs import Outputs

OPSET = 11
MEMORY = 0.5e9
"""Bytes of memory on either stick."""

_NAMES = """
Add AveragePool BatchNormalization Clip Concat Constant Conv ConvTranspose DepthToSpace Div Dropout Elu Exp Flatten Floor Gather
Gemm GlobalAveragePool GlobalMaxPool HardSigmoid Identity LRN LeakyRelu Log MatMul Max MaxPool Min Mul Neg PRelu Pad Pow ReduceMax
ReduceMean ReduceMin ReduceSum Relu Reshape Resize Sigmoid Slice Softmax SpaceToDepth Split Sqrt Squeeze Sub Sum Tanh Transpose
Unsqueeze
"""
OPERATORS = frozenset(_NAMES.split())
"""Operators of ONNX that the compiler of OpenVINO 2021.4 takes for these devices; it is asked itself where it is installed."""

INSTEAD = {
    "Erf": "a ReLU instead of the GELU",
    "Einsum": "MatMul with Transpose",
    "GroupNormalization": "batch norm, which disappears into convolutions",
    "InstanceNormalization": "batch norm, which disappears into convolutions",
    "LayerNormalization": "batch norm, which disappears into convolutions",
    "Mod": "Sub and Mul",
    "Where": "Mul by a mask",
}

_RECIPE = """\
# Python 3.9 with openvino=={version}, on the machine with the stick
import numpy as np
from openvino.inference_engine import IECore

core = IECore()
network = core.read_network("model.onnx")
loaded = core.load_network(network, "MYRIAD")  # or core.import_network("model.blob", "MYRIAD")
name = next(iter(network.input_info))
images = np.zeros(network.input_info[name].input_data.shape, dtype=np.float32)  # prepared as for the original
print(next(iter(loaded.infer({{name: images}}).values())).argmax(axis=1))
"""


@dataclass(frozen=True)
class Stick:
    """What tells the two sticks apart."""

    name: str
    chip: str
    platform: str
    version: str
    model: CostModel
    engine: bool


class MyriadTarget(Target):
    """A stick, without it: files are judged in half precision here, compiled by the vendor's compiler, and estimated."""

    ships = "ONNX opset 11"
    suffix = ".onnx"
    formats = MappingProxyType({"int8": "Its engines and vector processors compute in FP16."})
    precision = "float16"
    operators = OPERATORS
    grade: Grade = "estimated"

    def __init__(self, stick: Stick) -> None:
        self.name, self.alignment = stick.name, 8
        self.judged_in = judged_in_half()
        self.remote = MyriadTool()
        self.recipe = _RECIPE.format(version=stick.version)
        self._stick = stick

    def adapted(self, module: nn.Module, images: Images | None) -> Target:
        """Itself: nothing is quantised."""
        return self

    def export(self, module: nn.Module, example_inputs: tuple[Tensor, ...], path: Path) -> ExportResult:
        """Write an ONNX file for batch 1, check it in half precision; IR and blob beside it where the vendor's tools are installed.

        Raises:
            TargetError: the device lacks an operator, half precision is not enough, or the compiler refuses the file.
        """
        path = Path(path)
        write_fixed(module, example_inputs, path, OPSET)
        require_operators(path, OPERATORS, self._stick.chip, INSTEAD)
        require_room(module, path, "the stick", MEMORY)
        error = self.verify(module, example_inputs, path)
        files = [path]
        if optimizer.installed():
            files += self._write_ir(module, example_inputs, path)
        if compiler.installed():
            files.append(path.with_suffix(".blob"))
            compiler.compile_file(path, self._stick.platform, files[-1])
        return ExportResult(tuple(files), error)

    def _write_ir(self, module: nn.Module, example_inputs: tuple[Tensor, ...], path: Path) -> tuple[Path, Path]:
        """IR beside the ONNX file, run once in the runtime of its years: it has to compute what the module does."""
        xml, weights = optimizer.write_ir(path, path.parent)
        images = batch_of(float_inputs(example_inputs), 1)
        worst_error(module, lambda values: optimizer.run_ir(xml, values), [images], xml, allowed=HALF_ERROR)
        return xml, weights

    def verify(self, module: nn.Module, example_inputs: tuple[Tensor, ...], path: Path) -> float:
        """Largest difference between module and file in emulated half precision, relative to the largest output."""
        return verify_half(module, example_inputs, Path(path))

    def predict(self, path: Path, inputs: Tensor) -> Outputs:
        """Run a file in emulated half precision, image by image."""
        return predict_half(Path(path), inputs)

    def compare(self, paths: Sequence[Path], example_inputs: tuple[Tensor, ...], *, threads: int = 1) -> Comparison:
        """Estimated latencies."""
        return compare_files(self.name, self._stick.model, paths)

    def layer_times(self, path: Path, example_inputs: tuple[Tensor, ...], *, threads: int = 1) -> list[LayerTime]:
        """Estimated time of each layer."""
        return file_layer_times(self._stick.model, Path(path))

    def cost_model(self) -> CostModel:
        """The estimate that ``compare`` gives."""
        return self._stick.model

    def inspect(self, path: Path) -> list[Fact]:
        """Stages: predicted, and as the vendor's compiler makes them where it is installed.

        Raises:
            TargetError: the compiler refuses the file.
        """
        layers = [layer.shape for layer in file_layers(Path(path))]
        predicted = Fact(
            name="stages predicted", value=str(total_stages(layers, engine=self._stick.engine)), source="FuPruner"
        )
        if not compiler.installed():
            return [predicted]
        return [predicted, *compiler.facts(compiler.compile_file(Path(path), self._stick.platform))]

    def tools(self) -> list[Tool]:
        """The vendor's compiler, and the library that it loads."""
        found = "installed" if compiler.installed() else ""
        get = f"fupruner targets --install {self.name}"
        return [
            Tool("Myriad compiler (OpenVINO 2021.4.2)", "compiles files with no stick attached", found, get),
            Tool(
                "Model Optimizer (OpenVINO 2021.4.2)",
                "writes IR version 10 in FP16 beside the ONNX file",
                "installed" if optimizer.installed() else "",
                get,
            ),
            Tool("libusb-1.0", "is loaded by the compiler", compiler.usb_library(), "apt-get install libusb-1.0-0"),
        ]

    def install(self) -> list[str]:
        """Build the side environments with the vendor's compiler and Model Optimizer, for both sticks.

        Raises:
            TargetError: libusb or Python 3.9 is missing, or the packages cannot be installed.
        """
        if not compiler.usb_library():
            raise TargetError(
                "libusb-1.0 is missing, which the Myriad compiler loads.", hint="apt-get install libusb-1.0-0"
            )
        return [str(environment.install()) for environment in (compiler.ENVIRONMENT, optimizer.ENVIRONMENT)]


def ncs2() -> MyriadTarget:
    """Neural Compute Stick 2 (MA2485, Myriad X)."""
    return MyriadTarget(Stick("ncs2", "The Neural Compute Stick 2", "VPU_MYRIAD_2480", "2021.4.2", MyriadX(), True))


def ncs() -> MyriadTarget:
    """Neural Compute Stick (MA2450, Myriad 2). Its last runtime is OpenVINO 2020.3; the compiler used here is that of 2021.4."""
    return MyriadTarget(Stick("ncs", "The Neural Compute Stick", "VPU_MYRIAD_2450", "2020.3", Myriad2(), False))
