"""The last decision about gates: what is closed then is cut out, measured, and planned again where that is not what was asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, fx

from fupruner.errors import InputError
from fupruner.pruning.dynamic import DynamicPruning
from fupruner.pruning.plan import GatePlan
from fupruner.pruning.slim import slim
from fupruner.pruning.verify import LEAST

TOLERANCE = 0.97
"""A slimmed network whose measured speed-up is below this share of the asked one is planned again."""
WASTE = 1.04
"""So is one above this share: it closes more than it has to."""
CORRECTIONS = 3
"""How often; each takes a plan and a comparison."""


@dataclass(frozen=True)
class Cut:
    """What is left of a network, with the plan that it was cut by.

    Attributes:
        speedup: measured over the original.
    """

    module: fx.GraphModule
    plan: GatePlan
    speedup: float


def freeze(
    pruning: DynamicPruning,
    example_inputs: tuple[Tensor, ...],
    measure: Callable[[fx.GraphModule, float], float],
    note: Callable[[str], None],
) -> Cut:
    """Cut what is closed after the decision at the deadline; where the result is not as fast as asked, or much faster, plan again.

    Of the plans that are fast enough the slowest one is taken, since it closes least; where there is none, the fastest.

    Args:
        pruning: the decision at the deadline has been taken; its gates stay as the returned network was cut.
        example_inputs: tensors, batch first.
        measure: speed-up of a network over the original; what measures as much as its second argument, which is enough, is measured
            once more, see ``verify.measured_speedup``.
        note: told where the plan was made again.
    """
    asked = aim = pruning.schedule.speedup
    tried = [_cut(pruning, example_inputs, measure, TOLERANCE * asked)]
    for _ in range(CORRECTIONS):
        measured = tried[-1].speedup
        if TOLERANCE * asked <= measured <= WASTE * asked:
            break
        aim = max(LEAST, aim * asked / measured)
        try:
            decision = pruning.decide_again(aim)
        except InputError as error:
            note(f"came out at {measured:.2f}x instead of {asked:.2f}x; {str(error).splitlines()[0]}")
            break
        known = next((cut for cut in tried if cut.plan.key == _plan(pruning).key), None)
        if known is None:
            note(f"came out at {measured:.2f}x instead of {asked:.2f}x: planned again, {decision.closed} gates closed")
        tried.append(known or _cut(pruning, example_inputs, measure, TOLERANCE * asked))
    enough = [cut for cut in tried if cut.speedup >= TOLERANCE * asked]
    best = min(enough, key=_speedup) if enough else max(tried, key=_speedup)
    pruning.adopt(best.plan)
    return best


def _cut(
    pruning: DynamicPruning,
    inputs: tuple[Tensor, ...],
    measure: Callable[[fx.GraphModule, float], float],
    enough: float,
) -> Cut:
    module = slim(pruning.network, inputs)
    return Cut(module, _plan(pruning), measure(module, enough))


def _plan(pruning: DynamicPruning) -> GatePlan:
    assert pruning.plan is not None  # noqa: S101 - the deadline has passed
    return pruning.plan


def _speedup(cut: Cut) -> float:
    return cut.speedup
