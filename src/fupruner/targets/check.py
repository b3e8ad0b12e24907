"""Checks exported files: what a runtime makes of the file, beside what the module gives."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from fupruner.errors import TargetError
from fupruner.targets.base import Images
from fupruner.targets.onnx_file import float_inputs, inference_copy, third_party_quiet
from fupruner.targets.runtime import Array
from fupruner.training.outputs import Outputs, as_tuple, lay_flat

INT8_ERROR = 0.25
"""Largest relative difference of outputs that int8 explains."""
CALIBRATION_IMAGES = 128
"""Images over which the ranges of activations are taken."""

Run = Callable[[list[Array]], list[Array]]
"""Runs a file once: one array per input, batch first, to one array per output."""


def worst_error(
    module: nn.Module, run: Run, batches: Iterable[tuple[Tensor, ...]], path: Path, *, allowed: float, hint: str = ""
) -> float:
    """Largest difference between module and file over batches, relative to the largest output.

    Args:
        module: the network; it is left as it is.
        run: runs the file.
        batches: inputs of the network.
        path: the file, for messages.
        allowed: the largest error that the file's precision explains.
        hint: what the user can do about a larger one.

    Raises:
        TargetError: the error is larger than allowed, or an output is not a number.
    """
    network, worst = inference_copy(module), 0.0
    for inputs in batches:
        error = relative_error(module_outputs(network, inputs), run(arrays(inputs)))
        if not error <= allowed:
            shapes = ", ".join("x".join(map(str, x.shape)) for x in inputs)
            raise TargetError(
                f"{path} computes something else than the module: relative error {error:.3g} on {shapes}, allowed {allowed:g}.",
                hint=hint,
            )
        worst = max(worst, error)
    return worst


def module_outputs(network: nn.Module, inputs: tuple[Tensor, ...]) -> list[Array]:
    """All outputs of a module."""
    with torch.no_grad(), third_party_quiet():
        outputs = lay_flat(network(*inputs))
    return arrays(as_tuple(outputs))


def relative_error(expected: list[Array], found: list[Array]) -> float:
    """Largest over the outputs of max |expected - found| / max |expected|; infinite where shapes differ."""
    if [x.shape for x in expected] != [x.shape for x in found]:
        return float("inf")
    return max(
        float(np.abs(a - b).max(initial=0) / max(np.abs(a).max(initial=0), 1e-12))
        for a, b in zip(expected, found, strict=True)
    )


def random_like(example_inputs: tuple[Tensor, ...], seed: int) -> tuple[Tensor, ...]:
    """Fixed noise in place of floating-point inputs; whole numbers stay, because they may be indices."""
    generator = torch.Generator().manual_seed(seed)
    inputs = float_inputs(example_inputs)
    return tuple(torch.randn(x.shape, generator=generator) if x.is_floating_point() else x for x in inputs)


def batch_of(inputs: tuple[Tensor, ...], size: int) -> tuple[Tensor, ...]:
    """The inputs at another batch size, samples repeated in turn."""
    return tuple(x[torch.arange(size) % len(x)] for x in inputs)


def arrays(tensors: tuple[Tensor, ...]) -> list[Array]:
    """Tensors as arrays on the CPU, floating-point ones as float32."""
    return [x.detach().cpu().contiguous().numpy() for x in float_inputs(tensors)]


def calibration_of(images: Images | None, example_inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """What int8 is calibrated on: the user's images, else the example inputs; at most 128 of them, in float32 on the CPU."""
    found = (images(),) if images is not None else example_inputs
    return tuple(x[:CALIBRATION_IMAGES].contiguous() for x in float_inputs(found))


def in_chunks(run: Callable[[Array], list[Array]], inputs: Tensor, size: int, *, fixed: bool) -> Outputs:
    """Run inputs (N, ...) in batches of ``size`` and join each output; a ``fixed`` size is reached by zeros at the end."""
    (array,) = arrays((inputs,))
    chunks: list[list[Array]] = []
    for start in range(0, max(len(array), 1), size):
        chunk = array[start : start + size]
        chunks.append([output[: len(chunk)] for output in run(_padded(chunk, size) if fixed else chunk)])
    outputs = tuple(torch.from_numpy(np.concatenate(parts)) for parts in zip(*chunks, strict=True))
    return outputs if len(outputs) > 1 else outputs[0]


def _padded(chunk: Array, size: int) -> Array:
    if len(chunk) == size:
        return chunk
    return np.concatenate([chunk, np.zeros((size - len(chunk), *chunk.shape[1:]), chunk.dtype)])
