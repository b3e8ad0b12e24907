"""What a target is: a file format, a runtime to check and time it in, and a model of what layers cost there."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from fupruner.graph.layer_shape import LayerShape
from fupruner.records import Comparison, Grade, LayerTime
from fupruner.training.outputs import Outputs


@dataclass(frozen=True)
class ExportResult:
    """Files that were written and how far their outputs lie from the module's.

    Attributes:
        files: everything that has to be shipped, the main file first.
        max_error: largest absolute difference of outputs, relative to the largest output.
    """

    files: tuple[Path, ...]
    max_error: float


class CostModel(ABC):
    """Predicts what layers cost on a device.

    Attributes:
        grade: how the figures were obtained; never ``measured``, that is kept for whole networks that ran.
        source: the runtime, or where the constants come from.
    """

    grade: Grade
    source: str

    @abstractmethod
    def price(self, layers: Sequence[LayerShape]) -> list[float]:
        """Time of each layer in milliseconds at batch 1, in the order given."""


class Target(ABC):
    """A device with its runtime. Subclasses are final: they implement every method and override none.

    Attributes:
        name: as given to ``--target``.
        ships: the file format.
        precision: of weights and activations as shipped.
        alignment: channel counts that are a multiple of this waste nothing.
    """

    name: str
    ships: str
    precision: str
    alignment: int

    @abstractmethod
    def export(self, module: nn.Module, example_inputs: tuple[Tensor, ...], path: Path) -> ExportResult:
        """Write the module in the target's format, run the file in the runtime and compare.

        Raises:
            TargetError: the format cannot express the module, or the file computes something else.
        """

    @abstractmethod
    def predict(self, path: Path, inputs: Tensor) -> Outputs:
        """Run a shipped file on a batch (N, ...) in the target's runtime; its output, or a tuple of all of them."""

    @abstractmethod
    def compare(self, paths: Sequence[Path], example_inputs: tuple[Tensor, ...], *, threads: int = 1) -> Comparison:
        """Time shipped files in turn at batch 1."""

    @abstractmethod
    def layer_times(self, path: Path, example_inputs: tuple[Tensor, ...], *, threads: int = 1) -> list[LayerTime]:
        """Time of each operator of a shipped file inside the runtime."""

    @abstractmethod
    def cost_model(self) -> CostModel:
        """The cost model of this device."""
