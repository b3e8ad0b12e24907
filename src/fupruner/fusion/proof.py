"""Proof of a fused network as a whole: in float64 against the original, and once more after its weights were rounded.

Every rewrite was proved where it was made (``engine``); this finds what only shows when they come together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx

from fupruner.errors import InputError, NotEquivalentError
from fupruner.graph import check, edit
from fupruner.graph.precision import in_double, run_double

HEAVY = 300_000_000
"""Weights from which on a network as a whole is compared on one random input, of odd size, instead of two: each takes seconds."""

_NOISE = 20.0
"""Error of a fused network relative to that of one whose weights were moved by a few units in their last place."""


def prove(
    given: fx.GraphModule,
    work: fx.GraphModule,
    example_inputs: tuple[Tensor, ...],
    calibration: Sequence[check.Inputs] = (),
) -> tuple[list[check.Inputs], list[Any], float]:
    """Inputs on which the whole network was compared in float64, what it gives for them, and the largest error.

    Raises:
        NotEquivalentError: that error is too large.
    """
    probes, expected = _accepted(given, example_inputs)
    if calibration:
        probes, expected = [*probes, *calibration], [*expected, *_outputs(given, calibration)]
    actual = run_double(work, probes)
    return probes, expected, max(_error(given, *each) for each in zip(probes, expected, actual, strict=True))


def _accepted(given: fx.GraphModule, example_inputs: tuple[Tensor, ...]) -> tuple[list[check.Inputs], list[Any]]:
    """Random inputs that the network takes, and what it gives for them."""
    heavy = sum(parameter.numel() for parameter in given.parameters()) > HEAVY
    for candidates in check.probe_candidates(example_inputs):
        tried = candidates[-1:] if heavy else candidates
        pairs = list(zip(tried, run_double(given, tried), strict=True))
        taken = [(x, y) for x, y in pairs if not isinstance(y, Exception) and check.is_finite(y)]
        if taken:
            return [x for x, _ in taken], [y for _, y in taken]
    probe = check.last_resort(example_inputs)
    return [probe], _outputs(given, [probe])


def _outputs(given: fx.GraphModule, inputs: Sequence[check.Inputs]) -> list[Any]:
    """Outputs in float64 for inputs that the network has to take.

    Raises:
        InputError: it does not run, or gives no numbers.
    """
    outputs = run_double(given, inputs)
    for x, output in zip(inputs, outputs, strict=True):
        shape = "x".join(map(str, x[0].shape))
        if isinstance(output, Exception):
            raise InputError(
                f"The network does not run in float64, in which rewrites are proved, on an input {shape}: {_first_line(output)}",
                hint="Fuse the part of the network without the operator that refuses it.",
            )
        if check.has_nan(output):
            raise InputError(
                f"The network gives NaN for an input {shape}: nothing can be proved about it.",
                hint="Look for a negative variance, a division by zero or an overflow in its weights.",
            )
    return outputs


def _first_line(failure: Exception) -> str:
    return (str(failure).splitlines() or [type(failure).__name__])[0]


def _error(given: fx.GraphModule, probe: check.Inputs, expected: Any, actual: Any) -> float:
    """Error on one input.

    A network that amplifies rounding itself (random weights often do) cannot be held to the tolerance: there the error has to stay
    within a few times what rounding its weights does. Every single rewrite was held to the tolerance in any case.

    Raises:
        NotEquivalentError: the error is too large.
    """
    if isinstance(actual, Exception):
        raise NotEquivalentError(f"Fusion changed the network: it does not run any more ({_first_line(actual)}).")
    error = check.relative_error(expected, actual)
    if error <= check.FLOAT64_TOLERANCE:
        return error
    if error <= _NOISE * check.rounding_noise(edit.clone(given, torch.float64), in_double(probe), expected):
        return error
    raise NotEquivalentError(f"Fusion changed the network: outputs differ by {error:.3g} (relative, float64).")


@torch.no_grad()
def rounding_error(given: fx.GraphModule, fused: fx.GraphModule, probe: check.Inputs, exact: Any) -> float:
    """Error of the fused network in its own precision, against the original in float64.

    Where that is large, the original in float32 may be as far from it: the two are compared then.

    Raises:
        NotEquivalentError: in float32 it is more than rounding explains.
    """
    actual = fused.eval()(*probe)
    error = check.relative_error(exact, actual)
    single = all(t.dtype == torch.float32 for t in fused.parameters() if t.is_floating_point())
    if not single or error <= check.FLOAT32_TOLERANCE:
        return error
    expected = given(*probe)
    error = check.relative_error(expected, actual)
    if error <= max(check.FLOAT32_TOLERANCE, _NOISE * check.rounding_noise(given, probe, expected)):
        return error
    raise NotEquivalentError(
        f"Rounding the fused weights changed the network: outputs differ by {error:.3g} (float32)."
    )
