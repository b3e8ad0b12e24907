"""Plans: which gates close so that a budget is met at the least predicted loss.

Moves close an aligned bundle of a group's least important units, or a whole branch. The cheapest move per saved
millisecond goes first; what it saves is priced again as its neighbours shrink. At the end moves that turn out not to be
needed are taken back.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fupruner.errors import InputError
from fupruner.pruning.gates import GatedNetwork
from fupruner.pruning.groups import Group
from fupruner.pruning.importance import Importance
from fupruner.pruning.pricing import Open, Pricer
from fupruner.records import Move, Plan

LEVELS = 8
"""At most so many widths are tried per group, so that a table stays small for wide layers."""


_Raw = tuple[Move, Open, frozenset[str], list[int]]  # a move, the gates after it, and the layers whose price may change


@dataclass(frozen=True)
class _Candidate:
    """A move that could be made next."""

    move: Move
    is_open: Open
    closed: frozenset[str]
    saved_ms: float


@dataclass(frozen=True)
class GatePlan:
    """A plan with the state of the gates that it asks for."""

    record: Plan
    is_open: Open
    closed_branches: frozenset[str]


class Planner:
    """Finds plans for one network on one target.

    Args:
        network: gates; they are not touched.
        pricer: what a state of the gates costs.
        target: name, for the record.
        alignment: channel counts that the target likes, see ``Target.alignment``.
    """

    def __init__(self, network: GatedNetwork, pricer: Pricer, target: str, alignment: int) -> None:
        self.network, self.pricer, self.target = network, pricer, target
        self.bundle = max(1, alignment // 2)
        self.touched = {group.name: pricer.touched(group) for group in network.groups.prunable}
        self.all_open = np.ones(network.groups.labelling.units, dtype=bool)
        self.baseline_ms = pricer.total(self.all_open, frozenset())

    def for_speedup(self, importance: Importance, speedup: float) -> GatePlan:
        """The plan of least loss whose predicted time is the baseline's divided by ``speedup``.

        Raises:
            InputError: no set of moves is fast enough; the message says how fast the network can become.
        """
        budget = self.baseline_ms / speedup
        is_open, closed, spent = self.all_open.copy(), frozenset[str](), self.baseline_ms
        moves: list[Move] = []
        while spent > budget:
            candidate = self._best(importance, is_open, closed, spent - budget)
            if candidate is None:
                raise InputError(
                    f"A speed-up of {speedup:.2f}x is out of reach on {self.target}: "
                    f"{self.baseline_ms / spent:.2f}x is the largest predicted one.",
                    hint=f"Ask for at most {self.baseline_ms / spent:.2f}.",
                )
            moves.append(candidate.move)
            is_open, closed = candidate.is_open, candidate.closed
            spent = self.pricer.total(is_open, closed)
        moves, is_open, closed = self._take_back(moves, budget)
        return self._gate_plan(importance, f"speed-up {speedup:.3f}", moves, is_open, closed)

    def uniform(self, importance: Importance, ratio: float) -> GatePlan:
        """Close the same share of every group, rounded to whole bundles; for comparison and for use without a budget.

        Raises:
            InputError: the ratio does not lie between 0 and 1.
        """
        if not 0 < ratio < 1:
            raise InputError(f"The pruning ratio is {ratio}; it must lie between 0 and 1.")
        is_open, moves = self.all_open.copy(), []
        for group in self.network.groups.prunable:
            width = _nearest_width(group, (1 - ratio) * len(group.units), self.bundle)
            order = group.units[np.argsort(importance.units[group.units], kind="stable")]
            shut = order[: len(group.units) - width]
            if len(shut):
                is_open[shut] = False
                moves.append(self._channel_move(group, shut, importance, 0.0))
        return self._gate_plan(importance, f"ratio {ratio:.3f}", moves, is_open, frozenset())

    # -- the search --------------------------------------------------------------------------------------------------

    def _best(self, importance: Importance, is_open: Open, closed: frozenset[str], needed: float) -> _Candidate | None:
        """The move with the least loss per saved time; a move that alone meets the budget counts only what is needed."""
        moves = self._channel_candidates(importance, is_open, closed) + self._branch_candidates(
            importance, is_open, closed
        )
        candidates = self._priced(moves, is_open, closed)
        useful = [c for c in candidates if c.saved_ms > 1e-9]
        if not useful:
            return None
        return min(useful, key=lambda c: (c.move.loss / min(c.saved_ms, needed), -c.saved_ms, c.move.where))

    def _channel_candidates(self, importance: Importance, is_open: Open, closed: frozenset[str]) -> list[_Raw]:
        found = []
        for group in self.network.groups.prunable:
            alive = group.units[is_open[group.units]]
            order = alive[np.argsort(importance.units[alive], kind="stable")]
            for width in widths(group, self.bundle):
                if width >= len(alive):
                    continue
                shut = order[: len(alive) - width]
                after = is_open.copy()
                after[shut] = False
                found.append(
                    (self._channel_move(group, shut, importance, 0.0), after, closed, self.touched[group.name])
                )
        return found

    def _branch_candidates(self, importance: Importance, is_open: Open, closed: frozenset[str]) -> list[_Raw]:
        everything = list(range(len(self.pricer.layers)))
        return [
            (
                Move(kind="branch", where=name, closed=(0,), loss=importance.branches[name], saved_ms=0.0),
                is_open,
                closed | {name},
                everything,
            )
            for name in self.pricer.branches
            if name not in closed
            and not any(self.pricer.branches[name].add in self.pricer.branches[c].nodes for c in closed)
        ]

    def _priced(self, moves: list[_Raw], is_open: Open, closed: frozenset[str]) -> list[_Candidate]:
        """Price all candidates at once, so that unknown shapes are measured together."""
        after = [self.pricer.shapes(opened, shut, which) for _, opened, shut, which in moves]
        self.pricer.prices(shape for shapes in after for shape in shapes)
        now = self.pricer.prices(self.pricer.shapes(is_open, closed))
        return [
            _Candidate(move.model_copy(update={"saved_ms": saved}), opened, shut, saved)
            for (move, opened, shut, which), shapes in zip(moves, after, strict=True)
            for saved in [sum(now[i] for i in which) - sum(self.pricer.prices(shapes))]
        ]

    def _take_back(self, moves: list[Move], budget: float) -> tuple[list[Move], Open, frozenset[str]]:
        """Drop moves that the budget does not need, the most harmful first."""
        kept = list(moves)
        for move in sorted(moves, key=lambda m: -m.loss):
            rest = [m for m in kept if m is not move]
            if self.pricer.total(*self._state(rest)) <= budget:
                kept = rest
        return kept, *self._state(kept)

    def _state(self, moves: list[Move]) -> tuple[Open, frozenset[str]]:
        is_open = self.all_open.copy()
        for move in moves:
            if move.kind == "channels":
                is_open[list(move.closed)] = False
        return is_open, frozenset(m.where for m in moves if m.kind == "branch")

    @staticmethod
    def _channel_move(group: Group, shut: np.ndarray, importance: Importance, saved_ms: float) -> Move:  # type: ignore[type-arg]
        loss = float(importance.units[shut].sum())
        return Move(kind="channels", where=group.name, closed=tuple(shut.tolist()), loss=loss, saved_ms=saved_ms)

    def _gate_plan(
        self, importance: Importance, budget: str, moves: list[Move], is_open: Open, closed: frozenset[str]
    ) -> GatePlan:
        record = Plan(
            target=self.target, importance=importance.criterion, budget=budget, moves=tuple(moves), baseline_ms=self.baseline_ms,
            predicted_ms=self.pricer.total(is_open, closed), grade=self.pricer.cost_model.grade,
            widths_before=self.pricer.widths(self.all_open, frozenset()), widths_after=self.pricer.widths(is_open, closed),
        )  # fmt: skip
        return GatePlan(record, is_open, closed)


def widths(group: Group, bundle: int) -> list[int]:
    """Widths that a group may shrink to: multiples of the bundle, at most ``LEVELS`` of them, at least one bundle."""
    count = len(group.units)
    step = bundle * max(1, -(-count // (bundle * LEVELS)))
    return list(range(step, count, step))


def _nearest_width(group: Group, wanted: float, bundle: int) -> int:
    """The multiple of the bundle that is nearest to a wanted width; narrow groups keep at least one channel."""
    count = len(group.units)
    if count <= bundle:
        return max(1, min(count, round(wanted)))
    return min(count, max(bundle, bundle * round(wanted / bundle)))
