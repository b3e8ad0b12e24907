"""Pruning in one shot: trace, fuse, score, plan, cut, measure; nothing is trained."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, fx, nn

from fupruner.attempt import calibration_inputs
from fupruner.errors import InputError
from fupruner.fusion.fuse import fuse_graph
from fupruner.graph.trace import Example, example_tuple, trace
from fupruner.models.resolve import Model, as_module
from fupruner.options import ONE_SHOT_PLANS, Options, parse_options
from fupruner.pruning.budget import Budget
from fupruner.pruning.compensate import compensate, require_fit
from fupruner.pruning.factors import scaled
from fupruner.pruning.gates import GatedNetwork, require_prunable
from fupruner.pruning.importance import NEEDS_DATA, Importance, criterion
from fupruner.pruning.plan import Planner, require_share
from fupruner.pruning.prepare import fuse_as_planned, make_planner, room_on_chip
from fupruner.pruning.slim import slim
from fupruner.pruning.trade import best_factors, compensated_loss
from fupruner.pruning.verify import measured_speedup, shipping_speedup, verified_plan
from fupruner.records import Plan
from fupruner.results import PruneResult
from fupruner.targets.base import Target
from fupruner.targets.registry import get_target
from fupruner.training.task import Task, calibration_images

SLOWER = 0.05
"""A measured slow-down up to this share may be noise of the timing."""


def prune(
    model: Model,
    example_inputs: Example,
    *,
    ratio: float | None = None,
    speedup: float | None = None,
    target: str = "cpu",
    importance: str | None = None,
    data: Task | None = None,
    fusion: str = "none",
    ship: str = "auto",
    device: str | None = None,
    fit_on_chip: bool = False,
    plans: int = ONE_SHOT_PLANS,
) -> PruneResult:
    """Prune once, without training. With data, what is left takes over what was cut, by least squares.

    Args:
        model: a module, which is left untouched, or the path or name of a network.
        example_inputs: a tensor or tuple of tensors, batch first.
        ratio: share of channels to remove from every group, between 0 and 1; or
        speedup: wanted on the target, more than 1; the result is timed there and planned again until it is within 5% or above; or
        fit_on_chip: that the parameters fit on the target's chip.
        target: for alignment and cost.
        importance: a name of ``pruning.importance.CRITERIA``; by default ``fisher`` where data is given, else ``l2``.
        data: a task whose calibration images the scores are taken on.
        fusion: level at which the network is fused in the end; plans price that form.
        ship: number format in which it will ship, see ``Options.ship``.
        device: where it is timed, see ``Options.device``.
        plans: with data and a speed-up, how many plans are made and judged as a whole; about what cutting and fitting takes, each.

    Raises:
        InputError: not exactly one of ratio and speedup is given, it is out of range or out of reach, there is nothing to
            prune, or the importance needs data that was not given.
    """
    _require_one_amount(ratio, speedup, fit_on_chip=fit_on_chip)
    parse_options({"plans": plans}, "prune()")
    measure_importance = _criterion(importance, data)
    shot = _load(as_module(model), example_tuple(example_inputs), get_target(target, ship, device), data, fusion, plans)
    scores = measure_importance(shot.network, data, Options().calibration_images)
    with tempfile.TemporaryDirectory(prefix="fupruner-") as folder:
        original = Path(folder) / f"original{shot.target.suffix}"
        (shot.target.reference or shot.target).export(shot.graph, shot.inputs, original)
        if speedup is not None:
            module, record, reached = _to_speedup(shot, scores, speedup, original)
        elif ratio is not None:
            module, record, reached = _to_ratio(shot, scores, ratio, original)
        else:
            module, record, reached = _to_fit(shot, scores, original)
    groups = tuple(group.record() for group in shot.network.groups.groups)
    return PruneResult(module, record, groups, reached, shot.target.grade)


@dataclass(frozen=True)
class _Shot:
    """What planning and cutting work on.

    Attributes:
        graph: the original, its norms folded where it is fused at all; never modified.
        network: the same with gates, also for the channels of shortcuts that ship as filters.
        fusion: level at which what is left is fused.
        plans: how many are judged as a whole.
    """

    graph: fx.GraphModule
    inputs: tuple[Tensor, ...]
    network: GatedNetwork
    planner: Planner
    target: Target
    data: Task | None
    fusion: str
    plans: int

    def as_shipped(self, gated: GatedNetwork, slimmed: fx.GraphModule) -> nn.Module:
        """Let what is left take over what was cut, and fuse what pruning freed."""
        if self.data is not None:
            slimmed = compensate(gated, slimmed, self.graph, calibration_inputs(self.data))
        return fuse_as_planned(gated, slimmed, self.inputs, self.fusion, self.target.cost_model())[0]


def _require_one_amount(ratio: float | None, speedup: float | None, *, fit_on_chip: bool) -> None:
    """Raise an ``InputError`` unless exactly one of them is given, in range."""
    if [ratio is not None, speedup is not None, fit_on_chip].count(True) != 1:
        raise InputError("Give exactly one of ratio, speedup and fit_on_chip.")
    if speedup is not None and not speedup > 1:
        raise InputError(f"The speed-up is {speedup}; it must be more than 1.")
    if ratio is not None:
        require_share(ratio)


def _criterion(importance: str | None, data: Task | None) -> Callable[[GatedNetwork, Task | None, int], Importance]:
    name = importance or ("l2" if data is None else "fisher")
    found = criterion(name)
    if data is None and name in NEEDS_DATA:
        raise InputError(f"The importance {name} needs data.", hint="Give data, or choose l2.")
    return found


def _load(
    model: nn.Module, inputs: tuple[Tensor, ...], target: Target, data: Task | None, fusion: str, plans: int
) -> _Shot:
    """Trace and fuse a network and put gates into it.

    Raises:
        InputError: it cannot be traced, there is nothing to prune, or the calibration images do not fit it.
    """
    traced = trace(model, inputs, borrow=True)  # fusing copies it
    target = target.adapted(traced, None if data is None else calibration_images(data))
    graph, log = fuse_graph(traced, inputs, "none" if fusion == "none" else "basic")
    if fusion not in ("none", "basic"):
        _, log = fuse_graph(graph, inputs, fusion, cost_model=target.cost_model())
    shipping = shipping_speedup(target, graph, inputs)
    network, planner = make_planner(graph, inputs, target, log, shipping=shipping, share_tensors=True)
    require_prunable(network)
    if data is not None:
        require_fit(graph, calibration_inputs(data, 1))
    return _Shot(graph, inputs, network, planner, target, data, fusion, plans)


def _to_speedup(shot: _Shot, scores: Importance, speedup: float, original: Path) -> tuple[nn.Module, Plan, float]:
    """A network measured to be as fast as asked, with its plan and speed-up; with data, plans are judged as a whole."""
    if shot.data is not None:
        loss = compensated_loss(shot.network, shot.graph, shot.data)
        scores = scaled(shot.planner, scores, best_factors(shot.planner, scores, speedup, loss, plans=shot.plans))
    found = verified_plan(shot.planner, scores, speedup, shot.target, original, shot.inputs, finish=shot.as_shipped)
    return found.module, found.plan.record, found.speedup


def _to_fit(shot: _Shot, scores: Importance, original: Path) -> tuple[nn.Module, Plan, float]:
    """A network whose parameters fit on the target's chip, with its plan and speed-up."""
    plan = shot.planner.for_budget(scores, Budget("bytes", room_on_chip(shot.target)))
    if not plan.record.moves:
        raise InputError("The parameters fit on the chip already.", hint="Ask for a speed-up, or for a ratio.")
    shot.network.set(plan.is_open, plan.closed_branches)
    module = shot.as_shipped(shot.network, slim(shot.network, shot.inputs))
    return module, plan.record, measured_speedup(shot.target, original, module, shot.inputs)


