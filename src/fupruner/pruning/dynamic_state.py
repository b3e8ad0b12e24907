"""Where dynamic pruning stands, as plain values and tensors that a checkpoint can hold, and back again."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import torch

from fupruner.errors import InputError
from fupruner.pruning.dynamic import Decision, DynamicPruning
from fupruner.pruning.importance import Importance
from fupruner.pruning.plan import GatePlan
from fupruner.records import Plan


def state_of(pruning: DynamicPruning) -> dict[str, Any]:
    """Decisions, scores, plan and gates; weights are not part of it. ``torch.load`` reads it with ``weights_only=True``."""
    network, scores = pruning.network, pruning.importance
    return {
        "schedule": asdict(pruning.schedule),
        "decisions": [asdict(decision) for decision in pruning.decisions],
        "factors": dict(pruning.factors),
        "scores": None if scores is None else {**vars(scores), "units": torch.from_numpy(scores.units)},
        "plan": _plan_state(pruning.plan),
        "end": _plan_state(pruning.end),
        "gates": {**_gates(network), "softness": network.softness},
    }


def restore(pruning: DynamicPruning, state: dict[str, Any]) -> None:
    """Bring a dynamic pruning of the same network and schedule to where ``state_of`` was taken, gates included.

    Raises:
        InputError: the state is that of another network or another schedule.
    """
    network, gates = pruning.network, state["gates"]
    own = [network.groups.labelling.units, *_steps(asdict(pruning.schedule))]
    given = [len(gates["is_open"]), *_steps(state["schedule"])]
    if own != given:
        raise InputError(
            f"The state is that of another pruning: its units, first step, deadline and decisions are {given}, not {own}.",
            hint="Make the callback with the arguments that it was made with when the state was saved.",
        )
    scores = state["scores"]
    pruning.schedule = replace(pruning.schedule, **state["schedule"])
    pruning.decisions = [Decision(**decision) for decision in state["decisions"]]
    pruning.factors = dict(state["factors"])
    pruning.importance = None if scores is None else Importance(**{**scores, "units": scores["units"].numpy()})
    pruning.plan, pruning.end = _plan(state["plan"]), _plan(state["end"])
    network.set(*_open_and_closed(gates), gates["softness"])


def _plan_state(plan: GatePlan | None) -> dict[str, Any] | None:
    return None if plan is None else {"record": plan.record.model_dump(mode="json"), **_gates(plan)}


def _plan(state: dict[str, Any] | None) -> GatePlan | None:
    return None if state is None else GatePlan(Plan.model_validate(state["record"]), *_open_and_closed(state))


def _gates(holder: Any) -> dict[str, Any]:
    return {"is_open": torch.from_numpy(holder.is_open), "closed_branches": sorted(holder.closed_branches)}


def _open_and_closed(state: dict[str, Any]) -> tuple[Any, frozenset[str]]:
    return state["is_open"].numpy(), frozenset(state["closed_branches"])


def _steps(schedule: dict[str, Any]) -> list[int]:
    return [schedule["first"], schedule["deadline"], schedule["decisions"]]
