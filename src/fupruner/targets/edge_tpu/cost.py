"""Estimated time on the Edge TPU: the image sent there, multiply-adds, and parameters kept on the chip or streamed at every run.

    milliseconds = 0.84 + 0.0055 * kB of input + 1.19 * GMAC + 0.020 * MiB on the chip + 2.22 * MiB streamed

The constants are fitted to published latencies over USB 3, see ``benchmarks/cost_models.py``; other hosts stream slower. About
7.65 MiB of parameters fit on the chip.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from fupruner.graph.layer_shape import LayerShape
from fupruner.records import Grade
from fupruner.targets.base import CostModel

MIB = 2**20
ON_CHIP = 7.65
"""MiB of parameters that fit."""
SOURCE = "linear fit to published latencies over USB 3"
_IMAGE_CHANNELS = 4
"""A convolution with at most so many input channels reads the image."""


@dataclass(frozen=True)
class Pace:
    """What is fitted: milliseconds per run, per 1000 bytes of input, per 10^9 multiply-adds, per MiB on the chip, per MiB streamed."""

    run: float = 0.84
    sent: float = 0.0055
    gmac: float = 1.19
    kept: float = 0.020
    streamed: float = 2.22


def network_ms(image_bytes: int, macs: int, weight_bytes: int, pace: Pace | None = None) -> float:
    """Milliseconds of a whole network."""
    pace, size = pace or Pace(), weight_bytes / MIB
    kept = min(size, ON_CHIP)
    return (
        pace.run
        + pace.sent * image_bytes / 1e3
        + pace.gmac * macs / 1e9
        + pace.kept * kept
        + pace.streamed * (size - kept)
    )


def weight_bytes(layer: LayerShape) -> int:
    """Bytes of a layer's weights in int8 and of its biases."""
    outputs = layer.out_shape[-1] if layer.kind == "linear" else layer.out_shape[0] if layer.out_shape else 0
    if layer.kind == "linear":
        return layer.in_shape[-1] * outputs + 4 * outputs
    if layer.kind != "conv":
        return 0
    return prod(layer.kernel) * layer.in_shape[0] // layer.groups * outputs + 4 * outputs


def image_bytes(layer: LayerShape) -> int:
    """Bytes of the network's input, where a layer is the one that reads it."""
    reads = layer.kind == "conv" and layer.in_shape[0] <= _IMAGE_CHANNELS
    return prod(layer.in_shape) if reads else 0


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
        return [
            max(1e-6, pace.sent * image_bytes(layer) / 1e3 + pace.gmac * layer.macs / 1e9 + self._per_mib * weight_bytes(layer) / MIB)
            for layer in layers
        ]  # fmt: skip