def _to_ratio(shot: _Shot, scores: Importance, ratio: float, original: Path) -> tuple[nn.Module, Plan, float]:
    """A network without that share of every group, measured not to be slower than the original, with its plan and speed-up."""
    plan = shot.planner.uniform(scores, ratio)
    _require_moves(plan.record, ratio)
    shot.network.set(plan.is_open, plan.closed_branches)
    module = shot.as_shipped(shot.network, slim(shot.network, shot.inputs))
    reached = measured_speedup(shot.target, original, module, shot.inputs)
    _require_faster(reached, ratio, shot.target.grade)
    return module, plan.record, reached


def _require_moves(plan: Plan, ratio: float) -> None:
    """Refuse to hand out the network as it was without a word."""
    if not plan.moves:
        raise InputError(
            f"A ratio of {ratio:g} removes nothing: no group of channels would lose a whole block of the widths that the target likes.",
            hint="Ask for a larger ratio, or for a speed-up: then whole branches may go too.",
        )


def _require_faster(speedup: float, ratio: float, grade: str) -> None:
    """Refuse to hand out a network that is clearly slower than the original; timing noise is a few percent."""
    if speedup < 1 - SLOWER:
        raise InputError(
            f"Pruned at ratio {ratio:g} the network is slower than the original: {speedup:.2f}x {grade}.",
            hint="Ask for a speed-up instead of a ratio; then only what saves time is removed.",
        )
