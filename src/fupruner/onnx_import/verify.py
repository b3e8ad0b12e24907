"""Runs the file in ONNX Runtime and the imported network in PyTorch, on the same inputs, and compares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import helper
from torch import nn

from fupruner.errors import FuPrunerError, InputError
from fupruner.graph.check import FLOAT32_TOLERANCE, relative_error
from fupruner.onnx_import.graph import Input
from fupruner.targets.runtime import name_feeds, open_session, run_session

_SIDES = (64, 224, 96, 299, 32)
"""Sizes that are tried for open axes: most networks for images take one of these."""

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Sample:
    """Inputs that the file accepts and what ONNX Runtime computes from them."""

    inputs: tuple[Array, ...]
    outputs: tuple[Array, ...]

    @property
    def batch(self) -> int:
        """Size of the first axis of the first input."""
        return int(self.inputs[0].shape[0]) if self.inputs[0].ndim else 1


class Reference:
    """The file in ONNX Runtime.

    Args:
        model: the file's model in float32.
        inputs: what it takes.

    Raises:
        InputError: the runtime refuses the model.
    """

    def __init__(self, model: onnx.ModelProto, inputs: Sequence[Input]) -> None:
        self.inputs = inputs
        try:
            self.session = open_session(model.SerializeToString())
        except FuPrunerError as error:
            raise InputError(str(error)) from None

    def sample(self, batches: Sequence[int]) -> Sample | None:
        """Run on random inputs with the first batch size, and sizes for open axes, that the file accepts."""
        opened = any(size is None for entry in self.inputs for size in (entry.shape or ())[1:])
        for side in _SIDES if opened else (0,):
            for batch in batches:
                inputs = tuple(_random(entry, batch, side, seed) for seed, entry in enumerate(self.inputs))
                outputs = self._try(inputs)
                if outputs is not None:
                    return Sample(inputs, outputs)
        return None

    def twice(self, sample: Sample) -> Sample | None:
        """A sample of double batch, put together from two runs; None where outputs are not per image."""
        other = tuple(_random_like(x, seed) for seed, x in enumerate(sample.inputs, 100))
        outputs = self._try(other)
        batch = sample.batch
        if outputs is None or any(y.ndim == 0 or y.shape[0] != batch for y in (*outputs, *sample.outputs)):
            return None
        inputs = tuple(np.concatenate(pair) for pair in zip(sample.inputs, other, strict=True))
        return Sample(inputs, tuple(np.concatenate(pair) for pair in zip(sample.outputs, outputs, strict=True)))

    def _try(self, inputs: tuple[Array, ...]) -> tuple[Array, ...] | None:
        try:
            return tuple(run_session(self.session, name_feeds(self.session, list(inputs))))
        except FuPrunerError:
            return None


def _random(entry: Input, batch: int, side: int, seed: int) -> Array:
    shape = entry.shape or ()
    first = shape[0] if shape and shape[0] is not None else batch
    rest = [size or (3 if axis == 1 else side) for axis, size in enumerate(shape[1:], 1)]
    kind = helper.tensor_dtype_to_np_dtype(entry.kind)
    return _filled(([first] if shape else []) + rest, kind, seed)


def _random_like(x: Array, seed: int) -> Array:
    return _filled(list(x.shape), x.dtype, seed)


def _filled(shape: list[int], kind: np.dtype[Any], seed: int) -> Array:
    generator = np.random.default_rng(seed)
    if np.issubdtype(kind, np.floating):
        return generator.standard_normal(shape).astype(kind)
    return generator.integers(0, 2, shape).astype(kind)


@torch.no_grad()
def error_on(network: nn.Module, sample: Sample) -> float:
    """Largest relative error of the network's outputs on a sample.

    Raises:
        Exception: whatever the network raises on these inputs.
    """
    made = network(*(torch.from_numpy(x.copy()) for x in sample.inputs))
    outputs = made if isinstance(made, tuple) else (made,)
    tensors = [y if isinstance(y, torch.Tensor) else torch.from_numpy(np.asarray(y)) for y in outputs]
    return relative_error([torch.from_numpy(y.copy()) for y in sample.outputs], tensors)


def agrees(network: nn.Module, sample: Sample | None) -> bool:
    """Whether the network runs on a sample and computes the same."""
    if sample is None:
        return False
    try:
        return error_on(network, sample) <= FLOAT32_TOLERANCE
    except Exception:  # a shape that does not fit can fail in any operator
        return False
