"""What a target is: a file format, and a runtime to check and time it in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from torch import Tensor, nn

from fupruner.records import Comparison, Fact, Grade, LayerTime
from fupruner.tabular import ShownAsTable, Tabular
from fupruner.targets.cost_model import CostModel
from fupruner.targets.device.tool import RemoteTool
from fupruner.training.outputs import Outputs


@dataclass(frozen=True, repr=False)
class ExportResult(ShownAsTable):
    """Files that were written and how far their outputs lie from the module's.

    Attributes:
        files: everything that has to be shipped, the main file first.
        max_error: largest absolute difference of outputs, relative to the largest output.
    """

    files: tuple[Path, ...]
    max_error: float

    def table(self) -> Tabular:
        """The files and their sizes."""
        rows = [(str(file), f"{file.stat().st_size:,} bytes" if file.is_file() else "not there") for file in self.files]
        return Tabular(f"Exported, largest error {self.max_error:.1e}", ("file", "size"), rows)


Images = Callable[[], Tensor]
"""Gives images of the user's training data (N, ...), prepared as the network takes them; asked only where they are needed."""


@dataclass(frozen=True)
class Tool:
    """A piece of software that a target uses.

    Attributes:
        name: what it is called.
        purpose: what is done with it, in a few words.
        found: version or place of what is here; empty where it is missing.
        get: the command that brings it.
        needed: whether nothing can be made for the target without it.
    """

    name: str
    purpose: str
    found: str
    get: str
    needed: bool = False


class Target(ABC):
    """A device with its runtime. Subclasses are final: they implement every method and override none.

    Where the device itself is not here, ``compare`` and ``layer_times`` give estimates, and ``predict`` runs the file in the
    nearest runtime that is here; ``grade`` and ``judged_in`` say so.

    Attributes:
        name: as given to ``--target``.
        ships: the file format.
        suffix: ending of the main file, with the dot. What is shipped beside it has the same name and another ending.
        precision: of weights and activations as shipped.
        alignment: channel counts that are a multiple of this waste nothing.
        operators: operators of the file format that the device runs; None where it runs all that the format has.
        grade: of the latencies that ``compare`` gives.
        judged_in: where ``predict`` runs, as written beside an accuracy.
        recipe: how a file named ``model`` plus the suffix is run on the device, as commands or code.
        formats: number formats in which networks can ship instead of the target's own: what makes the target for each, or the
            reason why the device does not run it.
        on_chip_bytes: of parameters that stay on the chip between runs; more is read again at every run. None where that is no question.
        remote: what times its files on a device that is reached over ssh; None where nothing does.
        reference: the target that ships the original which speed-ups are measured against; None where that is this one.
    """

    name: str
    ships: str
    suffix: str
    precision: str
    alignment: int
    operators: frozenset[str] | None
    grade: Grade
    judged_in: str
    recipe: str
    formats: Mapping[str, Callable[[], Target] | str] = MappingProxyType({})
    reference: Target | None = None
    remote: RemoteTool | None = None
    on_chip_bytes: int | None = None

    @abstractmethod
    def adapted(self, module: nn.Module, images: Images | None) -> Target:
        """This target for one network and its data: what is quantised is calibrated on the images. May be itself.

        Args:
            module: the original network.
            images: of the user's data, or None where there are none; example inputs then stand in.
        """

    @abstractmethod
    def export(self, module: nn.Module, example_inputs: tuple[Tensor, ...], path: Path) -> ExportResult:
        """Write the module in the target's format and verify the file.

        Raises:
            TargetError: the format or the device cannot express the module, or the file computes something else.
        """

    @abstractmethod
    def verify(self, module: nn.Module, example_inputs: tuple[Tensor, ...], path: Path) -> float:
        """Run a shipped file where ``predict`` does; the largest difference from the module, relative to the largest output.

        Raises:
            TargetError: it is larger than the precision explains.
        """

    @abstractmethod
    def predict(self, path: Path, inputs: Tensor) -> Outputs:
        """Run a shipped file on a batch (N, ...) in the target's runtime, or the nearest one; its output, or all of them."""

    @abstractmethod
    def compare(self, paths: Sequence[Path], example_inputs: tuple[Tensor, ...], *, threads: int = 1) -> Comparison:
        """Latencies of shipped files at batch 1: timed in turn, or all of them estimated."""

    @abstractmethod
    def layer_times(self, path: Path, example_inputs: tuple[Tensor, ...], *, threads: int = 1) -> list[LayerTime]:
        """Time of each operator of a shipped file, inside the runtime or estimated."""

    @abstractmethod
    def cost_model(self) -> CostModel:
        """The cost model of this device."""

    @abstractmethod
    def inspect(self, path: Path) -> list[Fact]:
        """What the device's own tools say about a shipped file; empty where they are not here or have nothing to say.

        Raises:
            TargetError: a tool failed or printed something that is not understood.
        """

    @abstractmethod
    def tools(self) -> list[Tool]:
        """The software behind this target, here or missing."""

    @abstractmethod
    def install(self) -> list[str]:
        """Bring the tools that can be brought without an administrator; where they went, empty if there is nothing to bring.

        Raises:
            TargetError: something is missing that only the user can bring, or an installation failed.
        """
