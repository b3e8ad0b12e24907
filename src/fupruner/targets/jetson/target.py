"""Jetson TX2 and Nano: an ONNX file, and a script that builds and times the engine on the device, where alone it can be built."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType

from torch import Tensor, nn

from fupruner.records import Comparison, Fact, Grade, LayerTime
from fupruner.targets.base import ExportResult, Images, Target, Tool
from fupruner.targets.cost_model import CostModel
from fupruner.targets.jetson import era
from fupruner.targets.jetson.cost import ALIGNMENT, NANO, NANO_PACE, TX2, TX2_PACE, Device, Pace, Roofline
from fupruner.targets.jetson.operators import OPERATORS, OPSET, require_buildable
from fupruner.targets.jetson.remote import TrtexecTool
from fupruner.targets.jetson.script import SCRIPT
from fupruner.targets.onnx_device import (
    compare_files,
    file_layer_times,
    judged_in_half,
    predict_half,
    require_room,
    verify_half,
    write_fixed,
)
from fupruner.training.outputs import Outputs

_RECIPE = """\
scp model.onnx model.sh user@jetson:
ssh user@jetson sh model.sh      # builds model.plan, prints the latency, writes model.profile.json
"""

NO_INT8 = "Neither GPU computes in INT8 (compute capability 5.3 and 6.2); FP16 is what they ship."


class JetsonTarget(Target):
    """A Jetson, without it: files are judged in half precision here, refused where TensorRT 8.2 would, and estimated."""

    ships = "ONNX opset 13"
    suffix = ".onnx"
    precision = "float16"
    alignment = ALIGNMENT
    operators = OPERATORS
    grade: Grade = "estimated"
    recipe = _RECIPE
    formats = MappingProxyType(
        {"int8": NO_INT8, "float32": "TensorRT builds the engine in FP16, which both run faster."}
    )

    def __init__(self, name: str, title: str, device: Device, pace: Pace) -> None:
        self.name, self._title, self._device = name, title, device
        self.judged_in = judged_in_half()
        self.remote = TrtexecTool(title)
        self._model = Roofline(title, device, pace)

    def adapted(self, module: nn.Module, images: Images | None) -> Target:
        """Itself: nothing is quantised."""
        return self

    def export(self, module: nn.Module, example_inputs: tuple[Tensor, ...], path: Path) -> ExportResult:
        """Write an ONNX file for batch 1 with the script that builds it, and check it in half precision.

        Raises:
            TargetError: TensorRT 8.2 lacks an operator, the network is too large, or half precision is not enough.
        """
        path = Path(path)
        write_fixed(module, example_inputs, path, OPSET)
        require_buildable(path, f"The {self._title}")
        require_room(module, path, f"the {self._title}", self._device.memory)
        error = self.verify(module, example_inputs, path)
        script = path.with_suffix(".sh")
        script.write_text(SCRIPT, encoding="utf-8")
        script.chmod(0o755)
        if era.ENVIRONMENT.interpreter is not None:
            era.check(path)
        return ExportResult((path, script), error)

    def verify(self, module: nn.Module, example_inputs: tuple[Tensor, ...], path: Path) -> float:
        """Largest difference between module and file in emulated half precision, relative to the largest output."""
        return verify_half(module, example_inputs, Path(path))

    def predict(self, path: Path, inputs: Tensor) -> Outputs:
        """Run a file in emulated half precision, image by image."""
        return predict_half(Path(path), inputs)

    def compare(self, paths: Sequence[Path], example_inputs: tuple[Tensor, ...], *, threads: int = 1) -> Comparison:
        """Estimated latencies."""
        return compare_files(self.name, self._model, paths)

    def layer_times(self, path: Path, example_inputs: tuple[Tensor, ...], *, threads: int = 1) -> list[LayerTime]:
        """Estimated time of each layer."""
        return file_layer_times(self._model, Path(path))

    def cost_model(self) -> CostModel:
        """The estimate that ``compare`` gives."""
        return self._model

    def inspect(self, path: Path) -> list[Fact]:
        """Whether a runtime of the same years loads the file, where that is installed.

        Raises:
            TargetError: it does not.
        """
        if era.ENVIRONMENT.interpreter is None:
            return []
        return [Fact(name="loads and runs", value=era.check(Path(path)), source=era.SOURCE)]

    def tools(self) -> list[Tool]:
        """The runtime of the same years; TensorRT itself is on the device only."""
        found = "installed" if era.ENVIRONMENT.interpreter else ""
        get = f"fupruner targets --install {self.name}"
        return [
            Tool("ONNX Runtime 1.10", "loads files as the years of TensorRT 8.2 did", found, get),
            Tool("trtexec", "builds and times engines, on the device", "", "JetPack 4.6, on the device"),
        ]

    def install(self) -> list[str]:
        """Build the side environment with ONNX Runtime 1.10."""
        return [str(era.ENVIRONMENT.install())]


def jetson_tx2() -> JetsonTarget:
    """Jetson TX2: 256 cores, 59.7 GB/s."""
    return JetsonTarget("jetson-tx2", "Jetson TX2", TX2, TX2_PACE)


def jetson_nano() -> JetsonTarget:
    """Jetson Nano: 128 cores, 25.6 GB/s."""
    return JetsonTarget("jetson-nano", "Jetson Nano", NANO, NANO_PACE)
