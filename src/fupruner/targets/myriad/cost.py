"""Estimated time of layers on the two sticks.

Neural Compute Stick 2 (Myriad X): convolutions on the engines by the compiler's own count of cycles, everything else by the
bytes that it moves; every stage of the schedule has to be started. Two paces are fitted to published latencies of whole
networks, see ``benchmarks/cost_models.py``: how many cycles the engine needs for one that the compiler counts, and
how fast depthwise convolutions are. Bandwidths and the rate of linear layers are those that ANNETTE fitted
(embedded-machine-learning/annette).

Neural Compute Stick (Myriad 2): no engines; a rate of multiply-adds and a bandwidth, from two published latencies only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fupruner.graph.layer_shape import LayerShape
from fupruner.records import Grade
from fupruner.targets.cost_model import CostModel
from fupruner.targets.myriad.stages import Stages, layer_stages

CLOCK = 700e6
MEMORY = 5.68e9
"""Bytes per second between memory and the processors."""
VECTOR_POOL = 0.58e9
"""Bytes per second of a pool on the vector processors."""
DEPTHWISE = 12.2e9
DENSE = 9.6e9
"""Operations per second."""
STAGE_MS = 0.02
"""To start a stage. Not measured: fits to published latencies are as good for anything from 0 to this."""
RATE_MYRIAD_2 = 52e9
VECTOR_MYRIAD_2 = 0.5e9


@dataclass(frozen=True)
class Pace:
    """What is fitted.

    Attributes:
        engine: cycles that pass for one that the compiler counts.
        depthwise: time of a depthwise convolution in units of ANNETTE's.
    """

    engine: float = 1.44
    depthwise: float = 3.3


@dataclass(frozen=True)
class Parts:
    """Milliseconds of a layer before paces are applied."""

    engine: float
    depthwise: float
    rest: float

    def total(self, pace: Pace) -> float:
        """Milliseconds."""
        return pace.engine * self.engine + pace.depthwise * self.depthwise + self.rest


def parts(layer: LayerShape) -> Parts:
    """The time of a layer on a Myriad X, by what it is spent on."""
    stages = layer_stages(layer)
    engine = 0.0 if layer.kind == "linear" else stages.cycles / CLOCK
    on_engine = engine > 0
    pooled = 0.0 if on_engine else stages.pooled / VECTOR_POOL
    rest = stages.moved / MEMORY + pooled + stages.dense / DENSE + STAGE_MS * 1e-3 * stages.count
    weights = 2 * _weights(layer) / MEMORY if layer.kind == "conv" else 0.0
    engine = max(engine, weights, stages.pooled / MEMORY if on_engine else 0.0)
    return Parts(1e3 * engine, 1e3 * stages.depthwise / DEPTHWISE, 1e3 * rest)


def _weights(layer: LayerShape) -> int:
    return layer.macs // max(1, layer.out_shape[-1] * layer.out_shape[-2]) if len(layer.out_shape) == 3 else 0


class MyriadX(CostModel):
    """Neural Compute Stick 2."""

    grade: Grade = "estimated"
    source = "the Myriad compiler's count of engine cycles, ANNETTE's bandwidths, paces fitted to published latencies"
    overhead_ms = 2 * STAGE_MS

    def price(self, layers: Sequence[LayerShape]) -> list[float]:
        """Milliseconds of each layer, in the order given."""
        return [parts(layer).total(Pace()) for layer in layers]


class Myriad2(CostModel):
    """Neural Compute Stick."""

    grade: Grade = "estimated"
    source = "multiply-add rate and bandwidth from two published latencies"
    overhead_ms = 3 * STAGE_MS

    def price(self, layers: Sequence[LayerShape]) -> list[float]:
        """Milliseconds of each layer, in the order given."""
        return [self._price(layer, layer_stages(layer, engine=False)) for layer in layers]

    @staticmethod
    def _price(layer: LayerShape, stages: Stages) -> float:
        seconds = layer.macs / RATE_MYRIAD_2 + (stages.moved + stages.pooled) / VECTOR_MYRIAD_2
        return 1e3 * seconds + STAGE_MS * stages.count
