"""What layers cost on a device."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from fupruner.graph.layer_shape import LayerShape
from fupruner.records import Grade


class CostModel(ABC):
    """Predicts what layers cost on a device.

    Attributes:
        grade: how the figures were obtained; never ``measured``, that is kept for whole networks that ran.
        source: the runtime, or where the constants come from.
        overhead_ms: what a run costs beside its layers, in milliseconds.
    """

    grade: Grade
    source: str
    overhead_ms: float = 0.0

    @abstractmethod
    def price(self, layers: Sequence[LayerShape]) -> list[float]:
        """Time of each layer in milliseconds at batch 1, in the order given."""
