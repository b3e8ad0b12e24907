"""What the public functions return: networks with the records that say how they came about."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from fupruner.pruning.dynamic import Decision
from fupruner.records import Figures, FusionLog, GroupRecord, Plan


@dataclass(frozen=True)
class FuseResult:
    """An equivalent network with fewer operators.

    Attributes:
        module: the fused network in eval mode.
        log: what was done and refused.
        max_error: largest relative error of its outputs in float64.
    """

    module: nn.Module
    log: FusionLog
    max_error: float


@dataclass(frozen=True)
class PruneResult:
    """A smaller network.

    Attributes:
        module: the pruned network in eval mode.
        plan: the moves that made it.
        groups: the groups of channels that it was made from.
    """

    module: nn.Module
    plan: Plan
    groups: tuple[GroupRecord, ...]


@dataclass(frozen=True)
class LoopEpoch:
    """One epoch of a loop that somebody else owns.

    Attributes:
        epoch: counted from 1.
        step: steps until its end.
        metric: what the loop reported, or None.
        predicted_speedup: of the gates as they are now.
        closed: gates closed at its end.
        reopened: gates that came back during it.
    """

    epoch: int
    step: int
    metric: float | None
    predicted_speedup: float
    closed: int
    reopened: int


@dataclass(frozen=True)
class LoopResult:
    """A network that was pruned inside somebody else's loop.

    Attributes:
        module: the pruned and fused network, on the CPU in eval mode.
        plan: the moves that made it.
        groups: the groups of channels that it was made from.
        speedup: measured in turns with the original, in the target's runtime.
        decisions: every decision about the gates, in order.
        epochs: what ``on_epoch`` recorded.
    """

    module: nn.Module
    plan: Plan
    groups: tuple[GroupRecord, ...]
    speedup: float
    decisions: tuple[Decision, ...]
    epochs: tuple[LoopEpoch, ...]


@dataclass(frozen=True)
class RunResult:
    """The outcome of a run.

    Attributes:
        module: the optimised network in eval mode.
        plan: the moves that made it; None where the original was kept.
        baseline, final: figures of the original and of the result, both as shipped.
        speedup: measured in interleaved runs.
        satisfied: whether the requirement is met.
        out: the run folder.
    """

    module: nn.Module
    plan: Plan | None
    baseline: Figures
    final: Figures
    speedup: float
    satisfied: bool
    out: Path
