"""Times of single layers, measured on this machine."""

from __future__ import annotations

from collections.abc import Sequence

from fupruner.errors import NotAvailableError
from fupruner.graph.layer_shape import LayerShape
from fupruner.targets.base import CostModel
from fupruner.targets.runtime import runtime_name


class LatencyTable(CostModel):
    """Latencies per layer on this machine."""

    grade = "table"

    def __init__(self) -> None:
        self.source = runtime_name()

    def price(self, layers: Sequence[LayerShape]) -> list[float]:
        """Time of each layer in milliseconds at batch 1, in the order given."""
        raise NotAvailableError("The latency table is not there yet.")
