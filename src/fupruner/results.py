"""What the public functions return: networks with the records that say how they came about."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from fupruner.pruning.dynamic import Decision
from fupruner.records import Figures, FusionLog, Grade, GroupRecord, Plan
from fupruner.report import words
from fupruner.tabular import ShownAsTable, Tabular


@dataclass(frozen=True, repr=False)
class FuseResult(ShownAsTable):
    """An equivalent network with fewer operators.

    Attributes:
        module: the fused network in eval mode.
        log: what was done and refused.
        max_error: largest relative error of its outputs in float64.
    """

    module: nn.Module
    log: FusionLog
    max_error: float

    def table(self) -> Tabular:
        """Operators by type before and after."""
        title = (
            f"Fused ({self.log.level}): {words.plural(len(self.log.fired), 'rewrite')} fired, {len(self.log.refused)} refused, "
            f"largest error {self.max_error:.1e}"
        )
        return Tabular(title, ("operator", "before", "after", "change"), words.operators(self.log))


@dataclass(frozen=True, repr=False)
class PruneResult(ShownAsTable):
    """A smaller network.

    Attributes:
        module: the pruned network in eval mode.
        plan: the moves that made it.
        groups: the groups of channels that it was made from.
        speedup: over the original, timed in turn with it on the target.
        grade: of that speed-up: ``measured``, or ``estimated`` where the target is not here.
    """

    module: nn.Module
    plan: Plan
    groups: tuple[GroupRecord, ...]
    speedup: float
    grade: Grade

    def table(self) -> Tabular:
        """Widths that change, under the speed-up and the predicted times."""
        return _widths(f"Pruned, {self.speedup:.2f}x as fast ({self.grade})", self.plan)


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


@dataclass(frozen=True, repr=False)
class LoopResult(ShownAsTable):
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

    def table(self) -> Tabular:
        """Widths that change, under the predicted times and the measured speed-up."""
        return _widths(f"Pruned to {self.speedup:.2f}x (measured)", self.plan)


@dataclass(frozen=True, repr=False)
class RunResult(ShownAsTable):
    """The outcome of a run.

    Attributes:
        module: the optimised network in eval mode.
        plan: the moves that made it; None where the original was kept.
        baseline, final: figures of the original and of the result, both as shipped.
        speedup: measured in interleaved runs.
        satisfied: whether the requirement is met.
        out: the run folder.
        drop_error: standard error, in points, of what was lost; None where the task cannot tell it, or the original was kept.
    """

    module: nn.Module
    plan: Plan | None
    baseline: Figures
    final: Figures
    speedup: float
    satisfied: bool
    out: Path
    drop_error: float | None = None

    def table(self) -> Tabular:
        """Figures before and after, under the verdict."""
        old, new = self.baseline, self.final
        met = "requirement met" if self.satisfied else "requirement NOT met"
        rows = (
            ("accuracy or metric", f"{old.accuracy:.2f}", f"{new.accuracy:.2f}", f"{new.accuracy - old.accuracy:+.2f}"),
            ("latency", words.latency(old), words.latency(new), words.change(old.latency_ms, new.latency_ms)),
            ("multiply-adds", words.count(old.macs), words.count(new.macs), words.change(old.macs, new.macs)),
            ("parameters", words.count(old.params), words.count(new.params), words.change(old.params, new.params)),
        )
        return Tabular(f"{self.speedup:.2f}x, {met}; run folder {self.out}", ("", "before", "after", "change"), rows)


def _widths(done: str, plan: Plan) -> Tabular:
    before, after = words.milliseconds(plan.baseline_ms), words.milliseconds(plan.predicted_ms)
    title = f"{done} for {plan.target}: {before} -> {after} predicted ({plan.grade})"
    changed = [(name, old, plan.widths_after.get(name, 0)) for name, old in plan.widths_before.items()]
    rows = [(name, str(old), str(new) if new else "removed") for name, old, new in changed if old != new]
    return Tabular(title, ("layer", "before", "after"), rows)
