"""Plans that keep their word: the slimmed network is exported and timed beside the baseline, and planned again if it is off."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, fx, nn

from fupruner.errors import InputError
from fupruner.pruning.gates import GatedNetwork
from fupruner.pruning.importance import Importance
from fupruner.pruning.plan import GatePlan, Planner
from fupruner.pruning.slim import slim
from fupruner.targets.base import Target

TOLERANCE = 0.05
"""A measured speed-up may lie this share below the asked one."""
AIM = 0.01
"""Plans are corrected until the speed-up lies at most this share below the asked one: measured again, it may come out lower."""
WASTE = 0.15
"""A measured speed-up that lies this share above the asked one is worth another plan, which closes less."""
ROUNDS = 5
LEAST = 1.001
"""The smallest speed-up that a plan can be made for: more than what there is."""


@dataclass(frozen=True)
class Round:
    """One plan that was tried: what was asked of it, what it predicted, what was measured."""

    asked: float
    predicted: float
    measured: float


@dataclass(frozen=True)
class VerifiedPlan:
    """A plan whose speed-up was measured.

    Attributes:
        module: the slimmed network, finished as it ships.
        speedup: measured beside the baseline.
        rounds: all plans that were tried, in order.
    """

    plan: GatePlan
    module: nn.Module
    speedup: float
    rounds: tuple[Round, ...]


def measured_speedup(
    target: Target, baseline: Path, module: nn.Module, example_inputs: tuple[Tensor, ...], *, threads: int = 1,
    confirm_from: float = math.inf,
) -> float:  # fmt: skip
    """Speed-up of a network over a shipped baseline, timed in turn. Below 1 the network must not be handed out.

    Args:
        target: exports and times.
        baseline: the original as shipped.
        module: the network.
        example_inputs: tensors, batch first.
        threads: for timing.
        confirm_from: a speed-up of this much and more is measured once again and the mean counts, for what is chosen because it
            measured well is likely to have measured too well.

    Raises:
        TargetError: the network cannot be exported, or a file cannot be run.
    """
    with tempfile.TemporaryDirectory(prefix="fupruner-") as folder:
        file = Path(folder) / f"candidate{target.suffix}"
        target.export(module, example_inputs, file)
        first = target.compare([baseline, file], example_inputs, threads=threads).speedups[1]
        if first < confirm_from:
            return first
        return (first + target.compare([baseline, file], example_inputs, threads=threads).speedups[1]) / 2


def shipping_speedup(
    target: Target, graph: fx.GraphModule, example_inputs: tuple[Tensor, ...], *, threads: int = 1
) -> float:
    """What shipping alone gains: measured speed-up of an unpruned network in its target's number format over the original's.

    Cost models of two formats are off in different ways: on a CPU with VNNI the quotient of both tables was a fifth below what the
    files of ResNet-20 and -56 measure. So plans for int8 are made with what was measured.

    Args:
        target: exports and times.
        graph: the original.
        example_inputs: tensors, batch first.
        threads: for timing.

    Returns:
        1, with nothing measured, where the original ships in the same format.
    """
    if target.reference is None:
        return 1.0
    with tempfile.TemporaryDirectory(prefix="fupruner-") as folder:
        original = Path(folder) / f"original{target.suffix}"
        target.reference.export(graph, example_inputs, original)
        return measured_speedup(target, original, graph, example_inputs, threads=threads)


def verified_plan(
    planner: Planner, importance: Importance, speedup: float, target: Target, baseline: Path, example_inputs: tuple[Tensor, ...], *,
    finish: Callable[[GatedNetwork, fx.GraphModule], nn.Module] = lambda _, slimmed: slimmed, threads: int = 1,
) -> VerifiedPlan:  # fmt: skip
    """The plan of least predicted loss whose measured speed-up is the asked one, to within 5% or above.

    Each round asks the planner for as much more or less as the last measurement was off, until it is within 1% or above. The
    gates of the planner's network are left as the returned plan sets them.

    Args:
        planner: for the network and target.
        importance: what closing costs.
        speedup: wanted, measured.
        target: exports and times.
        baseline: the original as shipped, to be timed against.
        example_inputs: tensors, batch first.
        finish: what happens to a slimmed network before it ships (fusion, compensation); it must not change its inputs.
        threads: for timing.

    Raises:
        InputError: the speed-up is out of reach; the message names the largest one that was measured.
    """
    network, asked, tried = planner.network, speedup, list[VerifiedPlan]()
    rounds: list[Round] = []
    for _ in range(ROUNDS):
        plan = _plan(planner, importance, asked)
        predicted = plan.record.baseline_ms / plan.record.predicted_ms
        network.set(plan.is_open, plan.closed_branches)
        module = finish(network, slim(network, example_inputs))
        measured = measured_speedup(
            target, baseline, module, example_inputs, threads=threads, confirm_from=(1 - AIM) * speedup
        )
        rounds.append(Round(asked, predicted, measured))
        tried.append(VerifiedPlan(plan, module, measured, ()))
        enough, wasteful = measured >= (1 - AIM) * speedup, measured > (1 + WASTE) * speedup
        if (enough and not wasteful) or (not enough and predicted < asked * (1 - 1e-6)):
            break
        asked = max(1.0, predicted if enough else asked) * speedup / measured * (1.0 if enough else 1.01)
        if any(abs(asked - r.asked) < 0.01 * asked for r in rounds):
            break
    return _choose(network, tried, tuple(rounds), speedup, planner.target)


def _plan(planner: Planner, importance: Importance, asked: float) -> GatePlan:
    """The plan for a speed-up, or the fastest there is."""
    try:
        return planner.for_speedup(importance, max(asked, LEAST))
    except InputError:
        return planner.fastest(importance)


def _choose(
    network: GatedNetwork, tried: list[VerifiedPlan], rounds: tuple[Round, ...], speedup: float, target: str
) -> VerifiedPlan:
    """Of the plans that are as fast as aimed at the slowest one; where there is none, the fastest that is fast enough."""
    aimed = [v for v in tried if v.speedup >= (1 - AIM) * speedup]
    best = min(aimed, key=lambda v: v.speedup) if aimed else max(tried, key=lambda v: v.speedup)
    if best.speedup < (1 - TOLERANCE) * speedup:
        raise InputError(
            f"A speed-up of {speedup:.2f}x is out of reach on {target}: {best.speedup:.2f}x is the largest that was measured.",
            hint=f"Ask for at most {math.floor(best.speedup * 100) / 100:.2f}.",
        )
    network.set(best.plan.is_open, best.plan.closed_branches)
    return VerifiedPlan(best.plan, best.module, best.speedup, rounds)
