"""Factors on scores: parts of a network made dearer or cheaper to close than their scores say."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from fupruner.pruning.greedy import CHANNELS
from fupruner.pruning.importance import Importance
from fupruner.pruning.plan import GatePlan, Planner

Factors = dict[str, float]
"""What the scores of a part are multiplied by; 1 for a part without a factor. A part is a branch (see ``branch``) or a group of
channels, by its name."""


def branch(name: str) -> str:
    """The branch as a part: a group of channels may have the same name."""
    return f"branch {name}"


def of_branches(names: Iterable[str], factor: float) -> Factors:
    """The same factor for all branches."""
    return {branch(name): factor for name in names}


def scaled(planner: Planner, importance: Importance, factors: Factors) -> Importance:
    """The same scores with those of some parts multiplied."""
    units = importance.units.copy()
    for name, group in planner.search.groups.items():
        units[group.units] *= factors.get(name, 1.0)
    branches = {name: score * factors.get(branch(name), 1.0) for name, score in importance.branches.items()}
    return replace(importance, units=units, branches=branches)


def parts(planner: Planner) -> list[str]:
    """All parts, those whose layers take the most time first."""
    search = planner.search
    prices = planner.pricer.prices(planner.pricer.shapes(planner.all_open, frozenset()))
    layers = {branch(name): owned for name, owned in search.owned.items()} | search.touched
    return sorted(layers, key=lambda part: (-sum(prices[i] for i in layers[part]), part))


def closed_parts(plan: GatePlan) -> frozenset[str]:
    """Parts that a plan closes anything of."""
    moves = plan.record.moves
    channels = frozenset(move.where for move in moves if move.kind in CHANNELS)
    return channels | {branch(move.where) for move in moves if move.kind == "branch"}


__all__ = ["Factors", "branch", "closed_parts", "of_branches", "parts", "scaled"]
