"""Estimated time on the Edge TPU: multiply-adds, and parameters that are kept on the chip or streamed to it at every run.

    milliseconds = 0.60 + 2.35 * GMAC + 0.023 * MiB on the chip + 3.07 * MiB streamed

The constants are a least-squares fit to the public measurements of SPARTA (github.com/mouad-zouhdi/sparta-edgetpu; USB 3). About
7.65 MiB of parameters fit on the chip.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fupruner.graph.layer_shape import LayerShape
from fupruner.records import Grade
from fupruner.targets.base import CostModel

MIB = 2**20
ON_CHIP = 7.65
"""MiB of parameters that fit."""
SOURCE = "linear fit to SPARTA's public measurements over USB 3"


@dataclass(frozen=True)
class Pace:
    """What is fitted: milliseconds per run, per 10^9 multiply-adds, per MiB on the chip, per MiB streamed."""

    run: float = 0.60
    gmac: float = 2.35
    kept: float = 0.023
    streamed: float = 3.07


def network_ms(macs: int, weight_bytes: int, pace: Pace | None = None) -> float:
    """Milliseconds of a whole network."""
    pace, size = pace or Pace(), weight_bytes / MIB
    kept = min(size, ON_CHIP)
    return pace.run + pace.gmac * macs / 1e9 + pace.kept * kept + pace.streamed * (size - kept)


def weight_bytes(layer: LayerShape) -> int:
    """Bytes of a layer's weights in int8 and of its biases."""
    outputs = layer.out_shape[-1] if layer.kind == "linear" else layer.out_shape[0] if layer.out_shape else 0
    if layer.kind == "linear":
        return layer.in_shape[-1] * outputs + 4 * outputs
    if layer.kind != "conv":
        return 0
    taps = 1
    for size in layer.kernel:
        taps *= size
    return taps * layer.in_shape[0] // layer.groups * outputs + 4 * outputs


class EdgeTpuModel(CostModel):
    """Prices layers so that they add up to the estimate of the network that they are part of.

    Args:
        streams: whether the network is larger than the chip: then every MiB that goes saves the time of streaming it, until the
            rest fits. Otherwise parameters are nearly free.
    """

    grade: Grade = "estimated"
    source = SOURCE

    def __init__(self, *, streams: bool = False) -> None:
        pace = Pace()
        self._per_mib = pace.streamed if streams else pace.kept
        self.overhead_ms = pace.run + (ON_CHIP * (pace.kept - pace.streamed) if streams else 0.0)

    def price(self, layers: Sequence[LayerShape]) -> list[float]:
        """Milliseconds of each layer, in the order given."""
        pace = Pace()
        return [max(1e-6, pace.gmac * layer.macs / 1e9 + self._per_mib * weight_bytes(layer) / MIB) for layer in layers]
