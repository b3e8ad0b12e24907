"""Estimated time on the Edge TPU: the image sent there, multiply-adds, activations moved, and parameters streamed at every run.

    milliseconds = 0.54 + 0.0023 * kB of input + 0.71 * GMAC + 0.106 * 10^6 activations read or written + 2.24 * MiB streamed

An Add is an operator of its own and reads two tensors. The constants are fitted to published latencies over USB 3, see
``benchmarks/cost_models.py``; other hosts stream slower. About 7.65 MiB of parameters fit on the chip, and cost nothing there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from fupruner.graph.layer_shape import LayerShape
from fupruner.records import Grade
from fupruner.targets.cost_model import CostModel

MIB = 2**20
ON_CHIP = 7.65
"""MiB of parameters that fit."""
SOURCE = "linear fit to published latencies over USB 3"
_IMAGE_CHANNELS = 4
"""A convolution with at most so many input channels reads the image."""


@dataclass(frozen=True)
class Pace:
    """What is fitted: milliseconds per run, per 1000 bytes of input, per 10^9 multiply-adds, per 10^6 activations, per MiB streamed."""

    run: float = 0.54
    sent: float = 0.0023
    gmac: float = 0.71
    moved: float = 0.106
    streamed: float = 2.24


def network_ms(image_bytes: int, macs: int, elements: int, weight_bytes: int) -> float:
    """Milliseconds of a whole network.

    Args:
        image_bytes: of the input.
        macs: multiply-adds.
        elements: activations that are read or written.
        weight_bytes: of all parameters.
    """
    pace, streamed = Pace(), max(0.0, weight_bytes / MIB - ON_CHIP)
    work = pace.gmac * macs / 1e9 + pace.moved * elements / 1e6
    return pace.run + pace.sent * image_bytes / 1e3 + work + pace.streamed * streamed


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


def elements(layer: LayerShape) -> int:
    """Activations that a layer reads and writes; an Add behind it is an operator of its own, with two more to read and one to write."""
    own = prod(layer.in_shape) * layer.inputs + prod(layer.out_shape)
    return own + (3 * prod(layer.out_shape) if layer.fused_add else 0)


class EdgeTpuModel(CostModel):
    """Prices layers so that they add up to the estimate of the network that they are part of.

    Args:
        streams: whether the network is larger than the chip: then every MiB that goes saves the time of streaming it, until the
            rest fits. Otherwise parameters are free.
    """

    grade: Grade = "estimated"
    source = SOURCE

    def __init__(self, *, streams: bool = False) -> None:
        pace = Pace()
        self._per_mib = pace.streamed if streams else 0.0
        self.overhead_ms = pace.run - (ON_CHIP * pace.streamed if streams else 0.0)

    def price(self, layers: Sequence[LayerShape]) -> list[float]:
        """Milliseconds of each layer, in the order given."""
        pace = Pace()
        return [
            max(1e-6, pace.sent * image_bytes(layer) / 1e3 + pace.gmac * layer.macs / 1e9 + pace.moved * elements(layer) / 1e6
                + self._per_mib * weight_bytes(layer) / MIB)
            for layer in layers
        ]  # fmt: skip
