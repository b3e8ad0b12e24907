"""The last decision about gates: what is closed then is cut out, and planned again if the cut network is too slow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torch import Tensor, fx

from fupruner.pruning.dynamic import DynamicPruning
from fupruner.pruning.slim import slim

TOLERANCE = 0.97
"""A slimmed network whose measured speed-up is below this share of the asked one is planned again, once."""


def freeze(
    pruning: DynamicPruning,
    example_inputs: tuple[Tensor, ...],
    measure: Callable[[fx.GraphModule], float],
    note: Callable[[str], None],
) -> fx.GraphModule:
    """Cut what is closed after the decision at the deadline; where the result is measured too slow, ask for more, once.

    Args:
        pruning: the decision at the deadline has been taken; its gates stay as the returned network was cut.
        example_inputs: tensors, batch first.
        measure: speed-up of a network over the original.
        note: told where the plan was made again.

    Raises:
        InputError: the corrected speed-up is out of reach.
    """
    slimmed = slim(pruning.network, example_inputs)
    asked, measured = pruning.schedule.speedup, measure(slimmed)
    if measured >= TOLERANCE * asked:
        return slimmed
    pruning.schedule = replace(pruning.schedule, speedup=asked * asked / measured)
    decision = pruning.decide(pruning.schedule.deadline)
    note(f"came out at {measured:.2f}x instead of {asked:.2f}x: planned again, {decision.closed} gates closed")
    return slim(pruning.network, example_inputs)
