"""A target whose latency is measured on a device that is reached over ssh; files are written and judged here."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import final

from torch import Tensor, nn

from fupruner.errors import InputError
from fupruner.records import Comparison, Fact, LayerTime
from fupruner.targets.base import ExportResult, Images, Target, Tool
from fupruner.targets.cost_model import CostModel
from fupruner.targets.device.networks import learnt
from fupruner.targets.device.tool import RemoteTool
from fupruner.targets.local import from_rounds
from fupruner.targets.ssh import Address, Shell
from fupruner.training.outputs import Outputs


def on_device(target: Target, device: str) -> Target:
    """The target, timed on a device.

    Raises:
        InputError: the address cannot be read, or the target has no tool that runs elsewhere.
    """
    address = Address.parse(device)
    if target.remote is None:
        raise InputError(f"Target {target.name} cannot be timed over ssh: it says no tool for that.")
    config = os.environ.get("FUPRUNER_SSH_CONFIG")  # instead of ~/.ssh/config
    return RemoteTarget(target, Shell(address, ("-F", config) if config else ()), target.remote)


@final
class RemoteTarget(Target):
    """A target with its device.

    Args:
        target: writes and judges files.
        shell: reaches the device.
        tool: runs files there.
    """

    def __init__(self, target: Target, shell: Shell, tool: RemoteTool) -> None:
        self._target, self._shell, self._tool = target, shell, tool
        self.name, self.ships, self.suffix, self.precision = target.name, target.ships, target.suffix, target.precision
        self.alignment, self.operators, self.judged_in = target.alignment, target.operators, target.judged_in
        self.recipe, self.formats, self.remote = target.recipe, target.formats, target.remote
        self.grade, self.on_chip_bytes = "measured", target.on_chip_bytes
        self.reference = None if target.reference is None else _reference(target.reference, shell)

    def adapted(self, module: nn.Module, images: Images | None) -> Target:
        """For one network and its data, on the same device."""
        return RemoteTarget(self._target.adapted(module, images), self._shell, self._tool)

    def export(self, module: nn.Module, example_inputs: tuple[Tensor, ...], path: Path) -> ExportResult:
        """Write and check the file here."""
        return self._target.export(module, example_inputs, path)

    def verify(self, module: nn.Module, example_inputs: tuple[Tensor, ...], path: Path) -> float:
        """Check the file here."""
        return self._target.verify(module, example_inputs, path)

    def predict(self, path: Path, inputs: Tensor) -> Outputs:
        """Run the file here."""
        return self._target.predict(path, inputs)

    def compare(self, paths: Sequence[Path], example_inputs: tuple[Tensor, ...], *, threads: int = 1) -> Comparison:
        """Time files in turn on the device.

        Raises:
            InputError: no file was given, or one cannot be read.
            TargetError: the device is not reached, its tool is missing, fails, or prints something unexpected.
        """
        if not paths:
            raise InputError("There is no file to time.", hint="Give at least one exported file.")
        timed = self._tool.compare(self._shell, [Path(path) for path in paths], threads)
        return from_rounds(self.name, timed.source, timed.rounds, threads)

    def layer_times(self, path: Path, example_inputs: tuple[Tensor, ...], *, threads: int = 1) -> list[LayerTime]:
        """Times of layers on the device; estimates where its tool tells none."""
        times = self._tool.layer_times(self._shell, Path(path), threads)
        if not times:
            return self._target.layer_times(path, example_inputs, threads=threads)
        if path.suffix == ".onnx":
            learnt(self.cost_model(), Path(path), times)
        return times

    def cost_model(self) -> CostModel:
        """Prices of layers on the device, kept by device and shape."""
        return self._tool.cost_model(self._shell, self._target.cost_model())

    def inspect(self, path: Path) -> list[Fact]:
        """What tools here say about the file."""
        return self._target.inspect(path)

    def tools(self) -> list[Tool]:
        """The software here."""
        return self._target.tools()

    def install(self) -> list[str]:
        """Bring the software here."""
        return self._target.install()


def _reference(target: Target, shell: Shell) -> Target:
    assert target.remote is not None  # noqa: S101 - a number format of a target that has one
    return RemoteTarget(target, shell, target.remote)
