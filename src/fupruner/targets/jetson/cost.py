"""Estimated time of layers in half precision: the longer of arithmetic and memory traffic, and the launch of a kernel.

TensorRT merges bias, Add and activation into the convolution, so a layer is one kernel. Peaks are those of the devices; how much
of them is reached is fitted to published latencies of whole networks, see ``benchmarks/cost_models.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, prod

from fupruner.graph.layer_shape import LayerShape
from fupruner.records import Grade
from fupruner.targets.cost_model import CostModel

ALIGNMENT = 8


@dataclass(frozen=True)
class Device:
    """Peaks of a device.

    Attributes:
        operations: per second in half precision, two per multiply-add.
        bandwidth: bytes per second.
        memory: bytes that a network may use.
    """

    operations: float
    bandwidth: float
    memory: float


TX2 = Device(1.33e12, 59.7e9, 6e9)
NANO = Device(472e9, 25.6e9, 2.5e9)


@dataclass(frozen=True)
class Pace:
    """What is fitted.

    Attributes:
        winograd: share of peak arithmetic that 3x3 convolutions of stride 1 reach, counted as direct ones.
        other: the same of all other convolutions.
        depthwise: the same of depthwise convolutions.
        traffic: share of peak bandwidth.
        launch: seconds per kernel.
    """

    winograd: float
    other: float
    depthwise: float
    traffic: float
    launch: float


TX2_PACE = Pace(winograd=0.848, other=0.498, depthwise=0.00287, traffic=0.526, launch=57.8e-6)
NANO_PACE = Pace(winograd=0.848, other=0.498, depthwise=0.00287, traffic=0.526, launch=18.9e-6)


def seconds(layer: LayerShape, device: Device, pace: Pace) -> float:
    """Time of one layer at batch 1."""
    read = prod(layer.in_shape) * layer.inputs + prod(layer.out_shape) * (2 if layer.fused_add else 1)
    if layer.kind not in ("conv", "conv_transpose", "linear"):
        return 2 * read / (pace.traffic * device.bandwidth) + pace.launch
    moved = 2 * (read + _weights(layer)) / (pace.traffic * device.bandwidth)
    return max(_arithmetic(layer, device, pace), moved) + pace.launch


def _arithmetic(layer: LayerShape, device: Device, pace: Pace) -> float:
    if layer.kind == "linear":
        return 0.0  # at batch 1 the weights are read once each: memory decides
    if layer.groups > 1 and layer.groups == layer.in_shape[0]:
        return 2 * layer.macs / (pace.depthwise * device.operations)
    inputs, outputs = layer.in_shape[0] // layer.groups, layer.out_shape[0]
    waste = _rounded(inputs) / inputs * _rounded(outputs) / outputs if layer.groups == 1 else 1.0
    share = pace.winograd if set(layer.kernel) == {3} and set(layer.stride) == {1} else pace.other
    return 2 * layer.macs * waste / (share * device.operations)


def _rounded(channels: int) -> int:
    return ceil(channels / ALIGNMENT) * ALIGNMENT


def _weights(layer: LayerShape) -> int:
    if layer.kind == "linear":
        return layer.in_shape[-1] * layer.out_shape[-1]
    return prod(layer.kernel) * layer.in_shape[0] * layer.out_shape[0] // layer.groups


class Roofline(CostModel):
    """Estimates for one device."""

    grade: Grade = "estimated"

    def __init__(self, name: str, device: Device, pace: Pace) -> None:
        self.source = f"roofline of the {name} in FP16, efficiencies fitted to published latencies"
        self._device, self._pace = device, pace

    def price(self, layers: Sequence[LayerShape]) -> list[float]:
        """Milliseconds of each layer, in the order given."""
        return [1e3 * seconds(layer, self._device, self._pace) for layer in layers]
