"""The shape of one layer as a device sees it: the key under which its time is measured, cached and predicted."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class LayerShape:
    """One operator of a network at batch 1, with everything that decides how long it takes.

    Attributes:
        kind: ``conv``, ``conv_transpose``, ``linear``, or the operator's own name (``add``, ``max_pool2d``, ...).
        in_shape: shape of the first input without the batch, for example (64, 8, 8).
        out_shape: shape of the output without the batch.
        kernel, stride, padding, dilation: one entry per spatial axis; empty for operators without a window.
        groups: groups of a convolution.
        bias: whether the operator adds one.
        activation: name of the activation that runtimes merge into it (``relu``, ``relu6``, ``clip``, ...), or empty.
        fused_add: a second tensor of the output's shape is added before the activation.
        inputs: how many tensors an element-wise operator or a concatenation reads.
    """

    kind: str
    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    groups: int = 1
    bias: bool = True
    activation: str = ""
    fused_add: bool = False
    inputs: int = 1

    @property
    def macs(self) -> int:
        """Multiply-adds at batch 1 of convolutions and linear layers; 0 for everything else."""
        if self.kind == "conv":
            taps = math.prod(self.kernel) * (self.in_shape[0] // self.groups)
            return math.prod(self.out_shape) * taps
        if self.kind == "conv_transpose":
            taps = math.prod(self.kernel) * (self.out_shape[0] // self.groups)
            return math.prod(self.in_shape) * taps
        if self.kind == "linear":
            return math.prod(self.out_shape) * self.in_shape[-1]
        return 0
