"""What can be pruned, and what a plan closes."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fupruner.records.base import Record
from fupruner.records.graphs import FusionLog
from fupruner.records.latency import Grade
from fupruner.tabular import Tabular


class GroupRecord(Record):
    """Channels that live and die together.

    Attributes:
        name: the first layer that produces the channels.
        channels: how many prunable units the group has (each unit is one channel in every member).
        producers: layers whose output filters belong to the group.
        consumers: layers whose input channels belong to the group.
        frozen: why the group cannot be pruned, or an empty string.
    """

    name: str
    channels: int
    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    frozen: str = ""


MoveKind = Literal["channels", "branch", "shortcut", "activation"]


class Move(Record):
    """One step of a plan: gates that close together.

    Attributes:
        kind: ``channels`` of a group, a whole ``branch`` of a residual block, channels of a ``shortcut``, an ``activation``.
        where: the group, block, shortcut or activation.
        closed: indices of the gates that this move closes.
        loss: predicted increase of the loss, in nats per sample (or the criterion's own unit, see ``Plan.importance``).
        saved_ms: predicted time saved on the target, in milliseconds.
    """

    kind: MoveKind
    where: str
    closed: tuple[int, ...]
    loss: float
    saved_ms: float


class Plan(Record):
    """Which gates close, in the order in which they were chosen, and what that is predicted to do.

    Attributes:
        widths_before: output channels per layer.
        widths_after: the same after slimming; 0 where a layer disappears.
        carried_before: channels that the shortcut of each block carries, where plans may close some: as many identity filters does
            the block get when fusion takes its Add away.
        carried_after: the same for the channels that are left.
    """

    target: str
    importance: str
    budget: str
    moves: tuple[Move, ...]
    baseline_ms: float
    predicted_ms: float
    grade: Grade
    widths_before: dict[str, int]
    widths_after: dict[str, int]
    carried_before: dict[str, int] = Field(default_factory=dict)
    carried_after: dict[str, int] = Field(default_factory=dict)


class Preview(Record):
    """What ``optimize`` would do, before anything is trained.

    Attributes:
        asked_speedup: the asked one, or the first that would be tried.
        attempts: speed-ups that would be tried at most.
        epochs: epochs of training per attempt.
        steps: training steps per attempt.
        plan: for the asked speed-up on the network as it is; during training it is decided anew.
    """

    target: str
    asked_speedup: float
    attempts: int
    epochs: int
    steps: int
    fusion: FusionLog
    plan: Plan

    def table(self) -> Tabular:
        """What would be done, in figures."""
        plan, fusion = self.plan, self.fusion
        rows = (
            ("speed-up asked for", f"{self.asked_speedup:.2f}x"),
            ("time predicted", f"{plan.baseline_ms:.4g} -> {plan.predicted_ms:.4g} ms ({plan.grade})"),
            ("moves", str(len(plan.moves))),
            ("rewrites of fusion", f"{len(fusion.fired)} fired, {len(fusion.refused)} refused"),
            ("training", f"up to {self.attempts} x {self.epochs} epochs, {self.steps} steps each time"),
        )
        return Tabular(f"Preview for {self.target}: nothing was trained or written", ("", "value"), rows)

    def __repr__(self) -> str:
        return self.table().text()

    def _repr_html_(self) -> str:
        return self.table().html()
