"""Equivalence: run two networks on the same inputs and say how far apart their outputs are."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from fupruner.errors import NotEquivalentError
from fupruner.graph.double import FastDepthwise
from fupruner.graph.precision import run_double

FLOAT64_TOLERANCE = 1e-9
"""Largest relative difference in float64 of networks that compute the same function; rounding alone stays below 1e-12."""
FLOAT32_TOLERANCE = 1e-4
"""The same after weights were rounded to float32 once."""

Inputs = tuple[Tensor, ...]


def relative_error(expected: Any, actual: Any) -> float:
    """Largest absolute difference over all output tensors, relative to the largest expected value.

    Returns infinity when structures or shapes differ, or when one side has NaN where the other has none.
    """
    left, left_spec = pytree.tree_flatten(expected)
    right, right_spec = pytree.tree_flatten(actual)
    if left_spec != right_spec:
        return float("inf")
    worst = 0.0
    for a, b in zip(left, right, strict=True):
        if not isinstance(a, Tensor) or a is b:  # one and the same: what was taken out passes its input on
            continue
        finite = torch.isfinite(a)
        if a.shape != b.shape or not torch.equal(finite, torch.isfinite(b)):
            return float("inf")
        if bool(finite.any()):
            wanted, given = a[finite].double(), b[finite].double()
            scale = float(wanted.abs().max())
            worst = max(worst, float((wanted - given).abs().max()) / (scale if scale > 0 else 1.0))
    return worst


def probe_inputs(example_inputs: Inputs, runs: Callable[[Inputs], bool], *, small: int = 32) -> list[Inputs]:
    """Inputs on which equivalence is tried: other batch sizes, odd image sizes, and a cheap size for large images.

    Args:
        example_inputs: tensors, batch first.
        runs: whether the reference network accepts an input; sizes that it refuses are left out.
        small: image side from which on a smaller image stands in for the example's, to save time.

    Returns:
        Random inputs with the statistics of the example, never empty: the example's own shape is the last resort.
    """
    for candidates in probe_candidates(example_inputs, small=small):
        found = [candidate for candidate in candidates if runs(candidate)]
        if found:
            return found
    return [last_resort(example_inputs)]


def probe_candidates(example_inputs: Inputs, *, small: int = 32) -> Iterator[list[Inputs]]:
    """Random inputs of an even and an odd size and of two batch sizes, small images first.

    Some networks refuse images that are too small for their last layers: the next list is then to be tried.
    """
    sides = [d for x in example_inputs if x.dim() == 4 for d in x.shape[2:]]
    largest = max(sides, default=0)
    for side in (*(s for s in (small, 2 * small, 4 * small) if s < largest), largest):
        yield [
            tuple(random_like(x, batch=batch, delta=side - largest + odd, seed=batch) for x in example_inputs)
            for batch, odd in ((1, 0), (2, 1))  # one of the batch sizes is not the example's
        ]


def last_resort(example_inputs: Inputs) -> Inputs:
    """A random input of the example's own shape."""
    return tuple(random_like(x, batch=x.shape[0] if x.dim() else 0, delta=0, seed=1) for x in example_inputs)


def random_like(example: Tensor, *, batch: int, delta: int = 0, seed: int = 0) -> Tensor:
    """Random tensor with the mean and spread of an example, another batch size, and images larger by ``delta`` on each side."""
    if not example.is_floating_point() or example.dim() < 2:
        return example
    shape = [batch, *example.shape[1:]]
    if example.dim() == 4:
        shape[2:] = [max(1, d + delta) for d in shape[2:]]
    generator = torch.Generator().manual_seed(seed)
    spread = float(example.std()) if example.numel() > 1 else 0.0
    return torch.randn(shape, generator=generator, dtype=example.dtype) * (spread or 1.0) + float(example.mean())


@torch.no_grad()
def accepts(module: nn.Module, inputs: Inputs) -> bool:
    """Whether a network runs on an input and gives finite numbers."""
    try:
        return is_finite(module(*inputs))
    except (RuntimeError, ValueError, AssertionError, IndexError):
        return False


def has_nan(output: Any) -> bool:
    """Whether a tensor of an output holds NaN; infinite bounds may be meant."""
    return any(bool(torch.isnan(t).any()) for t in pytree.tree_leaves(output) if isinstance(t, Tensor))


def is_finite(output: Any) -> bool:
    """Whether all tensors of an output hold finite numbers alone."""
    return all(bool(torch.isfinite(t).all()) for t in pytree.tree_leaves(output) if isinstance(t, Tensor))


@torch.no_grad()
def largest_error(reference: nn.Module, module: nn.Module, inputs: Sequence[Inputs], dtype: torch.dtype) -> float:
    """Largest relative error over several inputs, both networks run in ``dtype`` and in eval mode, one after the other.

    Graphs are converted to float64 layer by layer as they run, so that large ones need no second copy of their weights.
    """
    expected, actual = (outputs(m, inputs, dtype) for m in (reference, module))
    return max((relative_error(a, b) for a, b in zip(expected, actual, strict=True)), default=0.0)


def _is_in_eval_mode(graph_module: fx.GraphModule) -> bool:
    """Whether everything that the graph calls is; modules that only hold others do not count."""
    called = [graph_module.get_submodule(str(n.target)) for n in graph_module.graph.nodes if n.op == "call_module"]
    return not any(part.training for module in called for part in module.modules())


@torch.no_grad()
def outputs(module: nn.Module, inputs: Sequence[Inputs], dtype: torch.dtype) -> list[Any]:
    """What a network gives for several inputs in a precision, in eval mode; the network is left as it is.

    Raises:
        RuntimeError: it does not run in that precision, or not on an input.
    """
    inputs = [tuple(t.to(dtype) if t.is_floating_point() else t for t in x) for x in inputs]
    if dtype == torch.float64 and isinstance(module, fx.GraphModule) and _is_in_eval_mode(module):
        found = run_double(module, inputs)
        for output in found:
            if isinstance(output, Exception):
                raise output
        return found
    copied = copy.deepcopy(module).to(dtype).eval()
    with FastDepthwise():
        return [copied(*x) for x in inputs]


@torch.no_grad()
def rounding_noise(module: nn.Module, inputs: Inputs, expected: Any) -> float:
    """How far outputs move when every weight moves by a few units in its last place: what no rewriting can stay below.

    Close to ``1e-15`` for a trained network in float64; networks with random weights may amplify it a billion times.
    """
    moved = copy.deepcopy(module)
    generator = torch.Generator().manual_seed(0)
    for parameter in moved.parameters():
        if parameter.is_floating_point():
            size = 4 * torch.finfo(parameter.dtype).eps
            parameter.mul_(1 + size * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
    return relative_error(expected, moved(*inputs))


def require_equal(reference: nn.Module, module: nn.Module, inputs: Sequence[Inputs], what: str) -> float:
    """Largest relative error in float64.

    Raises:
        NotEquivalentError: it exceeds ``FLOAT64_TOLERANCE``.
    """
    error = largest_error(reference, module, inputs, torch.float64)
    if not error <= FLOAT64_TOLERANCE:
        raise NotEquivalentError(f"{what} changed the network: outputs differ by {error:.3g} (relative, float64).")
    return error
